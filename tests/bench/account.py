"""What a job's event stream must look like, whatever befell the service: each chunk told once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from streamer.adapters.queue import Entry
from streamer.errors import WireError
from streamer.events import Event, decode_chunk_events

WITHOUT_PICTURES = ("gap", "skipped")
ANSWERS = ("caption", "unchanged", "error")
TOUCH_S = 1e-3
"""Spans that differ by less touch."""


@dataclass(slots=True, kw_only=True)
class Account:
    """The entries of one job, in the order in which they were read.

    Chunks, and what is wrong with them: numbers that never came, came twice or too late, entries
    that are not one answer a question, spans that do not begin where the one before ended.
    """

    questions: int = 1
    chunks: int = 0
    last: int = 0
    """The highest number so far."""
    t1: float | None = None
    """Where the last span ended."""
    doubled: int = 0
    disordered: int = 0
    malformed: int = 0
    torn: int = 0
    faults: list[str] = field(default_factory=list)
    """What is wrong, in words; the first few."""
    kinds: Counter[str] = field(default_factory=Counter)
    digests: dict[int, bytes] = field(default_factory=dict)

    def add(self, entry: Entry) -> list[Event]:
        """Takes the next entry; its events."""
        number = entry.number
        if number in self.digests:
            self.doubled += 1
            self._wrong(f"{entry.where} came twice")
        elif number < self.last:
            self.disordered += 1
            self._wrong(f"{entry.where} came after {self.last}")
        self.digests[number] = digest(entry)
        self.chunks, self.last = len(self.digests), max(self.last, number)
        try:
            events = decode_chunk_events(entry)
        except WireError as exc:
            self.malformed += 1
            self._wrong(str(exc))
            self.t1 = None
            return []
        self.kinds.update(event.event for event in events)
        if not answered_once(events, self.questions):
            self.malformed += 1
            told = [(event.event, event.question) for event in events]
            self._wrong(f"{entry.where} tells {told}")
        if self.t1 is not None and abs(events[0].t0 - self.t1) > TOUCH_S:
            self.torn += 1
            self._wrong(f"{entry.where} begins at {events[0].t0:g} s, not at {self.t1:g} s")
        self.t1 = events[-1].t1
        return events

    @property
    def missing(self) -> int:
        """Numbers up to the last that never came."""
        return self.last - self.chunks

    @property
    def first_missing(self) -> int | None:
        return next((n for n in range(1, self.last + 1) if n not in self.digests), None)

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong with it."""
        return not (self.missing or self.doubled or self.disordered or self.malformed or self.torn)

    def differs(self, other: Account) -> int:
        """How many entries the two read differently, or only one of them."""
        numbers = self.digests.keys() | other.digests.keys()
        return sum(self.digests.get(n) != other.digests.get(n) for n in numbers)

    def _wrong(self, sentence: str) -> None:
        if len(self.faults) < 5:
            self.faults.append(sentence)


def answered_once(events: Sequence[Event], questions: int) -> bool:
    """Whether an entry tells its chunk as it must.

    That is one gap or skip, or one answer to each question, or `seen` where none was asked; a
    change of level may stand beside answers. All events of an entry have one span.
    """
    if len({(event.t0, event.t1) for event in events}) != 1:
        return False
    told = [event for event in events if event.event != "level"]
    if len(events) - len(told) > 1:
        return False
    if any(event.event in WITHOUT_PICTURES for event in told):
        return len(events) == 1
    if [event.event for event in told] in (["seen"], ["error"]):
        return True
    asked = [event.question for event in told if event.event in ANSWERS and event.question]
    return len(asked) == len(told) == questions and len(set(asked)) == questions


def digest(entry: Entry) -> bytes:
    """Tells whether an entry is still the one that was read before."""
    held = hashlib.blake2b(digest_size=8)
    for name in sorted(entry.fields):
        held.update(name.encode() + b"\0" + entry.fields[name] + b"\0")
    return held.digest()
