"""Guard: which addresses and folders a URL may lead to.

`streamer caption` trusts its user. A service takes URLs from strangers: for them only public
addresses are fetched from, and no files are read, unless its operator's settings say so.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import unquote, urlsplit

from streamer.errors import SourceError
from streamer.sources.addresses import is_public, unwrap
from streamer.sources.url import STREAMS, http_url, port_of, redact, scheme_of, stream_url

Resolve = Callable[[str, int], list[str]]
"""The addresses of a host, as text, for a connection to a port. Raises: OSError, UnicodeError."""

_RESOLVE_S = 5.0


class AddressRefused(Exception):
    """A host has no address that the policy allows; what it has is not said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPolicy:
    """What may be fetched for a URL: public addresses, and what is listed here.

    Raises: ValueError for what is not a network, and for a folder without an absolute path.
    """

    networks: tuple[str, ...] = ()
    """Networks (CIDR) or single addresses that are allowed beside public ones."""
    paths: tuple[str, ...] = ()
    """Folders whose files may be read; links are resolved before they are compared."""
    trusting: bool = False
    """Everything goes: for a user on their own machine."""

    def __post_init__(self) -> None:
        for text in self.networks:
            try:
                ip_network(text)
            except ValueError as exc:
                raise ValueError(
                    f"fetch.allow_networks: {text!r} is not a network ({exc}); "
                    f"give one like 10.0.0.0/8, or one address"
                ) from exc
        for folder in self.paths:
            if not os.path.isabs(folder):
                raise ValueError(
                    f"fetch.allow_paths: {folder!r} is not absolute; give one like /srv/videos"
                )

    def allows(self, address: str) -> bool:
        """Whether an address may be connected to."""
        if self.trusting:
            return True
        try:
            reached = unwrap(address)
        except ValueError:
            return False
        return is_public(reached) or any(reached in ip_network(text) for text in self.networks)

    def check_path(self, path: str, shown: str) -> None:
        """Raises: SourceError for a file outside the folders, whether or not it exists."""
        if self.trusting:
            return
        real = Path(os.path.realpath(path))
        if not any(real.is_relative_to(os.path.realpath(folder)) for folder in self.paths):
            raise SourceError(
                f"{shown}: files of this folder may not be read; "
                f"list the folder in fetch.allow_paths to allow it"
            )


TRUSTING = FetchPolicy(trusting=True)


def check_url(url: str, policy: FetchPolicy, *, resolve: Resolve | None = None) -> None:
    """Refuses at the border what the policy does not allow.

    For the benefit of who asks: what counts is checked again when it is fetched, at every hop.

    Raises: SourceError for another scheme than http(s), rtsp(s), rtmp(s) and file, for an address
    or a folder that is not allowed, and for a host that cannot be found within 5 s.
    """
    if local_path(url, policy) is not None:
        return
    target = stream_url(url) if scheme_of(url) in STREAMS else http_url(url)
    host = target.raw_host.decode()
    try:
        find_allowed(host, port_of(target), policy, resolve=resolve, timeout_s=_RESOLVE_S)
    except AddressRefused as exc:
        raise refusal(redact(url), host) from exc
    except OSError as exc:
        raise SourceError(f"{redact(url)}: {host} cannot be found; check the host") from exc


def is_refusal(error: BaseException) -> bool:
    """Whether an error says that no address of a host is allowed."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, AddressRefused):
        cause = cause.__cause__
    return cause is not None


def refusal(shown: str, host: str) -> SourceError:
    """The sentence for a host without an allowed address."""
    return SourceError(
        f"{shown}: {host} does not lead to a public address; "
        f"list its network in fetch.allow_networks to allow it"
    )


def local_path(url: str, policy: FetchPolicy = TRUSTING) -> Path | None:
    """The path of a file URL or plain path; None for http(s), rtsp(s) and rtmp(s).

    Raises: SourceError for every other scheme, and for a path that the policy does not allow.
    """
    scheme = scheme_of(url)
    if scheme in {"http", "https"} or scheme in STREAMS:
        return None
    shown = redact(url)
    if scheme == "file":
        try:
            parts = urlsplit(url)
        except ValueError as exc:  # a bracket that does not close
            raise SourceError(f"{shown}: is not a URL; check it") from exc
        if parts.netloc not in {"", "localhost"}:
            raise SourceError(f"{shown}: is on another machine; use file:///path for one on this")
        path = Path(unquote(parts.path))
    elif scheme and not (policy.trusting and os.path.lexists(url)):
        raise SourceError(
            f"{shown}: '{scheme}' is not supported; "
            f"use a file path, file:, http:, https:, rtsp:, rtsps:, rtmp: or rtmps:"
        )
    else:
        path = Path(url)
    path = path.absolute()
    try:
        policy.check_path(str(path), shown)
    except ValueError as exc:  # a zero byte
        raise SourceError(f"{shown}: cannot be opened ({exc}); check the path") from exc
    return path


def find_allowed(
    host: str, port: int, policy: FetchPolicy, *, resolve: Resolve | None, timeout_s: float
) -> list[str]:
    """The addresses of a host that may be connected to; the others it has are left out.

    A host that has both is not refused: networks with an inside and an outside answer so, and a
    connection goes to an address that was looked at, not to the name.

    Raises: AddressRefused when there is none; OSError when the host cannot be found in time.
    """
    found = _resolve_within(resolve or _system, host, port, timeout_s)
    allowed = [address for address in dict.fromkeys(found) if policy.allows(address)]
    if found and not allowed:
        raise AddressRefused(host)
    if not found:
        raise OSError(f"{host} has no address")
    return allowed


def _system(host: str, port: int) -> list[str]:
    return [str(item[4][0]) for item in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _resolve_within(resolve: Resolve, host: str, port: int, timeout_s: float) -> list[str]:
    """What `resolve` says within a time; the system's cannot be told to give up."""
    answer: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(resolve(host, port))
        except UnicodeError as exc:
            answer.put(OSError(f"{host!r} is not a host name: {exc}"))
        except OSError as exc:
            answer.put(exc)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        found = answer.get(timeout=max(0.0, timeout_s))
    except queue.Empty:
        raise TimeoutError(f"{host} was not found within {timeout_s:g} s") from None
    if isinstance(found, OSError):
        raise found
    return found
