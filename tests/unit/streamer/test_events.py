"""Events: the line users see, and the one entry per chunk that holds them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.adapters.queue import Entry
from streamer.errors import WireError
from streamer.events import (
    Event,
    Totals,
    decode_chunk_events,
    decode_totals,
    encode_chunk_events,
    event_id,
    parse_event_id,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "wire"

CAPTION = Event(
    id="12-0",
    event="caption",
    job="cam-1",
    chunk=12,
    t0=22.0,
    t1=24.0,
    question="default",
    text="A red ball rolls – left.",
    input_tokens=31,
    dense_tokens=256,
    output_tokens=14,
    decode_latency_ms=12.5,
    tokenize_latency_ms=40.25,
    queue_time_ms=1.5,
    vlm_latency_ms=80.0,
    chunk_latency_ms=140.75,
    wall0="2023-11-14T22:13:20Z",
    wall1="2023-11-14T22:13:22Z",
)
UNCHANGED = Event(
    id="12-1",
    event="unchanged",
    job="cam-1",
    chunk=12,
    t0=22.0,
    t1=24.0,
    question="people",
    input_tokens=31,
    dense_tokens=256,
)
GAP = Event(id="3-0", event="gap", job="cam-1", chunk=3, t0=4.0, t1=9.5, reason="no pictures")


def entry_of(*events: Event, **change: bytes) -> Entry:
    fields = encode_chunk_events(events) | change
    return Entry(events[0].chunk, fields, "job cam-1 events")


def test_a_line_has_the_documented_order_and_no_absent_fields() -> None:
    assert CAPTION.to_json_line().startswith(
        '{"id":"12-0","event":"caption","job":"cam-1","chunk":12,"t0":22.0,"t1":24.0,'
        '"question":"default","text":"A red ball rolls – left.","input_tokens":31,'
        '"dense_tokens":256,"output_tokens":14,'
    )
    assert json.loads(GAP.to_json_line()) == {
        "id": "3-0",
        "event": "gap",
        "job": "cam-1",
        "chunk": 3,
        "t0": 4.0,
        "t1": 9.5,
        "reason": "no pictures",
    }


def test_a_line_is_one_line() -> None:
    event = dataclasses.replace(CAPTION, text="a\r\nb")
    assert len(event.to_json_line().splitlines()) == 1
    assert decode_chunk_events(entry_of(event)) == [event]


def test_events_come_back_in_order() -> None:
    assert decode_chunk_events(entry_of(CAPTION, UNCHANGED)) == [CAPTION, UNCHANGED]
    assert decode_chunk_events(entry_of(GAP)) == [GAP]
    error = dataclasses.replace(GAP, event="error", reason="model refused")
    assert decode_chunk_events(entry_of(error)) == [error]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "at least one event"),
        ([dataclasses.replace(CAPTION, id="12-1")], r"events\[0\].id: '12-1', must be 12-0"),
        ([CAPTION, CAPTION], r"events\[1\].id: '12-0', must be 12-1"),
        ([CAPTION, dataclasses.replace(UNCHANGED, job="b")], r"events\[1\].chunk"),
        ([CAPTION, dataclasses.replace(UNCHANGED, chunk=13)], r"events\[1\].chunk"),
        ([GAP, dataclasses.replace(GAP, id="3-1")], "a gap is the only event of its chunk"),
        ([dataclasses.replace(GAP, reason=None)], r"events\[0\].reason is missing"),
        ([dataclasses.replace(CAPTION, text=None)], r"events\[0\].text is missing"),
        ([dataclasses.replace(CAPTION, question=None)], r"events\[0\].question is missing"),
        ([dataclasses.replace(CAPTION, text="\ud800")], "events is not JSON"),
        ([dataclasses.replace(CAPTION, t0=float("nan"))], "NaN is not a number"),
        ([dataclasses.replace(CAPTION, t0=25.0)], r"events\[0\].t1: 24.0 is before t0"),
    ],
)
def test_what_none_could_read_is_not_written(events: list[Event], message: str) -> None:
    with pytest.raises(WireError, match=message):
        encode_chunk_events(events)


def with_event(change: dict[str, Any]) -> Entry:
    event = json.loads(CAPTION.to_json_line()) | change
    return entry_of(CAPTION, events=json.dumps([event]).encode())


def test_a_wrong_entry_is_refused_by_name() -> None:
    changes: list[tuple[dict[str, Any], str]] = [
        ({"event": "state"}, "event: 'state' is not one of caption"),
        ({"chunk": True}, "chunk: True is not an integer"),
        ({"text": None}, "text: None is not text"),
        ({"input_tokens": -1}, "input_tokens: -1 is not an integer"),
        ({"vlm_latency_ms": "3"}, "vlm_latency_ms: '3' is not a number"),
    ]
    for change, message in changes:
        with pytest.raises(WireError, match=rf"^job cam-1 events entry 12: events\[0\]\.{message}"):
            decode_chunk_events(with_event(change))
    with pytest.raises(WireError, match="schema: b'2' is not one this version reads"):
        decode_chunk_events(entry_of(CAPTION, schema=b"2"))
    with pytest.raises(WireError, match="must be 13-0"):
        decode_chunk_events(Entry(13, encode_chunk_events([CAPTION])))
    with pytest.raises(WireError, match="events is missing"):
        decode_chunk_events(Entry(12, {"schema": b"1"}))


def test_unknown_fields_are_ignored() -> None:
    assert decode_chunk_events(with_event({"mood": ["good"]})) == [CAPTION]


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 5000))
def test_fuzz(data: bytes, at: int) -> None:
    whole = encode_chunk_events([CAPTION, UNCHANGED])["events"]
    at %= len(whole)
    for damaged in (data, whole[:at], whole[:at] + data + whole[at + 1 :]):
        try:
            events = decode_chunk_events(entry_of(CAPTION, events=damaged))
        except WireError:
            continue
        assert decode_chunk_events(entry_of(*events)) == events


def test_event_ids() -> None:
    assert parse_event_id(event_id(12, 3)) == (12, 3)
    for wrong in ("", "12", "0-0", "12-", "-1", "12-0 ", "012-0", "١-0", "12-0\n", "9" * 40 + "-0"):
        with pytest.raises(WireError, match="is not <chunk>-<n>"):
            parse_event_id(wrong)


def test_golden() -> None:
    fields = {"schema": b"1", "events": (GOLDEN / "events1.json").read_bytes()}
    assert decode_chunk_events(Entry(12, fields)) == [CAPTION, UNCHANGED]


TOTALS = Totals(
    chunks=12,
    captions=23,
    errors=1,
    t1=24.0,
    patches=9216,
    patches_kept=1100,
    tokens_dense=2304,
    tokens=275,
    output_tokens=301,
)


def test_totals_lie_beside_the_events() -> None:
    entry = Entry(12, encode_chunk_events([CAPTION, UNCHANGED], TOTALS))
    assert decode_totals(entry) == TOTALS
    assert decode_chunk_events(entry) == [CAPTION, UNCHANGED]


def test_an_entry_without_totals_has_zeros() -> None:
    assert decode_totals(entry_of(CAPTION)) == Totals()
    assert Totals() == Totals(**dict.fromkeys((f.name for f in dataclasses.fields(Totals)), 0))


def test_totals_of_another_version_are_understood() -> None:
    entry = entry_of(CAPTION, totals=b'{"chunks":3,"smiles":9}')
    assert decode_totals(entry) == Totals(chunks=3)


@pytest.mark.parametrize(
    ("totals", "message"),
    [
        (b"{", "totals is not JSON"),
        (b"[]", "totals"),
        (b'{"chunks":-1}', "totals.chunks: -1 is not an integer"),
        (b'{"tokens":1.5}', "totals.tokens: 1.5 is not an integer"),
        (b'{"t1":"3"}', "totals.t1: '3' is not a number"),
    ],
)
def test_wrong_totals_are_refused_by_name(totals: bytes, message: str) -> None:
    with pytest.raises(WireError, match=rf"^job cam-1 events entry 12: {message}"):
        decode_totals(entry_of(CAPTION, totals=totals))
