"""A question about a video in OpenAI's protocol, answered at once or as it is written."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

import anyio.to_thread
import structlog
from fastapi import APIRouter, Request, Response

from streamer.adapters.asks import Reply
from streamer.api.auth import Known
from streamer.api.chat_answer import Subject, answers, prepare
from streamer.api.chat_question import read_question
from streamer.api.chat_schemas import (
    Answer,
    ChatAnswer,
    ChatRequest,
    Choice,
    ModelCard,
    ModelList,
    Span,
    Usage,
)
from streamer.api.events import EventStream
from streamer.api.problems import Refusal, documented_openai
from streamer.api.service import Here, Service
from streamer.config import Settings
from streamer.errors import QueueError

MODEL = "streamer"
"""A name of the model that captions, whichever it is."""
CLOSED = 499
"""The client has gone; nobody reads this answer."""

MESSAGE = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {
            "type": "string",
            "description": "a chat.completion.chunk, or an error; [DONE] at the end",
        }
    },
}
"""One message of a streamed answer, for the OpenAPI document."""

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/v1", tags=["openai"], responses=documented_openai(401, 403, 503))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chat:
    """What all parts of an answer say."""

    id: str
    created: int
    subject: Subject
    request: ChatRequest
    max_new_tokens: int

    def chunk(self, choices: list[dict[str, Any]], **more: object) -> bytes:
        """One message of a streamed answer."""
        data = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.request.model,
            "choices": choices,
            **more,
        }
        return f"data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()

    def delta(self, said: dict[str, str], finish: str | None = None, **more: object) -> bytes:
        usage = {"usage": None} if self.with_usage else {}
        choice = {"index": 0, "delta": said, "finish_reason": finish}
        return self.chunk([choice], **usage, **more)

    @property
    def with_usage(self) -> bool:
        options = self.request.stream_options
        return options is not None and options.include_usage

    def finish(self, last: Reply) -> Literal["stop", "length"]:
        return "length" if (last.output_tokens or 0) >= self.max_new_tokens else "stop"

    def span(self, last: Reply) -> Span:
        kept = None if self.subject.own else self.subject.job
        return Span(job=kept, t0=last.t0, t1=last.t1)


@router.get("/models", summary="List models", response_description="Their names.")
def list_models(here: Here, caller: Known) -> ModelList:
    """The names that `model` may have: they are one model, the one that captions."""
    return ModelList(data=[ModelCard(id=name) for name in _models(here.settings)])


@router.post(
    "/chat/completions",
    summary="Ask about a video, as OpenAI's clients do",
    response_model=ChatAnswer,
    response_description="The answer; with `stream` it comes as server-sent events.",
    responses={
        200: {"content": {"text/event-stream": {"itemSchema": MESSAGE}}},
        **documented_openai(400, 404, 413, 415, 429, 500, 504),
    },
)
async def complete_chat(
    request: ChatRequest, here: Here, caller: Known, http: Request
) -> Response | ChatAnswer:
    """Answers the text of the last `user` message about the one `video_url` of the conversation.

    A URL or a video in the request is looked at from its beginning to its end, of a live source for
    10 s, and asked about as a whole; nothing of it is kept. `job:<id>` is asked about the present.
    """
    if request.model not in _models(here.settings):
        names = " or ".join(_models(here.settings))
        said = f"there is no model {request.model[:80]!r}; it is {names}"
        raise Refusal(404, said, members={"param": "model", "code": "model_not_found"})
    most = here.settings.api.max_upload_bytes
    question = await anyio.to_thread.run_sync(lambda: read_question(request, max_upload_bytes=most))
    chat = _Chat(
        id=f"chatcmpl-{secrets.token_hex(12)}",
        created=int(here.clock.now()),
        subject=await anyio.to_thread.run_sync(prepare, here, caller, question),
        request=request,
        max_new_tokens=_max_new_tokens(here.settings, request),
    )
    said_by = answers(here, chat.subject, question.prompt, chat.max_new_tokens)
    if request.stream:
        return EventStream(_streamed(here, chat, said_by))
    last = Reply(n=0)
    async with aclosing(said_by):
        async for reply in said_by:
            last = reply or last
            if reply is None and await http.is_disconnected():
                return Response(status_code=CLOSED)
    choice = Choice(message=Answer(content=last.text), finish_reason=chat.finish(last))
    return ChatAnswer(
        id=chat.id,
        created=chat.created,
        model=request.model,
        choices=[choice],
        usage=_usage(last),
        span=chat.span(last),
    )


async def _streamed(
    here: Service, chat: _Chat, said_by: AsyncGenerator[Reply | None]
) -> AsyncGenerator[bytes]:
    silent_since = here.clock.monotonic()
    async with aclosing(said_by):
        last, sent = Reply(n=0), ""
        yield chat.delta({"role": "assistant", "content": ""})
        try:
            async for reply in said_by:
                now = here.clock.monotonic()
                if reply is not None:
                    last, new = reply, reply.text[len(sent) :]
                    if new:  # none while who took the question over has said less
                        sent += new
                        yield chat.delta({"content": new})
                        silent_since = now
                elif now - silent_since >= here.settings.api.keep_alive_s:
                    yield b": keep-alive\n\n"
                    silent_since = now
        except Refusal as exc:
            yield _failed(exc)
            return
        except QueueError as exc:
            log.warning("queue_lost", worker="api", reason=str(exc))
            yield _failed(Refusal(503, "Redis cannot be reached; try again"))
            return
    yield chat.delta({}, chat.finish(last), span=chat.span(last).model_dump())
    if chat.with_usage:
        yield chat.chunk([], usage=_usage(last).model_dump())
    yield b"data: [DONE]\n\n"


def _failed(exc: Refusal) -> bytes:
    """How OpenAI's clients are told of an error when the answer has begun."""
    return f"data: {json.dumps(exc.openai(), separators=(',', ':'))}\n\n".encode()


def _models(settings: Settings) -> list[str]:
    return list(dict.fromkeys((MODEL, settings.model.name)))


def _max_new_tokens(settings: Settings, request: ChatRequest) -> int:
    given = request.max_completion_tokens or request.max_tokens
    most = settings.model.max_new_tokens
    return most if given is None else min(given, most)


def _usage(last: Reply) -> Usage:
    read, written = last.input_tokens or 0, last.output_tokens or 0
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)
