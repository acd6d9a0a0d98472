"""Bodies of requests: JSON, and not long."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamer.api.auth import check_bearer
from streamer.api.problems import Refusal
from streamer.config import TokenSettings

MAX_BYTES = 256 << 10
WITH_VIDEO = "/v1/chat/completions"
"""The one path whose bodies may hold a video."""
MOST_WITH_VIDEO = 4
"""Longer bodies that are in memory at the same time: each one until its request is answered."""
RETRY_S = "5"


class Bodies:
    """Refuses bodies that are too long, and those that are not said to be JSON.

    The second one matters to a service without tokens: a foreign web page cannot send JSON here
    without asking, and nobody answers it.
    """

    def __init__(
        self, app: ASGIApp, max_upload_bytes: int, tokens: Sequence[TokenSettings]
    ) -> None:
        """max_upload_bytes: most of a video, which is sent as base64, by who has a token."""
        self.app = app
        self.max_with_video = MAX_BYTES + (max_upload_bytes * 4 + 2) // 3
        self.tokens = tokens
        self.with_video = 0
        """Longer bodies that are in memory."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, headers = scope["path"], Headers(scope=scope)
        received, long = 0, False

        def admit(size: int) -> None:
            """Raises Refusal where a body must not be so long."""
            nonlocal long
            if size > MAX_BYTES and not long:
                self._admit_long(path, headers)
                long = True
                self.with_video += 1
            most = self.max_with_video if long else MAX_BYTES
            if size > most:
                raise Refusal(413, f"the body is longer than {most >> 10} KiB")

        async def measured() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            try:
                admit(received)
            except Refusal as exc:  # whoever reads the body takes another exception for its own
                raise HTTPException(exc.status, exc.detail, dict(exc.headers or {})) from exc
            return message

        try:
            length = headers.get("content-length", "0")
            admit(int(length) if length.isdecimal() else 0)
            if "transfer-encoding" in headers or length != "0":
                _check_kind(headers)
        except Refusal as exc:
            await exc.response(path)(scope, receive, send)
        else:
            await self.app(scope, measured, send)
        finally:
            if long:
                self.with_video -= 1

    def _admit_long(self, path: str, headers: Headers) -> None:
        """Raises Refusal for one who may send no body over MAX_BYTES, or not now."""
        if path != WITH_VIDEO:
            raise Refusal(413, f"the body is longer than {MAX_BYTES >> 10} KiB")
        check_bearer(headers.get("authorization"), self.tokens)
        if self.with_video >= MOST_WITH_VIDEO:
            said = f"{self.with_video} videos in requests are being answered; try again"
            raise Refusal(429, said, headers={"Retry-After": RETRY_S})


def _check_kind(headers: Headers) -> None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        accept = {"Accept": "application/json"}
        raise Refusal(415, "a body must be application/json", headers=accept)
