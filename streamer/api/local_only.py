"""A service without tokens is for its own machine, and not for web pages of others shown there."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from streamer.api.problems import Refusal

READING = ("GET", "HEAD", "OPTIONS")


def is_loopback(host: str) -> bool:
    """Whether a host, as in a setting or a URL, is this machine alone."""
    name = host.strip("[]").lower().removesuffix(".")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


class LocalOnly:
    """Refuses what a browser sends for a foreign page.

    Host: a name that its owner has pointed to this machine (DNS rebinding). Origin: a page that
    cannot read our answers, but could write without reading them.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        """host: the one that the service was told to listen on."""
        self.app = app
        self.host = host.strip("[]").lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            refusal = self._refusal(scope["method"], headers.get("host", ""), headers.get("origin"))
            if refusal is not None:
                await refusal.response(scope["path"])(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _refusal(self, method: str, host: str, origin: str | None) -> Refusal | None:
        name = _hostname(f"//{host}")
        if not is_loopback(name) and name != self.host:
            return Refusal(
                403,
                f"the host {name[:80]!r} is not this service's: use localhost, "
                "or set api.tokens and api.host",
            )
        if origin is not None and method not in READING and urlsplit(origin).netloc != host:
            return Refusal(403, "web pages of other origins may not write here")
        return None


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
