"""The OpenAPI document: what FastAPI makes of the routes, and the problem document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from streamer.api.schemas import Problem

DESCRIPTION = """\
Turns video URLs into streams of captions and answers. A job is made with `POST /v1/jobs`, and its
events are followed with `GET /v1/jobs/{job}/events` (server-sent events), resumable behind any of
them. Every error is a problem document (RFC 9457).
"""

TAGS = [
    {"name": "jobs", "description": "What is captioned."},
    {"name": "questions", "description": "What is asked about every chunk, while a job runs."},
    {"name": "events", "description": "What was seen, chunk by chunk."},
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
            schemas |= problem.pop("$defs") | {"Problem": problem}
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation does it
