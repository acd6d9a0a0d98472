"""The OpenAPI document: what FastAPI makes of the routes, and the problem document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from streamer.api.chat_schemas import ChatError
from streamer.api.openai_errors import is_openai
from streamer.api.schemas import Problem

DESCRIPTION = """\
Turns video URLs into streams of captions and answers. A job is made with `POST /v1/jobs`, and its
events are followed with `GET /v1/jobs/{job}/events` (server-sent events), resumable behind any of
them. Every error is a problem document (RFC 9457).
"""

TAGS = [
    {"name": "jobs", "description": "What is captioned."},
    {"name": "questions", "description": "What is asked about a job, while it runs or later."},
    {"name": "events", "description": "What was seen, chunk by chunk."},
    {"name": "openai", "description": "For clients that speak OpenAI's protocol."},
    {"name": "workers", "description": "Who does the work."},
    {"name": "service", "description": "For those who run it."},
]


def describe(app: FastAPI) -> None:
    """Adds what FastAPI does not know to the document, once it is asked for."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        schemas = document["components"]["schemas"]
        if "Problem" not in schemas:
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            error = ChatError.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= problem.pop("$defs") | {"Problem": problem}
            schemas |= error.pop("$defs") | {"ChatError": error}
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            for path, operations in document["paths"].items():
                for operation in operations.values() if is_openai(path) else ():
                    operation["responses"].pop("422", None)  # there it is a 400
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation does it
