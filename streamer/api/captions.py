"""What was said of a job, as a file: JSON, WebVTT or SubRip."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Annotated, Literal

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
from streamer.errors import StreamGone, WireError
from streamer.events import Event, decode_chunk_events
from streamer.jobs import read_job

TOLD = ("caption", "unchanged", "gap", "skipped", "error")
"""Events that an export in JSON has."""
BEFORE_S = 600.0
"""How long before its beginning an export looks for a text that is still true."""
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
    them. In subtitles a caption lasts while it is true: `unchanged` prolongs it, a gap ends it.
    """
    until = math.inf if end is None else end
    if until <= start:
        raise Refusal(400, f"to={end:g} is not after from={start:g}")
    since = start if format == "json" else max(0.0, start - BEFORE_S)
    told = (
        event
        for event in _events(here, found, _place(here.queue, found.id, since))
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


def _events(here: Service, found: Found, after: int) -> Iterator[Event]:
    """The events of all chunks behind one, from the archive and from Redis, as far as they go."""
    kept = here.queue.first(found.id, "events")
    if here.archive is not None and after + 1 < kept:
        for entry in here.archive.events(found.id, after):
            if entry.number >= kept:
                break
            after = entry.number
            yield from decode_chunk_events(entry)
    reading = Reading(
        here.queue,
        found.id,
        behind=(after, LAST_OF_CHUNK) if after else START,
        chunk_s=read_job(found.id, found.record).settings.source.chunk_s,
    )
    finished = standing(found.record).finished
    while not reading.caught_up:
        try:
            yield from reading.next(finished)
        except StreamGone:  # deleted meanwhile
            return


def _place(queue: Queue, job_id: str, start_s: float) -> int:
    """The last chunk that is kept and ends at or before a media time; 0 if none does."""
    low, high = queue.first(job_id, "events"), queue.last(job_id, "events")
    if start_s <= 0 or low == 0:
        return 0
    first = low
    while low <= high:
        middle = (low + high) // 2
        entry = queue.entry(job_id, "events", middle)
        if entry is None or _end_s(entry) <= start_s:  # None: trimmed meanwhile
            low = middle + 1
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
