"""Bodies of requests: JSON, and not long."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamer.api.problems import Refusal

MAX_BYTES = 256 << 10
TOO_LONG = f"the body is longer than {MAX_BYTES >> 10} KiB"


class Bodies:
    """Refuses bodies that are too long, and those that are not said to be JSON.

    The second one matters to a service without tokens: a foreign web page cannot send JSON here
    without asking, and nobody answers it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        refusal = None
        if "transfer-encoding" in headers or length != "0":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                accept = {"Accept": "application/json"}
                refusal = Refusal(415, "a body must be application/json", headers=accept)
        if length.isdecimal() and int(length) > MAX_BYTES:
            refusal = Refusal(413, TOO_LONG)
        if refusal is not None:
            await refusal.response()(scope, receive, send)
            return
        received = 0

        async def measured() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BYTES:
                raise HTTPException(413, TOO_LONG)
            return message

        await self.app(scope, measured, send)
