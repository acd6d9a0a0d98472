"""The account of a job's events finds every way in which a chunk may not be told once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from streamer.adapters.queue import Entry
from streamer.events import Event, encode_chunk_events, event_id
from tests.bench.account import Account, answered_once

STEP_S = 0.5


def entry(
    number: int, *kinds: str, t0: float | None = None, questions: Sequence[str] = ()
) -> Entry:
    """A chunk of half a second; of each kind one event."""
    begin = (number - 1) * STEP_S if t0 is None else t0
    events = []
    for n, kind in enumerate(kinds or ("caption",)):
        given: dict[str, Any] = {}
        if kind in ("caption", "unchanged"):
            given["question"] = questions[n] if questions else f"q{n}"
        if kind == "caption":
            given["text"] = f"chunk {number}"
        if kind in ("gap", "skipped", "error", "level"):
            given["reason"] = "why"
        if kind == "level":
            given["level"] = 1
        events.append(
            Event(
                id=event_id(number, n),
                event=kind,  # type: ignore[arg-type]  # a literal
                job="cam",
                chunk=number,
                t0=begin,
                t1=begin + STEP_S,
                **given,
            )
        )
    return Entry(number, encode_chunk_events(events))


def account_of(*entries: Entry, questions: int = 1) -> Account:
    account = Account(questions=questions)
    for one in entries:
        account.add(one)
    return account


def test_a_stream_with_gaps_and_levels_is_whole() -> None:
    account = account_of(
        entry(1),
        entry(2, "gap"),
        entry(3, "caption", "level"),
        entry(4, "unchanged"),
        entry(5, "seen"),
    )
    assert account.whole
    assert account.chunks == account.last == 5
    assert account.kinds["gap"] == account.kinds["level"] == 1


def test_a_chunk_that_never_came_is_missing() -> None:
    account = account_of(entry(1), entry(2), entry(4))
    assert (account.missing, account.first_missing) == (1, 3)
    assert not account.whole


def test_a_chunk_that_comes_too_late_is_out_of_order_and_not_missing() -> None:
    account = account_of(entry(1), entry(3), entry(2))
    assert (account.missing, account.disordered) == (0, 1)
    assert not account.whole


def test_a_chunk_that_comes_twice_is_doubled() -> None:
    account = account_of(entry(1), entry(2), entry(2))
    assert (account.doubled, account.disordered) == (1, 0)
    assert not account.whole


@pytest.mark.parametrize("t0", [0.25, 1.0], ids=["overlap", "hole"])
def test_a_span_that_does_not_begin_where_the_last_ended_is_torn(t0: float) -> None:
    account = account_of(entry(1), entry(2, t0=t0))
    assert account.torn == 1
    assert not account.whole


def test_an_entry_that_cannot_be_read_is_malformed() -> None:
    account = account_of(entry(1), Entry(2, {"schema": b"1", "events": b"[]"}), entry(3))
    assert (account.malformed, account.torn, account.chunks) == (1, 0, 3)
    assert "events" in account.faults[0]


@pytest.mark.parametrize(
    ("kinds", "questions", "well"),
    [
        (["caption"], 1, True),
        (["caption", "unchanged"], 2, True),
        (["unchanged", "error"], 2, False),  # this error has no question
        (["caption"], 2, False),
        (["caption", "caption"], 1, False),
        (["error"], 3, True),
        (["gap"], 1, True),
        (["level", "level", "caption"], 1, False),
        (["level"], 1, False),
    ],
)
def test_every_question_is_answered_once(kinds: list[str], questions: int, well: bool) -> None:
    events = account_of(entry(1)).add(entry(2, *kinds))
    assert answered_once(events, questions) == well


def test_the_same_question_answered_twice_is_malformed() -> None:
    account = account_of(entry(1, "caption", "caption", questions=["q0", "q0"]), questions=2)
    assert account.malformed == 1


def test_entries_that_changed_since_they_were_read_differ() -> None:
    first = account_of(entry(1), entry(2))
    assert first.differs(account_of(entry(1), entry(2))) == 0
    assert first.differs(account_of(entry(1), entry(2, "unchanged"))) == 1
    assert first.differs(account_of(entry(1))) == 1
