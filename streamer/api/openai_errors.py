"""Refusals in the shape that OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Mapping

PATHS = ("/v1/chat/", "/v1/models")
"""Where answers are in that shape."""

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 413: "request_too_large", 429: "rate_limit_exceeded"}


def is_openai(path: str) -> bool:
    return path.startswith(PATHS)


def openai_status(status: int) -> int:
    """Fields that are wrong are a bad request there."""
    return 400 if status == 422 else status


def openai_error(status: int, message: str, members: Mapping[str, object]) -> dict[str, object]:
    """The body; members: `param` and `code`, where they are known."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {
        "message": message,
        "type": _TYPES.get(status, kind),
        "param": members.get("param"),
        "code": members.get("code", _CODES.get(status)),
    }
    return {"error": error}
