"""Events as users see them: one flat JSON object each, one stream entry per chunk.

docs/wire.md describes the entry. The same object is the `data` of an SSE message, a `--json` line
and a row of an export.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from streamer.errors import WireError
from streamer.wire import Check, build, integer, number, one_of, parse_json, text

if TYPE_CHECKING:
    from streamer.adapters.queue import Entry

SCHEMA = 1

EventKind = Literal["caption", "unchanged", "seen", "gap", "skipped", "error", "level"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What is said about one chunk and question; None means absent. Field order is output order."""

    id: str
    """`<chunk>-<n>`, n = 0, 1, 2 … within the chunk: the cursor of a subscriber."""
    event: EventKind
    job: str
    chunk: int
    t0: float
    t1: float
    """The span in media seconds."""
    question: str | None = None
    """The question's id."""
    text: str | None = None
    reason: str | None = None
    """Of a gap, a skip, an error or a level."""
    input_tokens: int | None = None
    """The chunk's visual tokens given to the LLM."""
    dense_tokens: int | None = None
    """What they would have been without any reduction."""
    output_tokens: int | None = None
    decode_latency_ms: float | None = None
    tokenize_latency_ms: float | None = None
    queue_time_ms: float | None = None
    vlm_latency_ms: float | None = None
    chunk_latency_ms: float | None = None
    wall0: str | None = None
    wall1: str | None = None
    """The span as RFC 3339, for live sources."""
    level: int | None = None
    """From this chunk on: how far a live job that is behind is thinned out, 0 to 3."""

    def to_json_line(self) -> str:
        """One line of JSON, without its newline; absent fields are left out."""
        present = {name: v for name, v in dataclasses.asdict(self).items() if v is not None}
        return json.dumps(present, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """A job from its first chunk to this one. It lies in the chunk's entry, so it counts once."""

    chunks: int = 0
    captions: int = 0
    """Events of kind caption."""
    unchanged: int = 0
    """Events of kind unchanged."""
    asked: int = 0
    """Answers that the LLM was asked for; the others cost nothing."""
    gaps: int = 0
    """Times that the source had no pictures for a while."""
    skipped: int = 0
    """Spans that were left out because the job was behind."""
    levels: int = 0
    """Events of kind level."""
    errors: int = 0
    t1: float = 0.0
    """Media seconds captioned."""
    patches: int = 0
    """Patches of all pictures, without any reduction."""
    patches_kept: int = 0
    """Patches that the vision encoder saw."""
    tokens_dense: int = 0
    """Visual tokens of all pictures, without any reduction."""
    tokens: int = 0
    """Visual tokens given to the LLM."""
    output_tokens: int = 0


def event_id(chunk: int, n: int) -> str:
    return f"{chunk}-{n}"


def parse_event_id(value: str) -> tuple[int, int]:
    """(chunk, n) of an event id, e.g. of a Last-Event-ID header."""
    match = re.fullmatch(r"([1-9][0-9]{0,14})-(0|[1-9][0-9]{0,5})", value)
    if match is None:
        raise WireError(f"event id {value[:40]!r} is not <chunk>-<n>, e.g. 12-0")
    return int(match[1]), int(match[2])


def encode_chunk_events(events: Sequence[Event], totals: Totals | None = None) -> dict[str, bytes]:
    """The fields of a chunk's entry in the event stream; the entry's id is `<chunk>-0`."""
    lines = ",".join(event.to_json_line() for event in events)
    fields = {
        "schema": str(SCHEMA).encode(),
        "events": f"[{lines}]".encode("utf-8", "surrogatepass"),
    }
    where = f"job {events[0].job} events of chunk {events[0].chunk}" if events else "events"
    _decode(fields, events[0].chunk if events else 0, where=where)  # none writes what none reads
    if totals is not None:
        fields["totals"] = json.dumps(dataclasses.asdict(totals), separators=(",", ":")).encode()
    return fields


def decode_chunk_events(entry: Entry) -> list[Event]:
    """The events of a chunk, in order."""
    return _decode(entry.fields, entry.number, where=entry.where)


def decode_totals(entry: Entry) -> Totals:
    """The totals up to a chunk; zeros in an entry that has none."""
    if "totals" not in entry.fields:
        return Totals()
    where = f"{entry.where}: totals"
    return build(Totals, _TOTALS, parse_json(entry.fields["totals"], where=where), where=where)


_TOTALS: dict[str, Check] = {
    "chunks": integer(),
    "captions": integer(),
    "unchanged": integer(),
    "asked": integer(),
    "gaps": integer(),
    "skipped": integer(),
    "levels": integer(),
    "errors": integer(),
    "t1": number,
    "patches": integer(),
    "patches_kept": integer(),
    "tokens_dense": integer(),
    "tokens": integer(),
    "output_tokens": integer(),
}

_EVENT: dict[str, Check] = {
    "id": text(empty=False),
    "event": one_of(EventKind),
    "job": text(empty=False),
    "chunk": integer(1),
    "t0": number,
    "t1": number,
    "question": text(empty=False),
    "text": text(),
    "reason": text(empty=False),
    "input_tokens": integer(),
    "dense_tokens": integer(),
    "output_tokens": integer(),
    "decode_latency_ms": number,
    "tokenize_latency_ms": number,
    "queue_time_ms": number,
    "vlm_latency_ms": number,
    "chunk_latency_ms": number,
    "wall0": text(empty=False),
    "wall1": text(empty=False),
    "level": integer(high=3),
}

_NEEDS: dict[str, tuple[str, ...]] = {
    "caption": ("question", "text"),
    "unchanged": ("question",),
    "seen": (),
    "gap": ("reason",),
    "skipped": ("reason",),
    "error": ("reason",),
    "level": ("reason", "level"),
}


def _decode(fields: dict[str, bytes], chunk: int, *, where: str) -> list[Event]:
    schema = fields.get("schema", b"")
    if schema != str(SCHEMA).encode():
        raise WireError(
            f"{where}: schema: {schema[:20]!r} is not one this version reads ({SCHEMA}); "
            "upgrade the reader"
        )
    values = parse_json(fields.get("events"), where=f"{where}: events")
    if not isinstance(values, list) or not values:
        raise WireError(f"{where}: events is not a list of at least one event")
    events = [
        build(Event, _EVENT, value, where=f"{where}: events[{n}]") for n, value in enumerate(values)
    ]
    for n, event in enumerate(events):
        name = f"{where}: events[{n}]"
        if event.id != event_id(chunk, n):
            raise WireError(f"{name}.id: {event.id[:40]!r}, must be {event_id(chunk, n)}")
        if event.chunk != chunk or event.job != events[0].job:
            raise WireError(f"{name}.chunk: one entry holds the events of one chunk of one job")
        if event.t1 < event.t0:
            raise WireError(f"{name}.t1: {event.t1} is before t0, {event.t0}")
        for needed in _NEEDS[event.event]:
            if getattr(event, needed) is None:
                raise WireError(f"{name}.{needed} is missing; {event.event} needs it")
        if event.event in ("gap", "skipped") and len(events) > 1:
            raise WireError(f"{name}.event: a {event.event} is the only event of its chunk")
    return events
