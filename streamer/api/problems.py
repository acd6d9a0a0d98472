"""Refusals: every error is a problem document (RFC 9457) that says what to do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from streamer.api.openai_errors import is_openai, openai_error, openai_status
from streamer.api.schemas import FieldProblem, Problem
from streamer.errors import QueueError, StreamGone, WireError

MEDIA_TYPE = "application/problem+json"
RETRY_S = "2"
"""Seconds after which a service whose Redis is away may be asked again."""

Answers = dict[int | str, dict[str, Any]]
"""By status."""

log = structlog.get_logger(__name__)


class Refusal(Exception):
    """Ends a request with a problem document."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Iterable[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        """members: further ones of the document."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)
        self.headers = headers
        self.members = members or {}

    def openai(self) -> dict[str, object]:
        """The same in OpenAI's shape."""
        fields = [f"{error.field}: {error.message}" for error in self.errors]
        param = {"param": self.errors[0].field} if self.errors else {}
        return openai_error(
            openai_status(self.status), "; ".join(fields) or self.detail, param | dict(self.members)
        )

    def response(self, path: str) -> Response:
        """The answer to a request for a path."""
        if is_openai(path):
            body = json.dumps(self.openai(), separators=(",", ":"))
            status = openai_status(self.status)
            return Response(body, status, self.headers, media_type="application/json")
        problem = Problem(
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            errors=self.errors,
            **self.members,
        )
        members = problem.model_dump(exclude=None if self.errors else {"errors"})
        body = json.dumps(members, ensure_ascii=False, separators=(",", ":"))
        return Response(
            body.encode("utf-8", "replace"), self.status, self.headers, media_type=MEDIA_TYPE
        )


def invalid(*errors: FieldProblem) -> Refusal:
    """The refusal of a request whose fields are wrong."""
    return Refusal(422, "the request is not valid; `errors` names what to correct", errors=errors)


def field_problems(errors: Iterable[Any], *, below: str = "") -> list[FieldProblem]:
    """Pydantic's errors, with the path of each field."""
    return [_field_problem(error, below) for error in errors]


def handle_errors(app: FastAPI) -> None:
    """Makes a problem document of whatever a route raises."""
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(StreamGone, _gone)
    app.add_exception_handler(QueueError, _queue_lost)
    app.add_exception_handler(WireError, _malformed)
    app.add_exception_handler(Exception, _unforeseen)


def documented_openai(*statuses: int) -> Answers:
    """The refusals of a route whose answers are in OpenAI's shape."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/ChatError"}}}
    return {status: {"description": _MEANINGS[status], "content": content} for status in statuses}


def documented(*statuses: int, answers: Answers | None = None) -> Answers:
    """The refusals of a route, and answers of its own, for the OpenAPI document."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    refusals: Answers = {
        status: {"description": _MEANINGS[status], "content": content} for status in statuses
    }
    return (answers or {}) | refusals


_MEANINGS = {
    400: "The event id, the span or the body cannot be read.",
    401: "A token is needed, or the one given is not known.",
    403: "The token does not allow this, or the request comes from a foreign web page.",
    404: "There is no such job or question.",
    409: "The job's state does not allow this.",
    413: "The body is too long: 256 KiB, or what `api.max_upload_bytes` allows a video.",
    415: "The body is not JSON.",
    422: "Fields of the request are wrong; `errors` names them.",
    429: "One too many: of jobs (`active` of `limit` run, `fits` more fit), of waiting questions, "
    "or of videos in requests.",
    500: "An error of the service; its log says more.",
    503: "Redis is away; try again after `Retry-After` seconds.",
    504: "There was no answer within `api.answer_s`.",
}


def _field_problem(error: Any, below: str) -> FieldProblem:
    place = [str(part) for part in error["loc"]]
    if place and place[0] in ("body", "query", "path", "header", "cookie"):
        place = place[1:] or place
    message = str(error["msg"]).removeprefix("Value error, ")
    field = ".".join([below, *place] if below else place)
    return FieldProblem(field=field, message=f"{message[:1].lower()}{message[1:]}")


def _refused(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, Refusal)
    return exc.response(request.url.path)


def _not_valid(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    if any(error["type"] == "json_invalid" for error in exc.errors()):
        return Refusal(400, "the body is not JSON").response(request.url.path)
    return invalid(*field_problems(exc.errors())).response(request.url.path)


def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    said = {
        400: "the body cannot be read",
        404: f"there is nothing at {request.url.path}",
        405: f"{request.method} is not for {request.url.path}",
    }
    detail = said.get(exc.status_code, exc.detail)
    headers = {"Allow": _allowed(request)} if exc.status_code == 405 else exc.headers
    return Refusal(exc.status_code, detail, headers=headers).response(request.url.path)


def _allowed(request: Request) -> str:
    """The methods of all routes of a path; Starlette knows those of the first one."""
    path = getattr(request.scope.get("route"), "path", "")
    described = request.app.openapi()["paths"].get(path, {"get": {}})
    return ", ".join(sorted(method.upper() for method in described))


def _gone(request: Request, exc: Exception) -> Response:
    return Refusal(404, "the job was deleted").response(request.url.path)


def _queue_lost(request: Request, exc: Exception) -> Response:
    log.warning("queue_lost", worker="api", reason=str(exc))
    return Refusal(
        503, "Redis cannot be reached; try again", headers={"Retry-After": RETRY_S}
    ).response(request.url.path)


def _malformed(request: Request, exc: Exception) -> Response:
    log.error("record_malformed", reason=str(exc))
    said = "what is stored here is malformed; the service's log says more"
    return Refusal(500, said).response(request.url.path)


def _unforeseen(request: Request, exc: Exception) -> Response:
    log.error("request_crashed", method=request.method, path=request.url.path, exc_info=exc)
    said = "an error of the service; its log says more"
    return Refusal(500, said).response(request.url.path)
