"""Bytes of a URL: the only place where servers are asked.

Media libraries resolve playlists, references and protocols by themselves, so they are only ever
given the file objects made here. Every request of every hop goes through one `httpx.BaseTransport`,
which refuses what is not allowed by raising SourceError.
"""

from __future__ import annotations

import io
import re
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol
from urllib.parse import unquote

import httpx

from streamer.errors import SourceError
from streamer.sources.info import Limits
from streamer.sources.url import follow

_REDIRECTS = {301, 302, 303, 307, 308}
_SKIP_BYTES = 256 << 10  # reading on is cheaper than asking again
_LEAST_RATE = 1024  # bytes per second
_ADVICE = {401: "give the URL with its credentials", 403: "check the URL and its credentials"}


class StatusRefused(SourceError):
    """A server answered with a status that is no success."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class MediaFile(Protocol):
    """A file for a media library.

    `read` never raises: PyAV prints what a callback raises more than once. It ends the file instead
    and leaves the reason in `failure`.
    """

    failure: SourceError | None

    @property
    def hint(self) -> str:
        """What may be why its header cannot be found, to be added to a sentence."""

    def read(self, size: int = -1) -> bytes: ...
    def seek(self, offset: int, whence: int = 0) -> int: ...
    def tell(self) -> int: ...
    def seekable(self) -> bool: ...
    def close(self) -> None: ...


class Fetcher:
    """The requests of one reading of a source, which share their bounds."""

    def __init__(self, limits: Limits, transport: httpx.BaseTransport) -> None:
        self.limits = limits
        self._transport = transport
        self._received = 0
        self._waited_s = 0.0
        self._waited_bytes = 0

    def renew(self) -> None:
        """Starts the bounds anew: of a live source, each piece has them for itself."""
        self._received, self._waited_s, self._waited_bytes = 0, 0.0, 0

    def ask(self, url: httpx.URL, first: int, shown: str) -> tuple[httpx.URL, httpx.Response]:
        """The first answer that is not a redirect, and the URL that gave it.

        Raises: SourceError.
        """
        limits = self.limits
        timeout = dict.fromkeys(("read", "write", "pool"), limits.read_s)
        timeout["connect"] = limits.connect_s
        for _ in range(limits.max_redirects + 1):
            headers = {
                "Range": f"bytes={first}-",
                "Accept": "*/*",
                "Accept-Encoding": "identity",
                "User-Agent": "streamer",
            }
            if url.userinfo:
                user, _, password = url.userinfo.partition(b":")
                plain = b":".join(unquote(x.decode()).encode() for x in (user, password))
                headers["Authorization"] = f"Basic {b64encode(plain).decode()}"
            request = httpx.Request(
                "GET",
                url.copy_with(userinfo=b"", fragment=None),
                headers=headers,
                extensions={"timeout": timeout},
            )
            # not httpx.Client: it logs whole URLs, with their tokens
            started = time.monotonic()
            response = self._send(request, shown)
            response.request = request
            location = response.headers.get("location")
            try:
                self.count(0, started, shown)
                if response.status_code not in _REDIRECTS or not location:
                    return url, response
                url = follow(url, location)
            except BaseException:
                response.close()
                raise
            response.close()
        raise SourceError(
            f"{shown}: more than {limits.max_redirects} redirects; give the final URL"
        )

    def count(self, received: int, started: float, shown: str) -> None:
        """Adds bytes and the time since `started`. Raises: SourceError for too many, too slowly."""
        self._received += received
        self.check_bytes(self._received, shown)
        self._waited_s += time.monotonic() - started
        self._waited_bytes += received
        if self._waited_s > 3 * self.limits.read_s:
            if self._waited_bytes < _LEAST_RATE * self._waited_s:
                raise SourceError(
                    f"{shown}: the server sends less than {_LEAST_RATE} bytes per second; "
                    f"check the server"
                )
            self._waited_s, self._waited_bytes = 0.0, 0

    def check_bytes(self, count: int, shown: str) -> None:
        """Raises: SourceError when `count` bytes are more than may be read."""
        if count > self.limits.max_bytes:
            raise SourceError(
                f"{shown}: more than {self.limits.max_bytes} bytes would have to be read; "
                f"raise max_bytes or take a smaller file"
            )

    def _send(self, request: httpx.Request, shown: str) -> httpx.Response:
        host = request.url.host
        try:
            return self._transport.handle_request(request)
        except httpx.ConnectTimeout as exc:
            what = f"no connection to {host} within {self.limits.connect_s:g} s"
            raise SourceError(f"{shown}: {what}; check the host") from exc
        except httpx.TimeoutException as exc:
            what = f"{host} did not answer within {self.limits.read_s:g} s"
            raise SourceError(f"{shown}: {what}; check the server") from exc
        except httpx.ConnectError as exc:
            raise SourceError(f"{shown}: cannot connect to {host}; check the host") from exc
        except httpx.TransportError as exc:
            raise SourceError(f"{shown}: {host} broke off the request; try again") from exc


class HttpFile:
    """A file on a server, read by ranges where the server knows them, else once in order."""

    def __init__(self, url: httpx.URL, fetcher: Fetcher, *, shown: str, first: int = 0) -> None:
        """Asks for the file from byte `first` on. Raises: SourceError."""
        self.failure: SourceError | None = None
        self.url = url
        """After redirects, what they led to."""
        self._asked = url
        self._shown = shown
        self._fetcher = fetcher
        self._response: httpx.Response | None = None
        self._headers = httpx.Headers()
        self._chunks: Iterator[bytes] = iter(())
        self._buffer = memoryview(b"")
        self._at = 0  # where the buffer starts in the file
        self._position = first  # where the next read starts
        self._size: int | None = None
        self._ranges = False
        self._retried_at = -1
        self._connect(first, opening=True)

    @property
    def hint(self) -> str:
        if self._ranges:
            return ""
        return " (the server does not answer range requests, which an index at the end needs)"

    @property
    def size(self) -> int | None:
        """Bytes of the whole file, as the server says."""
        return self._size

    @property
    def headers(self) -> httpx.Headers:
        """Those of the last answer."""
        return self._headers

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            size = 1 << 20
        try:
            return self._read(size)
        except SourceError as exc:
            self.failure = self.failure or exc
            return b""

    def peek(self, size: int) -> bytes:
        """The file's first bytes, before anything is read. Raises: SourceError."""
        while len(self._buffer) < size:
            kept, start = bytes(self._buffer), self._at
            self._at += len(kept)
            piece = self._receive()
            self._at, self._buffer = start, memoryview(kept + piece)
            if not piece:
                break
        return bytes(self._buffer[:size])

    def read_all(self, most: int) -> bytes:
        """What is left of it. Raises: SourceError when that is more than `most` bytes."""
        data = bytearray()
        while piece := self.read():
            data += piece
            if len(data) > most:
                raise SourceError(f"{self._shown}: is larger than {most} bytes; check the URL")
        if self.failure is not None:
            raise self.failure
        return bytes(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        if not self._ranges:
            raise io.UnsupportedOperation("the server does not answer range requests")
        base = {0: 0, 1: self._position, 2: self._size or 0}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return self._ranges

    def close(self) -> None:
        if self._response is not None:
            if self._size is not None and self._at + len(self._buffer) >= self._size:
                with suppress(httpx.TransportError):
                    next(self._chunks, None)  # its end; then the connection can be used again
            self._response.close()
            self._response = None

    def _read(self, size: int) -> bytes:
        if self.failure is not None or (self._size is not None and self._position >= self._size):
            return b""
        ahead = self._position - self._at
        if self._response is None or ahead < 0 or ahead > max(_SKIP_BYTES, len(self._buffer)):
            self._connect(self._position)
        while self._position >= self._at + len(self._buffer):
            self._at += len(self._buffer)
            self._buffer = memoryview(self._receive())
            if not self._buffer:
                return b""
        start = self._position - self._at
        piece = bytes(self._buffer[start : start + size])
        self._position += len(piece)
        return piece

    def _receive(self) -> bytes:
        """The connection's next bytes; empty at the end of the file."""
        started = time.monotonic()
        try:
            chunk = next(self._chunks, b"")
        except httpx.TimeoutException as exc:
            raise SourceError(
                f"{self._shown}: the server sent nothing for {self._fetcher.limits.read_s:g} s; "
                f"check the server"
            ) from exc
        except httpx.TransportError as exc:
            return self._resume(exc)
        if not chunk:
            return self._resume(None) if self._size is not None and self._at < self._size else b""
        self._fetcher.count(len(chunk), started, self._shown)
        return chunk

    def _resume(self, cause: Exception | None) -> bytes:
        """Asks once more for what a broken connection left out."""
        if not self._ranges or self._retried_at == self._at:
            size = "unknown size" if self._size is None else f"{self._size} bytes"
            raise SourceError(
                f"{self._shown}: the connection broke after {self._at} bytes of {size}; try again"
            ) from cause
        self._retried_at = self._at
        self._connect(self._at)
        return self._receive()

    def _connect(self, offset: int, *, opening: bool = False) -> None:
        self.close()
        self.url, response = self._fetcher.ask(self._asked, offset, self._shown)
        self._response, self._headers = response, response.headers
        try:
            self._look(response, offset, opening)
        except BaseException:
            self.close()
            raise
        self._chunks = response.iter_raw()
        self._at, self._buffer = offset, memoryview(b"")

    def _look(self, response: httpx.Response, offset: int, opening: bool) -> None:
        """Raises: SourceError when the answer does not hold the file from `offset` on."""
        status = response.status_code
        if status == 416 and offset == 0:
            raise StatusRefused(
                f"{self._shown}: the file is empty; check how it was written", status
            )
        if status not in {200, 206}:
            advice = _ADVICE.get(status) or ("check the URL" if status < 500 else "try again later")
            reason = f"{status} {response.reason_phrase}".strip()
            raise StatusRefused(f"{self._shown}: the server answered {reason}; {advice}", status)
        first, size = _span(response)
        if opening and first != offset:
            raise SourceError(
                f"{self._shown}: the server does not answer range requests, which are needed here; "
                f"use another server"
            )
        if first != offset or (not opening and offset and size != self._size):
            raise SourceError(
                f"{self._shown}: the file changed on the server while it was read; start again"
            )
        if opening or offset == 0:
            self._ranges, self._size = status == 206 and size is not None, size
            self._fetcher.check_bytes((size or 0) - offset, self._shown)


def _span(response: httpx.Response) -> tuple[int, int | None]:
    """First byte and size of the whole file, as the server says."""
    if response.status_code == 206:
        span = response.headers.get("content-range", "")
        found = re.match(r"bytes (\d{1,18})-\d+/(\d{1,18})$", span, re.ASCII)
        return (int(found[1]), int(found[2])) if found else (0, None)
    with suppress(ValueError):
        return 0, int(response.headers.get("content-length", ""))
    return 0, None
