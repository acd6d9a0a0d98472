"""One question about now or a past span of a job, answered from its stored tokens.

Answers live beside the event stream, not in it.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Annotated, Self, TypeVar

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from streamer.adapters.asks import AskRequest, Refused, Reply
from streamer.api.found import Asked
from streamer.api.problems import Refusal, documented
from streamer.api.service import Here, Service
from streamer.errors import NoRoom, QueueError

SOON_S, LATER_S = 0.05, 0.3
"""How often replies are looked for: right after one came, and when none has come for a while."""
SLOWER = 1.3

STATUSES: dict[Refused, int] = {"nothing_kept": 409, "too_long": 422, "gone": 404, "failed": 500}

T = TypeVar("T")

router = APIRouter(
    prefix="/v1/jobs/{job}/ask",
    tags=["questions"],
    responses=documented(401, 403, 404, 409, 422, 429, 503),
)


class AskBody(BaseModel):
    """A question about now, or about the media seconds from t0 to t1."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    prompt: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)
    ] = Field(examples=["What has happened?"])
    t0: float | None = Field(
        None, ge=0, description="start of the span in media seconds; now if neither is given"
    )
    t1: float | None = Field(None, ge=0, description="its end; up to now if not given")
    max_tokens: int | None = Field(
        None, ge=1, le=4096, description="longest answer, below the service's own bound"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.t0 is None and self.t1 is not None:
            raise ValueError("t1 needs t0; give both, or neither to ask about now")
        if self.t0 is not None and self.t1 is not None and self.t0 > self.t1:
            raise ValueError(f"t0 {self.t0:g} is after t1 {self.t1:g}")
        return self


class AnswerView(BaseModel):
    """An answer, and what it is about."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    job: str
    prompt: str
    text: str
    t0: float
    t1: float
    """The media seconds it was read from: whole chunks, as far as they are kept."""
    chunk0: int
    chunk1: int
    """The first and the last of them."""
    wall0: float | None = None
    wall1: float | None = None
    """Of a live source: the span in Unix seconds."""
    visual_tokens: int
    dense_tokens: int
    """What the span would have been without any reduction."""
    input_tokens: int
    """Visual tokens and text."""
    output_tokens: int
    latency_ms: float


@router.post(
    "",
    summary="Ask about now or the past",
    response_description="The answer, with the span that it is about.",
    responses=documented(400, 413, 415, 504),
    response_model_exclude_none=True,
)
async def ask(body: AskBody, found: Asked, here: Here) -> AnswerView:
    """Reads stored tokens: nothing is decoded again, and the job goes on meanwhile.

    A span that is partly kept is answered from that part: `t0` and `t1` say which.
    """
    request = ask_request(
        here,
        job=found.id,
        prompt=body.prompt,
        t0=body.t0,
        t1=body.t1,
        max_new_tokens=body.max_tokens,
    )
    last = Reply(n=0)
    async for reply in answer_stream(here, request):
        last = reply
    said = {name: getattr(last, name) for name in AnswerView.model_fields if hasattr(last, name)}
    return AnswerView(id=request.id, job=request.job, prompt=request.prompt, **said)


def ask_request(
    service: Service,
    *,
    job: str,
    prompt: str,
    t0: float | None = None,
    t1: float | None = None,
    max_new_tokens: int | None = None,
) -> AskRequest:
    """A new question, to be answered within `api.answer_s`."""
    return AskRequest(
        id=f"ask-{uuid.uuid4().hex[:16]}",
        job=job,
        prompt=prompt,
        t0=t0,
        t1=t1,
        max_new_tokens=max_new_tokens,
        deadline=service.clock.now() + service.settings.api.answer_s,
    )


async def answer_stream(service: Service, request: AskRequest) -> AsyncIterator[Reply]:
    """Replies as they come, each with all of the text so far; the last one is `done`.

    Whoever stops listening takes the question back. Raises Refusal: 404, 409, 422 or 500 with the
    captioner's own sentence, 429 where too many wait, 504 where nobody answered in time.
    """
    asks, started = service.asks, service.clock.monotonic()
    try:
        await _in_thread(service, partial(asks.put, request))
    except NoRoom as exc:
        raise Refusal(429, str(exc), headers={"Retry-After": "2"}) from exc
    after, pause_s = 0, SOON_S
    try:
        while True:
            for reply in await _in_thread(service, partial(asks.hear, request.id, after=after)):
                after, pause_s = reply.n, SOON_S
                if reply.error is not None:
                    raise Refusal(STATUSES[reply.refused or "failed"], reply.error)
                yield reply
                if reply.done:
                    return
            if service.clock.monotonic() - started >= service.settings.api.answer_s:
                raise Refusal(504, _late(service), members={"code": "timeout"})
            await anyio.sleep(pause_s)
            pause_s = min(LATER_S, pause_s * SLOWER)
    finally:
        with anyio.CancelScope(shield=True), suppress(QueueError):
            await _in_thread(service, partial(asks.done, request.id))


async def _in_thread(service: Service, call: partial[T]) -> T:
    return await run_sync(call, limiter=service.readers)


def _late(service: Service) -> str:
    answer_s = service.settings.api.answer_s
    return (
        f"no captioner answered within {answer_s:g} s; try again, add caption workers, "
        "or raise api.answer_s"
    )
