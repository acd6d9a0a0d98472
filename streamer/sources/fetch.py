"""Bytes of a URL: the only place where files are opened and servers are asked.

Media libraries resolve playlists, references and protocols by themselves, so they are only ever
given the file objects made here. Every request of every hop goes through one `httpx.BaseTransport`;
whoever wants to forbid an address passes a transport that refuses it by raising SourceError.
"""

from __future__ import annotations

import io
import os
import re
import stat
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

import httpx

from streamer.errors import SourceError
from streamer.sources.info import Limits

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):")
_REDIRECTS = {301, 302, 303, 307, 308}
_SKIP_BYTES = 256 << 10  # reading on is cheaper than asking again
_LEAST_RATE = 1024  # bytes per second
_ADVICE = {401: "give the URL with its credentials", 403: "check the URL and its credentials"}


class MediaFile(Protocol):
    """A file for a media library.

    `read` never raises: PyAV prints what a callback raises more than once. It ends the file instead
    and leaves the reason in `failure`.
    """

    failure: SourceError | None

    def read(self, size: int = -1) -> bytes: ...
    def seek(self, offset: int, whence: int = 0) -> int: ...
    def tell(self) -> int: ...
    def seekable(self) -> bool: ...
    def close(self) -> None: ...


def redact(url: str) -> str:
    """The URL as it may be shown: without user, password, query and fragment."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        scheme, mark, rest = url.partition(":")
        if not mark or not _SCHEME.match(url) or os.path.lexists(url):
            return url
        mark += "/" * (len(rest) - len(rest.lstrip("/")))
        rest = rest.lstrip("/")
    if scheme.lower() == "file":
        return url
    rest, query, _ = _cut(rest)
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        authority = authority.rpartition("@")[2]
    elif "@" in path and not re.fullmatch(r"[^:]*(:\d*)?|\[.*\](:\d*)?", authority):
        authority, slash, path = path.rpartition("@")[2].partition("/")  # a "/" in the password
    return f"{scheme}{mark}{authority}{slash}{path}{'?…' if query else ''}"


def _cut(rest: str) -> tuple[str, str, str]:
    """Address, and what follows a "?" or "#"."""
    found = re.search(r"[?#]", rest)
    return (
        (rest, "", "") if found is None else (rest[: found.start()], found[0], rest[found.end() :])
    )


def absolute(url: str) -> str:
    """A path that means the same in every process; URLs stay as they are."""
    if "://" in url or url.startswith("file:"):
        return url
    return str(Path(os.path.expanduser(url)).absolute())  # as it is where there is no such user


def local_path(url: str) -> Path | None:
    """The path of a file URL or plain path; None for http(s).

    Raises: SourceError for every other scheme, and for what is not a readable, non-empty file.
    """
    found = _SCHEME.match(url)
    scheme = found[1].lower() if found else ""
    if scheme in {"http", "https"}:
        return None
    if scheme == "file":
        parts = urlsplit(url)
        if parts.netloc not in {"", "localhost"}:
            raise SourceError(
                f"{redact(url)}: a file on host '{parts.hostname}' cannot be read; use file:///path"
            )
        path = Path(unquote(parts.path))
    elif scheme and not os.path.lexists(url):
        raise SourceError(
            f"{redact(url)}: '{scheme}' is not supported; use a file path, file:, http: or https:"
        )
    else:
        path = Path(url)
    shown = redact(url)
    try:
        status = path.stat()
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise SourceError(f"{shown}: cannot be opened ({why}); check the path") from exc
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(f"{shown}: is a folder; name one video file in it")
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{shown}: is not a regular file; give a video file")
    if status.st_size == 0:
        raise SourceError(f"{shown}: the file is empty (0 bytes); check how it was written")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{shown}: may not be read by this user; check its permissions")
    return path.absolute()


class LocalFile:
    """A regular file on this machine."""

    def __init__(self, path: Path, shown: str) -> None:
        self.failure: SourceError | None = None
        self._shown = shown
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as exc:
            raise SourceError(
                f"{shown}: cannot be opened ({exc.strerror}); check the path"
            ) from exc

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except OSError as exc:
            self.failure = SourceError(
                f"{self._shown}: reading failed ({exc.strerror}); check the disk"
            )
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()


class HttpFile:
    """A file on a server, read by ranges where the server knows them, else once in order."""

    def __init__(self, url: str, limits: Limits, transport: httpx.BaseTransport) -> None:
        self.failure: SourceError | None = None
        self._shown = redact(url)
        self._limits = limits
        self._transport = transport
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._buffer = memoryview(b"")
        self._at = 0  # where the buffer starts in the file
        self._position = 0  # where the next read starts
        self._size: int | None = None
        self._ranges = False
        self._received = 0
        self._waited_s = 0.0
        self._waited_bytes = 0
        self._retried_at = -1
        try:
            self._url = httpx.URL(url)
        except httpx.InvalidURL as exc:
            raise SourceError(f"{self._shown}: is not a URL; check it") from exc
        self._connect(0)

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            size = 1 << 20
        try:
            return self._read(size)
        except SourceError as exc:
            self.failure = self.failure or exc
            return b""

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
                f"{self._shown}: the server sent nothing for {self._limits.read_s:g} s; "
                f"check the server"
            ) from exc
        except httpx.TransportError as exc:
            return self._resume(exc)
        if not chunk:
            return self._resume(None) if self._size is not None and self._at < self._size else b""
        self._received += len(chunk)
        self._check_bytes(self._received)
        self._waited_s += time.monotonic() - started
        self._waited_bytes += len(chunk)
        if self._waited_s > 3 * self._limits.read_s:
            if self._waited_bytes < _LEAST_RATE * self._waited_s:
                raise SourceError(
                    f"{self._shown}: the server sends less than {_LEAST_RATE} bytes per second; "
                    f"check the server"
                )
            self._waited_s, self._waited_bytes = 0.0, 0
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

    def _connect(self, offset: int) -> None:
        self.close()
        response = self._answer(self._url, offset)
        self._response = response
        if response.status_code == 416 and offset == 0:
            raise SourceError(f"{self._shown}: the file is empty; check how it was written")
        if response.status_code not in {200, 206}:
            advice = _ADVICE.get(response.status_code)
            advice = advice or (
                "check the URL" if response.status_code < 500 else "try again later"
            )
            reason = f"{response.status_code} {response.reason_phrase}".strip()
            self.close()
            raise SourceError(f"{self._shown}: the server answered {reason}; {advice}")
        first, size = _span(response)
        if first != offset or (offset and size != self._size):
            self.close()
            raise SourceError(
                f"{self._shown}: the file changed on the server while it was read; start again"
            )
        if offset == 0:
            self._ranges, self._size = response.status_code == 206 and size is not None, size
            self._check_bytes(size or 0)
        self._chunks = response.iter_raw()
        self._at, self._buffer = offset, memoryview(b"")

    def _answer(self, url: httpx.URL, offset: int) -> httpx.Response:
        """The first answer that is not a redirect."""
        limits = self._limits
        timeout = dict.fromkeys(("read", "write", "pool"), limits.read_s)
        timeout["connect"] = limits.connect_s
        credentials = b""
        for _ in range(limits.max_redirects + 1):
            port = url.port or 80
            if url.scheme not in {"http", "https"} or not url.host or port > 65535:
                raise SourceError(f"{redact(str(url))}: is not an http: or https: URL; check it")
            headers = {
                "Range": f"bytes={offset}-",
                "Accept": "*/*",
                "Accept-Encoding": "identity",
                "User-Agent": "streamer",
            }
            credentials = url.userinfo or credentials
            if credentials:
                user, _, password = credentials.partition(b":")
                plain = b":".join(unquote(x.decode()).encode() for x in (user, password))
                headers["Authorization"] = f"Basic {b64encode(plain).decode()}"
            request = httpx.Request(
                "GET",
                url.copy_with(userinfo=b"", fragment=None),
                headers=headers,
                extensions={"timeout": timeout},
            )
            # not httpx.Client: it logs whole URLs, with their tokens
            response = self._send(request)
            response.request = request
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or not location:
                return response
            response.close()
            try:
                target = url.join(location)
            except httpx.InvalidURL as exc:
                raise SourceError(f"{self._shown}: redirects to what is not a URL") from exc
            if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
                credentials = b""
            url = target
        raise SourceError(
            f"{self._shown}: more than {limits.max_redirects} redirects; give the final URL"
        )

    def _send(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        try:
            return self._transport.handle_request(request)
        except httpx.ConnectTimeout as exc:
            what = f"no connection to {host} within {self._limits.connect_s:g} s"
            raise SourceError(f"{self._shown}: {what}; check the host") from exc
        except httpx.TimeoutException as exc:
            what = f"{host} did not answer within {self._limits.read_s:g} s"
            raise SourceError(f"{self._shown}: {what}; check the server") from exc
        except httpx.ConnectError as exc:
            raise SourceError(f"{self._shown}: cannot connect to {host}; check the host") from exc
        except httpx.TransportError as exc:
            raise SourceError(f"{self._shown}: {host} broke off the request; try again") from exc
        except ValueError as exc:  # a host name that cannot be encoded
            raise SourceError(f"{self._shown}: cannot connect to {host}; check the host") from exc

    def _check_bytes(self, count: int) -> None:
        if count > self._limits.max_bytes:
            raise SourceError(
                f"{self._shown}: more than {self._limits.max_bytes} bytes would have to be read; "
                f"raise max_bytes or take a smaller file"
            )


def _span(response: httpx.Response) -> tuple[int, int | None]:
    """First byte and size of the whole file, as the server says."""
    if response.status_code == 206:
        found = re.match(r"bytes (\d+)-\d+/(\d+)", response.headers.get("content-range", ""))
        return (int(found[1]), int(found[2])) if found else (0, None)
    with suppress(ValueError):
        return 0, int(response.headers.get("content-length", ""))
    return 0, None
