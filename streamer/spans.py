"""What a question about a span is read from: the chunks of the span, after what was valid before.

Nothing is decoded again. An I-chunk inside a span does not restart the context: all of the span is
one, with times from its start on. So a context is at most the span's kept tokens and one full
tubelet, and that of a whole group is the one from which it was captioned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch

from streamer.adapters.queue import Entry, Queue
from streamer.errors import StreamerError, WireError
from streamer.groups import entry_at, head_of, heads, last_group, starts_a_group
from streamer.language.layout import Layout
from streamer.token_state import TokenState
from streamer.wire import ChunkHead, TokenChunk, decode, decode_head

PAGE = 8
HEADS = 64
"""Entries looked at together where only their heads are needed."""
LATEST_S = 1e9
"""No stream lasts so long."""

Older = Callable[[str, float, float], Iterable[Entry]]
"""Job, t0, t1: what an archive has of a span, in whole groups, oldest first."""


class SpanRefused(StreamerError):
    """Nothing can be said about a span; the message names one that can be asked about."""

    def __init__(self, message: str, *, why: Literal["nothing_kept", "too_long"]) -> None:
        super().__init__(message)
        self.why: Literal["nothing_kept", "too_long"] = why


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Excerpt:
    """A part of a token stream, to be appended to a fresh session in this order."""

    chunks: tuple[TokenChunk, ...]
    """An I-chunk, and what follows as P-chunks."""
    first: ChunkHead
    """As it is in the stream, which may be later than what was valid before it."""
    last: ChunkHead
    dense_tokens: int
    """What the span would have been without any reduction."""

    @property
    def tokens(self) -> int:
        """Visual tokens of the context."""
        return sum(chunk.head.tokens for chunk in self.chunks)


class ContextLength:
    """How long a context gets, measured before it is read."""

    def __init__(self, layout: Layout, *, limit: int, reserve: int) -> None:
        """limit: of tokens and of positions. reserve: what question and answer take of them."""
        self.layout = layout
        self.limit = limit - reserve
        self.tokens = 0
        self.base = 0
        self._start_s = 0.0

    def add(self, head: ChunkHead) -> bool:
        """Counts a chunk; whether all that was counted still fits."""
        if not self.tokens:
            self._start_s = head.t0
            piece = self.layout.head()
            self.tokens, self.base = len(piece), piece.next_base
        nothing = torch.empty(0, 2, dtype=torch.int32)
        for seconds in head.tubelet_s:
            since = seconds - self._start_s
            piece = self.layout.tubelet(since, nothing, max(head.grid), self.base)
            self.tokens, self.base = self.tokens + len(piece), piece.next_base
        self.tokens += head.tokens
        return self.used <= self.limit

    @property
    def used(self) -> int:
        """Of the limit: the positions of a context with few tokens run ahead of their number."""
        return max(self.tokens, self.base)


def excerpt_now(queue: Queue, job_id: str, *, length: ContextLength) -> Excerpt:
    """The last group, as it is captioned. Raises SpanRefused, and QueueError."""
    entries = _from_its_start(last_group(queue, job_id), job_id)
    reading = _Reading(job_id, -math.inf, math.inf, length)
    for entry in entries:
        if not reading.take(entry):
            break
    return reading.excerpt(queue, f"job {job_id} has no tokens yet; wait until it has seen more")


def excerpt_of(
    queue: Queue,
    job_id: str,
    t0: float,
    t1: float,
    *,
    length: ContextLength,
    older: Older | None = None,
) -> Excerpt:
    """What is kept of the media seconds from t0 to t1, in whole chunks.

    older: what has left the queue. Raises SpanRefused, and QueueError.
    """
    reading = _Reading(job_id, t0, t1, length)
    for entry in _entries(queue, job_id, t0, t1, older):
        if not reading.take(entry):
            break
    return reading.excerpt(queue)


class _Reading:
    """Entries of a stream on their way into an excerpt."""

    def __init__(self, job_id: str, t0: float, t1: float, length: ContextLength) -> None:
        self.job_id = job_id
        self.t0, self.t1 = t0, t1
        self.length = length
        self.state = TokenState()
        self.number: int | None = None
        """Of the last entry taken."""
        self.chunks: list[TokenChunk] = []
        self.heads: list[ChunkHead] = []
        """Those of the span's own chunks."""
        self.full: ChunkHead | None = None
        """The first chunk that does not fit."""

    def take(self, entry: Entry) -> bool:
        """Takes the next entry; False when the span ended before it, or does not fit."""
        if self.number is not None and entry.number != self.number + 1:
            self.state.lose()  # trimmed while this was read
        self.number = entry.number
        try:
            head_of(entry, self.job_id)
            chunk = decode(entry.fields, where=entry.where)
            if chunk.head.t1 <= self.t0:
                self.state.apply(chunk)
                return True
        except WireError:  # its own event says so
            self.state.lose()
            return True
        if self.t1 <= chunk.head.t0 > self.t0:
            return False
        if chunk.head.has_body:
            self._lay(chunk)
        return self.full is None

    def excerpt(self, queue: Queue, nothing: str | None = None) -> Excerpt:
        """What was taken. nothing: what is said where there is no chunk."""
        if self.full is not None:
            raise SpanRefused(self._too_long(queue, self.full), why="too_long")
        if not self.heads:
            said = nothing or _nothing_kept(queue, self.job_id, self.t0, self.t1)
            raise SpanRefused(said, why="nothing_kept")
        return Excerpt(
            chunks=tuple(self.chunks),
            first=self.heads[0],
            last=self.heads[-1],
            dense_tokens=sum(head.dense for head in self.heads),
        )

    def _lay(self, chunk: TokenChunk) -> None:
        head = chunk.head
        if self.chunks:
            chunk = replace(chunk, head=replace(head, kind="P"))
        elif head.kind == "P":
            if self.state.valid is None:  # changes alone, to something that is not kept
                return
            before = self.state.head(job=self.job_id, number=head.number)
            self.chunks.append(before)
            self.length.add(before.head)
        if not self.length.add(head):
            self.full = head
            return
        self.chunks.append(chunk)
        self.heads.append(head)

    def _too_long(self, queue: Queue, full: ChunkHead) -> str:
        start, end = (self.heads or [full])[0].t0, full.t1
        for head in heads(queue, self.job_id, after=full.number, count=HEADS):
            if head.t0 >= self.t1:
                break
            if head.has_body:
                self.length.add(head)
                end = head.t1
        fitting = "not even its first chunk does; lower model.max_cells"
        if self.heads:
            fitting = f"ask about {start:g} to {self.heads[-1].t1:g} s"
        return (
            f"{start:g} to {end:g} s are {self.length.used} tokens of context, and "
            f"{max(0, self.length.limit)} fit beside the question and its answer; {fitting}"
        )


def _entries(
    queue: Queue, job_id: str, t0: float, t1: float, older: Older | None
) -> Iterator[Entry]:
    """From the I-chunk at or before t0 on, as far as it is kept."""
    number = entry_at(queue, job_id, t0)
    kept = [] if number is None else last_group(queue, job_id, upto=number)
    first = next(iter(kept), None)
    if older is not None and not (first is not None and _begins(first, job_id, t0)):
        before = older(
            job_id, t0, min(t1, LATEST_S if first is None else _start_of(first, LATEST_S))
        )
        yield from (entry for entry in before if first is None or entry.number < first.number)
    yield from kept
    while kept and (kept := queue.read(job_id, "tokens", after=kept[-1].number, count=PAGE)):
        yield from kept


def _begins(entry: Entry, job_id: str, t0: float) -> bool:
    """Whether nothing before the entry is needed to know what was valid at t0."""
    return starts_a_group(entry, job_id) and head_of(entry, job_id).t0 <= t0


def _start_of(entry: Entry, otherwise: float) -> float:
    """Its media time."""
    try:
        return decode_head(entry.fields, where=entry.where).t0
    except WireError:
        return otherwise


def _from_its_start(entries: list[Entry], job_id: str) -> list[Entry]:
    return entries if entries and starts_a_group(entries[0], job_id) else []


def _nothing_kept(queue: Queue, job_id: str, t0: float, t1: float) -> str:
    spans = []
    for entry in (
        *queue.read(job_id, "tokens", after=0, count=1),
        *queue.read_back(job_id, "tokens", count=1),
    ):
        try:
            head = head_of(entry, job_id)
        except WireError:
            continue
        spans += [head.t0, head.t1]
    if not spans:
        return f"job {job_id} has no tokens yet; wait until it has seen more"
    return (
        f"job {job_id} has no tokens from {t0:g} to {t1:g} s; "
        f"it keeps those from {spans[0]:g} to {spans[-1]:g} s"
    )
