"""URLs as text: what may be shown of them, and what they lead to."""

from __future__ import annotations

import os
import re
from pathlib import Path

import httpx

from streamer.errors import SourceError

SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):")

STREAMS = frozenset({"rtsp", "rtsps", "rtmp", "rtmps"})
"""Schemes of what is live whatever the server says."""

_PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443}


def redact(url: str) -> str:
    """The URL as it may be shown: in one line, without user, password, query and fragment."""
    return "".join(c if c.isprintable() else "?" for c in _redact(url))


def _redact(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    if not mark:
        scheme, mark, rest = url.partition(":")
        if not mark or not SCHEME.match(url) or os.path.lexists(url):
            return url
        mark += "/" * (len(rest) - len(rest.lstrip("/")))
        rest = rest.lstrip("/")
    if scheme.lower() == "file" and (rest.startswith("/") or not mark.endswith("//")):
        return url
    rest, query, tail = _cut(rest)
    if query and ":" in rest and "/" not in rest and "@" not in rest and "@" in tail:
        rest, query, _ = _cut(tail.rpartition("@")[2])  # a "?" or "#" in the password
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


def http_url(text: str) -> httpx.URL:
    """A URL that a request can be sent to.

    Raises: SourceError when it is not an http: or https: URL with a host and a port that exists.
    """
    if scheme_of(text) in STREAMS:
        raise SourceError(f"{redact(text)}: is a live stream, not a file; caption it instead")
    try:
        return _sendable(httpx.URL(text), shown=redact(text))
    except (httpx.InvalidURL, ValueError) as exc:
        raise SourceError(f"{redact(text)}: is not a URL; check it") from exc


def stream_url(text: str) -> httpx.URL:
    """A URL of a live stream that is not fetched but connected to.

    Raises: SourceError when it is not one of `STREAMS` with a host and a port that exists.
    """
    shown = redact(text)
    try:
        url = httpx.URL(text)
        host = url.host  # raises ValueError for what is no international name
    except (httpx.InvalidURL, ValueError) as exc:
        raise SourceError(f"{shown}: is not a URL; check it") from exc
    if url.scheme not in STREAMS or not host or not 0 < port_of(url) < 65536:
        raise SourceError(f"{shown}: is not an rtsp:, rtsps:, rtmp: or rtmps: URL; check it")
    return url


def scheme_of(text: str) -> str:
    """The scheme in small letters; empty for a path."""
    found = SCHEME.match(text)
    return found[1].lower() if found else ""


def follow(base: httpx.URL, reference: str) -> httpx.URL:
    """What a reference in the answer of `base` leads to; credentials stay with their origin.

    Raises: SourceError when that is not an http: or https: URL.
    """
    try:
        target = base.join(reference)
        target = _sendable(target, shown=redact(str(target)))
    except (httpx.InvalidURL, ValueError) as exc:
        raise SourceError(f"{redact(str(base))}: leads to what is not a URL") from exc
    if target.userinfo or not base.userinfo:
        return target
    origin, own = ((url.scheme, url.host, port_of(url)) for url in (base, target))
    return target.copy_with(userinfo=base.userinfo) if origin == own else target


def _sendable(url: httpx.URL, *, shown: str) -> httpx.URL:
    host = url.host  # raises ValueError for what is no international name
    if url.scheme not in {"http", "https"} or not host or not 0 < port_of(url) < 65536:
        raise SourceError(f"{shown}: is not an http: or https: URL; check it")
    return url


def port_of(url: httpx.URL) -> int:
    """The port that a connection goes to."""
    return _PORTS.get(url.scheme, 0) if url.port is None else url.port
