"""What was said of a job, as a file: JSON, WebVTT or SubRip."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Path, Query, Response
from starlette.responses import StreamingResponse

from streamer.adapters.queue import Entry, Queue
from streamer.api.cues import cues, subrip, webvtt
from streamer.api.found import Asked, Found
from streamer.api.problems import Refusal, documented
from streamer.api.reading import START, Reading
from streamer.api.schemas import QUESTION_ID
from streamer.api.service import Here, Service
from streamer.api.tail import standing
from streamer.archive import archived_as
from streamer.errors import ArchiveError, StreamGone, WireError
from streamer.events import Event, decode_chunk_events
from streamer.jobs import Job, read_job
from streamer.speech import decode_speech

TOLD = ("caption", "unchanged", "gap", "skipped", "error")
"""Events that an export in JSON has."""
LAST_OF_CHUNK = 999_999
"""Behind every event of a chunk."""
PIECE = 64 << 10
"""Bytes that are sent at once."""

Format = Literal["json", "vtt", "srt"]
MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "vtt": "text/vtt; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
}

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/v1/jobs/{job}", tags=["events"])


@router.get(
    "/captions.{format}",
    summary="Export captions",
    response_class=Response,
    responses=documented(
        *(400, 401, 403, 404, 422, 503),
        answers={
            200: {
                "description": "What was said, in the order of the video.",
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "required": ["job", "captions"],
                            "properties": {
                                "job": {"type": "string"},
                                "captions": {
                                    "type": "array",
                                    "items": {"type": "object"},
                                    "description": "events, as the event stream has them",
                                },
                            },
                        }
                    },
                    "text/vtt": {"schema": {"type": "string"}},
                    "application/x-subrip": {"schema": {"type": "string"}},
                },
            }
        },
    ),
)
def export_captions(
    found: Asked,
    here: Here,
    format: Annotated[Format, Path(description="json, vtt (WebVTT) or srt (SubRip)")],
    start: Annotated[
        float, Query(alias="from", ge=0, allow_inf_nan=False, description="media seconds")
    ] = 0.0,
    end: Annotated[
        float | None, Query(alias="to", ge=0, allow_inf_nan=False, description="media seconds")
    ] = None,
    question: Annotated[
        str | None, Query(pattern=QUESTION_ID, description="only the answers to this one")
    ] = None,
) -> Response:
    """All captions so far, or those of a span: of a running job too, as far as it has come.

    In JSON every `caption`, `unchanged`, `gap`, `skipped` and `error`, as the event stream has
    them. In subtitles a caption lasts while it is true: `unchanged` prolongs it, a gap ends it, and
    an `unchanged` behind the gap begins it again.
    """
    until = math.inf if end is None else end
    if until <= start:
        raise Refusal(400, f"to={end:g} is not after from={start:g}")
    read = decode_chunk_events if format == "json" else _spoken
    told = (
        event
        for event in _events(here, found, _place(here.queue, found.id, start), read)
        if question is None or event.question in (None, question)
    )
    spoken = takewhile(lambda event: event.t0 < until, told)
    named = question is None and len(read_job(found.id, found.record).questions) > 1
    if format == "json":
        text = _json(found.id, (event for event in spoken if event.t1 > start))
    else:
        parts = (cue.within(start, until) for cue in cues(spoken))
        write = webvtt if format == "vtt" else subrip
        text = write((cue for cue in parts if cue is not None), named=named)
    return StreamingResponse(
        _pieces(text),
        headers={"Content-Disposition": f'inline; filename="{found.id}.{format}"'},
        media_type=MEDIA_TYPES[format],
    )


def _events(
    here: Service, found: Found, after: int, decode: Callable[[Entry], list[Event]]
) -> Iterator[Event]:
    """The events of all chunks behind one, from the archive and from Redis, as far as they go."""
    job = read_job(found.id, found.record)
    reading = Reading(
        here.queue,
        job.id,
        behind=(after, LAST_OF_CHUNK) if after else START,
        chunk_s=job.settings.source.chunk_s,
        decode=decode,
    )
    finished = standing(found.record).finished
    while not reading.caught_up:
        try:
            yield from _archived(here, job, reading)
            yield from reading.next(finished)
        except StreamGone:  # deleted meanwhile
            return


def _archived(here: Service, job: Job, reading: Reading) -> Iterator[Event]:
    """What comes next and has left Redis, as far as the archive has it and can be read."""
    came_to = -1
    while here.archive is not None and reading.after > came_to:  # more may leave meanwhile
        kept = here.queue.first(job.id, "events") or here.queue.last(job.id, "events") + 1
        if reading.after + 1 >= kept:
            return
        came_to = reading.after
        try:
            for entry in here.archive.events(archived_as(job.id, job.created_at), came_to):
                if entry.number >= kept:
                    break
                yield from reading.take(entry)
        except ArchiveError as exc:
            log.error("record_malformed", reason=str(exc))
            said = "the archive cannot be read from here on; the service's log says more"
            yield reading.malformed(reading.after + 1, said)
            return


def _spoken(entry: Entry) -> list[Event]:
    """A chunk's events, where `unchanged` has the text that it stands for."""
    events = decode_chunk_events(entry)
    said: dict[str, str] = {}
    with suppress(WireError):  # the events are worth more than what is known beside them
        said = {key.rsplit(" ", 1)[0]: text for key, text in decode_speech(entry).said.items()}
    return [
        replace(event, text=said.get(event.question or "")) if event.event == "unchanged" else event
        for event in events
    ]


def _place(queue: Queue, job_id: str, start_s: float) -> int:
    """The last chunk that is kept and ends at or before a media time; 0 if none does."""
    low, high = queue.first(job_id, "events"), queue.last(job_id, "events")
    if start_s <= 0 or low == 0:
        return 0
    first = low
    while low <= high:
        middle = (low + high) // 2
        found = queue.read(job_id, "events", after=middle - 1, count=1)  # `middle` may be trimmed
        if not found or _end_s(found[0]) <= start_s:
            low = (found[0].number if found else middle) + 1
        else:
            high = middle - 1
    return high if high >= first else 0


def _end_s(entry: Entry) -> float:
    try:
        return decode_chunk_events(entry)[-1].t1
    except WireError:
        return math.inf  # it is read, and told as what it is


def _json(job_id: str, events: Iterable[Event]) -> Iterator[str]:
    yield f'{{"job":{json.dumps(job_id)},"captions":['
    before = "\n"
    for event in events:
        if event.event in TOLD:
            yield f"{before}{event.to_json_line()}"
            before = ",\n"
    yield "\n]}\n"


def _pieces(text: Iterable[str]) -> Iterator[bytes]:
    """Not many at once, and not one by one."""
    held: list[bytes] = []
    size = 0
    for part in text:
        held.append(part.encode("utf-8", "replace"))
        size += len(held[-1])
        if size >= PIECE:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)
