"""Relay: the one way from a media library to the server of an rtsp(s): or rtmp(s): stream.

Media libraries find hosts, follow redirects and check certificates by themselves, or do not. Ours
is given the address of a relay on this machine, which connects to an address that was checked,
speaks TLS with the real name, and cuts the connection before the library can be sent elsewhere.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from contextlib import suppress

import httpx

from streamer.errors import SourceError
from streamer.sources.guard import AddressRefused, FetchPolicy, Resolve, find_allowed, refusal
from streamer.sources.info import Limits
from streamer.sources.url import port_of, redact

_MOST_ADDRESSES = 4
_PIECE = 1 << 16
_LONGEST_LINE = 4 << 10  # that the library reads
_FIRST = b"RTSP/"
# the library's atoi() wraps at 32 bits: 4294967598 is a 302 to it
_REDIRECT = re.compile(rb"RTSP/[^ \t\n]*[ \t]\s*(?:[\s+0]*3\d\d|\+?\d{4}|-\d)")


class Relay:
    """Connections to one server, one at a time. The rest of a `MediaFile` that is not a file."""

    hint = ""

    def __init__(
        self,
        url: httpx.URL,
        *,
        limits: Limits,
        policy: FetchPolicy,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Connects. Raises: SourceError."""
        self.failure: SourceError | None = None
        self._shown = redact(str(url))
        self._host = url.raw_host.decode()
        self._port = port_of(url)
        self._limits = limits
        self._policy = policy
        self._resolve = resolve
        self._tls = tls
        if tls is None and url.scheme in {"rtsps", "rtmps"}:
            self._tls = httpx.create_ssl_context()
        self._checked = url.scheme in {"rtsp", "rtsps"}
        self._sockets: set[socket.socket] = set()
        self._closed = threading.Event()
        self._ready: socket.socket | None = self._connect()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, name="relay", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self._listener.getsockname()[1])

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Cuts what there is."""
        self._closed.set()
        for item in (self._listener, self._ready, *self._sockets):
            if item is not None:
                _cut(item)

    def _connect(self) -> socket.socket:
        """Raises: SourceError."""
        limit, until = self._limits.connect_s, time.monotonic() + self._limits.connect_s
        try:
            addresses = find_allowed(
                self._host, self._port, self._policy, resolve=self._resolve, timeout_s=limit
            )
        except AddressRefused as exc:
            raise refusal(self._shown, self._host) from exc
        except OSError as exc:
            raise SourceError(
                f"{self._shown}: {self._host} cannot be found; check the host"
            ) from exc
        cause: Exception | None = None
        addresses = addresses[:_MOST_ADDRESSES]
        while addresses:
            share = max(0.001, until - time.monotonic()) / len(addresses)
            try:
                plain = socket.create_connection((addresses.pop(0), self._port), timeout=share)
            except OSError as exc:
                cause = exc
                continue
            return self._secure(plain)
        if isinstance(cause, TimeoutError):
            what = f"no connection to {self._host} within {limit:g} s"
        else:
            what = f"cannot connect to {self._host}"
        raise SourceError(f"{self._shown}: {what}; check the host and the port") from cause

    def _secure(self, plain: socket.socket) -> socket.socket:
        plain.settimeout(self._limits.connect_s)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made = plain
            if self._tls is not None:
                made = self._tls.wrap_socket(plain, server_hostname=self._host)
        except ssl.SSLCertVerificationError as exc:
            plain.close()
            raise SourceError(
                f"{self._shown}: the certificate of {self._host} is not to be trusted "
                f"({exc.args[-1]}); check the host"
            ) from exc
        except OSError as exc:
            plain.close()
            raise SourceError(
                f"{self._shown}: {self._host} does not speak TLS here; check the port"
            ) from exc
        made.settimeout(None)
        return made

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed
                return
            try:
                far, self._ready = self._ready or self._connect(), None
            except SourceError as exc:
                self.failure = self.failure or exc
                _cut(near)
                return
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets = {near, far}
            if self._closed.is_set():
                self.close()
            self._carry(near, far)

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        """Both ways until one side ends it."""
        playing = threading.Event()
        back = threading.Thread(target=self._send, args=(near, far, playing), daemon=True)
        back.start()
        inspect = _Answers() if self._checked else None
        try:
            while piece := far.recv(_PIECE):
                if inspect is not None and not playing.is_set():
                    inspect.look(piece)
                near.sendall(piece)
        except Cut as exc:
            self.failure = self.failure or SourceError(f"{self._shown}: {exc}")
        except OSError:
            pass  # the library is told by its own end of the connection
        finally:
            _cut(near)
            _cut(far)
        back.join()

    def _send(self, near: socket.socket, far: socket.socket, playing: threading.Event) -> None:
        with suppress(OSError):
            while piece := near.recv(_PIECE):
                if piece.startswith(b"PLAY "):
                    playing.set()  # the library follows no redirect any more
                far.sendall(piece)
        with suppress(OSError):
            far.shutdown(socket.SHUT_RDWR)


class Cut(Exception):
    """The library is not to see what a server says; the message says why."""


class _Answers:
    """Looks at an RTSP server's answers until pictures flow, as leniently as the library would."""

    def __init__(self) -> None:
        self._tail = b""

    def look(self, piece: bytes) -> None:
        """Raises: Cut, before an answer that sends the library elsewhere is complete."""
        if not self._tail and not piece.startswith(_FIRST[: len(piece)]):
            raise Cut("the server does not speak RTSP; check the URL and the port")
        seen = self._tail + piece.replace(b"\r", b"")
        if _REDIRECT.search(seen):
            raise Cut("the server redirects to another URL, which is not followed; give that one")
        self._tail = seen[-_LONGEST_LINE:]


def _cut(item: socket.socket) -> None:
    with suppress(OSError):
        item.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        item.close()
