"""Transport: HTTP requests that can only go where a policy allows.

Every connection looks its host up once, checks what it finds and connects to just that, so that a
name whose address changes between two looks gains nothing. TLS and the Host header keep the name.
No proxy is used, whatever the environment says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from streamer.sources.guard import (
    AddressRefused,
    FetchPolicy,
    Resolve,
    find_allowed,
    refusal,
)
from streamer.sources.url import redact

_MOST_ADDRESSES = 4  # of one host that are tried
_IDLE_S = 5.0
_ERRORS = (
    (httpcore.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.TimeoutException, httpx.ReadTimeout),
    (httpcore.NetworkError, httpx.ReadError),
    (httpcore.ProtocolError, httpx.RemoteProtocolError),
)


class GuardedTransport(httpx.BaseTransport):
    """Requests under a policy; `resolve` stands in for the system's look-up of names."""

    def __init__(self, policy: FetchPolicy, *, resolve: Resolve | None = None) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            network_backend=_Backend(policy, resolve),
            keepalive_expiry=_IDLE_S,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Raises: SourceError for an address that is not allowed; httpx.TransportError."""
        url = request.url
        try:
            with _httpx_errors():
                answer = self._pool.handle_request(
                    httpcore.Request(
                        request.method,
                        httpcore.URL(
                            scheme=url.raw_scheme,
                            host=url.raw_host,
                            port=url.port,
                            target=url.raw_path,
                        ),
                        headers=request.headers.raw,
                        content=request.stream,
                        extensions=request.extensions,
                    )
                )
        except AddressRefused as exc:
            raise refusal(redact(str(url)), url.raw_host.decode()) from exc
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        connection = self._answer.extensions["network_stream"]
        parts = self._answer.iter_stream()
        while True:
            if isinstance(connection, _Connection):
                connection.renew()
            with _httpx_errors():
                part = next(parts, None)
            if part is None:
                return
            yield part

    def close(self) -> None:
        self._answer.close()


class _Backend(httpcore.NetworkBackend):
    """Connects to addresses that were checked, within one time for all of them."""

    def __init__(self, policy: FetchPolicy, resolve: Resolve | None) -> None:
        self._policy = policy
        self._resolve = resolve
        self._system = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        timeout = 60.0 if timeout is None else timeout
        until = time.monotonic() + timeout
        try:
            addresses = find_allowed(
                host, port, self._policy, resolve=self._resolve, timeout_s=timeout
            )
        except TimeoutError as exc:
            raise httpcore.ConnectTimeout(str(exc)) from exc
        except OSError as exc:
            raise httpcore.ConnectError(str(exc)) from exc
        addresses = addresses[:_MOST_ADDRESSES]
        while True:
            # each gets its share of what is left, so that one that is silent leaves time for others
            share = max(0.001, until - time.monotonic()) / len(addresses)
            try:
                return _Connection(
                    self._system.connect_tcp(
                        addresses.pop(0), port, share, local_address, socket_options
                    )
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if not addresses:
                    raise


class _Connection(httpcore.NetworkStream):
    """A connection whose timeout is for what is waited for (an answer's head, a piece of its body),
    not for the next byte of it."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._timeout = math.inf
        self._until = math.inf

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)
        self._timeout = math.inf if timeout is None else timeout
        self.renew()

    def renew(self) -> None:
        """From now on something else is waited for."""
        self._until = time.monotonic() + self._timeout

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = self._until - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("what was waited for came too slowly")
        return self._stream.read(max_bytes, left if left < math.inf else timeout)

    def start_tls(
        self,
        ssl_context: Any,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        return _Connection(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()


@contextmanager
def _httpx_errors() -> Iterator[None]:
    """Errors of the connections as errors of httpx."""
    try:
        yield
    except tuple(ours for ours, _ in _ERRORS) as exc:
        theirs = next(theirs for ours, theirs in _ERRORS if isinstance(exc, ours))
        raise theirs(str(exc)) from exc
