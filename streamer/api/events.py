"""A job's events as server-sent events, resumable behind any of them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Annotated, get_args

import anyio.to_thread
from fastapi import APIRouter, Depends, Header, Query, Response
from starlette.responses import StreamingResponse
from starlette.types import Send

from streamer.api import examples
from streamer.api.found import Asked
from streamer.api.problems import Refusal, documented
from streamer.api.reading import START, Reading
from streamer.api.service import Here, Service
from streamer.api.tail import Standing, standing
from streamer.errors import QueueError, StreamGone, WireError
from streamer.events import Event, EventKind, parse_event_id
from streamer.jobs import read_job

RETRY_MS = 1000
"""How long a client that was cut off shall wait."""
LOST_S = 60.0
"""How long streams stay open while Redis is away."""

ITEM = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string", "description": "`<chunk>-<n>`; none for `state` and `end`"},
        "event": {"enum": [*get_args(EventKind), "state", "end"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "one flat object; of `state` and `end`: job, state, error",
        },
    },
}
"""One message, for the OpenAPI document."""

router = APIRouter(prefix="/v1/jobs/{job}/events", tags=["events"])


class EventStream(StreamingResponse):
    """Server-sent events; however the stream ends, its follower leaves with it."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncGenerator[bytes]) -> None:
        super().__init__(content, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._content = content

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._content):
            await super().stream_response(send)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a subscriber goes on."""

    behind: tuple[int, int]
    """The last event that it has."""
    resumed: bool
    """By Last-Event-ID, as browsers do by themselves."""


async def place_of(
    after: Annotated[
        str | None, Query(description="id of the last event that is known already")
    ] = None,
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID", description="as `after`; a reconnecting EventSource sends it"
        ),
    ] = None,
) -> Place:
    """Raises Refusal (400) for an id that cannot be one."""
    given = last_event_id or after
    try:
        behind = parse_event_id(given) if given else START
    except WireError as exc:
        raise Refusal(400, str(exc)) from exc
    return Place(behind, resumed=bool(last_event_id))


@router.get(
    "",
    status_code=200,
    summary="Follow a job's events",
    response_class=Response,
    responses=documented(
        *(400, 401, 403, 404, 422, 503),
        answers={
            200: {
                "description": "Server-sent events: `caption`, `unchanged`, `seen`, `gap`, "
                "`skipped`, `level` and `error` with an id, `state` and `end` without. The stream "
                "ends after `end`.",
                "content": {
                    "text/event-stream": {
                        "itemSchema": ITEM,
                        "example": examples.EVENTS,
                    }
                },
            },
            204: {"description": "The job has ended, and `Last-Event-ID` is its last event."},
        },
    ),
)
async def follow_events(
    found: Asked, here: Here, place: Annotated[Place, Depends(place_of)]
) -> Response:
    """Every event of the job behind `Last-Event-ID` (or `after`), then each new one as it comes.

    What was trimmed meanwhile is one `skipped` event with the reason `trimmed`. An id that was not
    reached yet is waited for.
    """
    known = standing(found.record)
    chunk_s = read_job(found.id, found.record).settings.source.chunk_s

    def reading() -> Reading:
        return Reading(here.queue, found.id, behind=place.behind, chunk_s=chunk_s)

    if place.resumed and known.finished and not await _read(here, reading(), True):
        return Response(status_code=204)
    return EventStream(_stream(here, found.id, known, reading()))


async def _stream(
    here: Service, job_id: str, known: Standing, reading: Reading
) -> AsyncGenerator[bytes]:
    said: Standing | None = None
    yield f"retry: {RETRY_MS}\n\n".encode()
    with here.tail.follow(job_id, known) as follower:
        while not follower.cut:
            now = follower.standing
            if now != said:
                said = now
                yield _state("state", job_id, now)
            if now.state == "deleted":
                yield _state("end", job_id, now)
                return
            heard: Standing | None = now
            try:
                events = await _read(here, reading, now.finished)
            except StreamGone:
                yield _state("end", job_id, replace(now, state="deleted"))
                return
            except QueueError:
                here.tail.lose()
                heard = None
            else:
                if events:
                    yield b"".join(map(_message, events))
                if not reading.caught_up:
                    continue
                if now.finished:
                    yield _state("end", job_id, now)
                    return
            while not await follower.news(reading.after, heard, here.settings.api.keep_alive_s):
                if here.tail.lost_s > LOST_S:
                    return
                yield b": keep-alive\n\n"


async def _read(here: Service, reading: Reading, finished: bool) -> list[Event]:
    return await anyio.to_thread.run_sync(reading.next, finished, limiter=here.readers)


def _message(event: Event) -> bytes:
    return f"id: {event.id}\nevent: {event.event}\ndata: {event.to_json_line()}\n\n".encode()


def _state(event: str, job_id: str, now: Standing) -> bytes:
    data = {"job": job_id, "state": now.state, "error": now.error}
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
