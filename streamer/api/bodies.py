"""Bodies of requests: JSON, and not long."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamer.api.problems import Refusal

MAX_BYTES = 256 << 10
WITH_VIDEO = "/v1/chat/completions"
"""The one path whose bodies may hold a video."""


class Bodies:
    """Refuses bodies that are too long, and those that are not said to be JSON.

    The second one matters to a service without tokens: a foreign web page cannot send JSON here
    without asking, and nobody answers it.
    """

    def __init__(self, app: ASGIApp, max_upload_bytes: int) -> None:
        """max_upload_bytes: most of a video, which is sent as base64."""
        self.app = app
        self.max_with_video = MAX_BYTES + (max_upload_bytes * 4 + 2) // 3

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        most = self.max_with_video if path == WITH_VIDEO else MAX_BYTES
        too_long = f"the body is longer than {most >> 10} KiB"
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        refusal = None
        if "transfer-encoding" in headers or length != "0":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                accept = {"Accept": "application/json"}
                refusal = Refusal(415, "a body must be application/json", headers=accept)
        if length.isdecimal() and int(length) > most:
            refusal = Refusal(413, too_long)
        if refusal is not None:
            await refusal.response(path)(scope, receive, send)
            return
        received = 0

        async def measured() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise HTTPException(413, too_long)
            return message

        await self.app(scope, measured, send)
