"""What an answer about a span is read from, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from streamer.adapters.memory_queue import MemoryQueue
from streamer.adapters.queue import Entry
from streamer.embedded.vocabulary import build_tokenizer
from streamer.groups import last_group
from streamer.language.layout import Layout
from streamer.language.session import Session
from streamer.model import VideoModel
from streamer.spans import ContextLength, Excerpt, SpanRefused, excerpt_now, excerpt_of
from streamer.wire import ChunkHead, TokenChunk, decode, encode, without_tokens
from tests.unit.streamer.tiny import tiny_model

JOB = "cam"
GRID = (2, 3)
CELLS = 6
LAYOUT = Layout.of(build_tokenizer())


def chunk_of(number: int, kind: str, *, wall: float = 0.0) -> TokenChunk:
    """A second of two tubelets: I, P, or g(ap), as the tiny model would take it."""
    t0 = number - 1.0
    head = ChunkHead(job=JOB, number=number, kind="gap", t0=t0, t1=t0 + 1, reason="no pictures")
    if wall:
        head = replace(head, wall0=wall + t0, wall1=wall + t0 + 1)
    if kind == "g":
        return without_tokens(head)
    cells = [*range(CELLS), 2] if kind == "I" else [number % CELLS, (number + 1) % CELLS]
    tubelets = [0] * CELLS + [1] if kind == "I" else [0, 1]
    first, n = 2 * (number - 1), len(cells)
    generator = torch.Generator().manual_seed(number)
    return TokenChunk(
        head=replace(
            head,
            kind="I" if kind == "I" else "P",
            reason="",
            tubelet_s=(t0 + 0.25, t0 + 0.75),
            tubelet_t=first,
            grid=GRID,
            tokens=n,
            dense=2 * CELLS,
        ),
        tokens=torch.randn(n, 32, generator=generator).bfloat16(),
        position=torch.tensor(
            [(first + j, c // 3, c % 3) for j, c in zip(tubelets, cells, strict=True)],
            dtype=torch.int32,
        ),
        run=torch.ones(n, dtype=torch.int32),
        size=torch.ones(n),
        deepstack=torch.randn(2, n, 32, generator=generator).bfloat16(),
    )


def put(queue: MemoryQueue, kinds: str, *, wall: float = 0.0) -> MemoryQueue:
    """One entry per letter, a second each; x is one that cannot be read."""
    queue.create_job(JOB, {"state": "running"})
    for number, kind in enumerate(kinds, start=1):
        fields = {"head": b"{"} if kind == "x" else encode(chunk_of(number, kind, wall=wall))
        queue.append(JOB, "tokens", number, fields)
    return queue


def stream(kinds: str, *, wall: float = 0.0) -> MemoryQueue:
    return put(MemoryQueue(), kinds, wall=wall)


def length(limit: int = 10_000) -> ContextLength:
    return ContextLength(LAYOUT, limit=limit, reserve=0)


def span(queue: MemoryQueue, t0: float, t1: float) -> Excerpt:
    return excerpt_of(queue, JOB, t0, t1, length=length())


def shape(excerpt: Excerpt) -> list[tuple[int, str, int]]:
    """Of each chunk: number, kind, tokens."""
    return [(c.head.number, c.head.kind, c.head.tokens) for c in excerpt.chunks]


def test_now_is_the_last_group_as_it_is_captioned() -> None:
    found = excerpt_now(stream("IPPIPP"), JOB, length=length())
    assert shape(found) == [(4, "I", 7), (5, "P", 2), (6, "P", 2)]
    assert (found.first.t0, found.last.t1) == (3.0, 6.0)
    assert (found.tokens, found.dense_tokens) == (11, 36)


def test_what_is_missing_now_is_no_hindrance() -> None:
    found = excerpt_now(stream("IPPIPxPg"), JOB, length=length())
    assert shape(found) == [(4, "I", 7), (5, "P", 2), (7, "P", 2)]


@pytest.mark.parametrize("kinds", ["", "g", "gg", "PP", "x"])
def test_where_nothing_has_been_seen_nothing_is_said(kinds: str) -> None:
    with pytest.raises(SpanRefused, match="job cam has no tokens yet") as refused:
        excerpt_now(stream(kinds), JOB, length=length())
    assert refused.value.why == "nothing_kept"


def test_a_whole_group_is_its_captions_context() -> None:
    queue = stream("IPPIPPIP")
    found = span(queue, 3.0, 6.0)
    entries = last_group(queue, JOB, upto=6)
    assert shape(found) == [(4, "I", 7), (5, "P", 2), (6, "P", 2)]
    model = tiny_model()
    captioned = session(model, [decode(entry.fields) for entry in entries])
    asked = session(model, list(found.chunks))
    for ours, theirs in zip(asked.layers, captioned.layers, strict=True):
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)
    assert asked.base == captioned.base


def session(model: VideoModel, chunks: list[TokenChunk]) -> Session:
    session = Session(model)
    for chunk in chunks:
        session.append(chunk)
    return session


def test_a_span_within_a_group_starts_with_what_was_valid() -> None:
    found = span(stream("IPPPPIP"), 2.0, 4.0)
    assert shape(found) == [(3, "I", CELLS), (3, "P", 2), (4, "P", 2)]
    head = found.chunks[0]
    assert (head.head.t0, head.head.tubelet_s, head.head.grid) == (2.0, (2.0,), GRID)
    last = chunk_of(2, "P")  # at cells 2 and 3
    assert torch.equal(head.tokens[2], last.tokens[0])
    assert torch.equal(head.tokens[3], last.tokens[1])
    assert torch.equal(head.tokens[0], chunk_of(1, "I").tokens[0])
    assert (found.first.number, found.last.number, found.dense_tokens) == (3, 4, 24)


def test_i_chunks_inside_a_span_do_not_restart_it() -> None:
    found = span(stream("IPPIPPIP"), 1.0, 8.0)
    assert [kind for _, kind, _ in shape(found)] == ["I", *"PPPPPPP"]
    assert [n for n, _, _ in shape(found)] == [2, 2, 3, 4, 5, 6, 7, 8]
    whole = session(tiny_model(), list(found.chunks))
    assert whole.group_start_s == 1.0
    measured = length()
    for chunk in found.chunks:
        assert measured.add(chunk.head)
    assert (measured.tokens, measured.base) == (whole.length, whole.base)


def test_whole_chunks_are_cited() -> None:
    queue = stream("IPPIPP")
    for t0, t1, first, last in ((0.5, 1.5, 1, 2), (1.0, 2.0, 2, 2), (2.5, 2.5, 3, 3), (2, 2, 3, 3)):
        found = span(queue, t0, t1)
        assert (found.first.number, found.last.number) == (first, last)
    found = span(queue, 4.5, float("inf"))
    assert (found.first.t0, found.last.t1) == (4.0, 6.0)


def test_gaps_within_a_span_are_passed_over() -> None:
    found = span(stream("IPggIPx"), 1.0, 9.0)
    assert shape(found) == [(2, "I", 6), (2, "P", 2), (5, "P", 7), (6, "P", 2)]


@pytest.mark.parametrize(
    ("t0", "t1", "kept"), [(2.0, 4.0, "0 to 6 s"), (6.0, 9.0, "0 to 6 s"), (99, 120, "0 to 6 s")]
)
def test_a_span_without_pictures_is_refused(t0: float, t1: float, kept: str) -> None:
    with pytest.raises(SpanRefused, match=f"no tokens from {t0:g} to {t1:g} s") as refused:
        span(stream("IPggIP"), t0, t1)
    assert str(refused.value).endswith(f"it keeps those from {kept}")
    assert refused.value.why == "nothing_kept"


def test_of_a_span_that_is_partly_kept_that_part_is_read() -> None:
    # Given a stream of which the first group is gone, and its second one is cut
    queue = stream("IPPIPPIPP")
    queue.trim(JOB, "tokens", before=6)
    # Then changes to what is not kept say nothing, and what follows is read
    found = span(queue, 0.0, 8.0)
    assert shape(found) == [(7, "I", 7), (8, "P", 2)]
    assert (found.first.t0, found.last.t1) == (6.0, 8.0)
    for t0, t1 in ((0.0, 3.0), (5.0, 6.0)):
        with pytest.raises(SpanRefused, match="it keeps those from 5 to 9 s"):
            span(queue, t0, t1)


def test_what_has_left_the_queue_is_read_from_where_it_is() -> None:
    queue = stream("IPPIPPIPP")
    everything = queue.read(JOB, "tokens", after=0)
    queue.trim(JOB, "tokens", before=7)
    calls: list[tuple[str, float, float]] = []

    def older(job: str, t0: float, t1: float) -> list[Entry]:
        calls.append((job, t0, t1))
        return everything[3:7]  # the second group, and one that the queue has too

    def ask(t0: float, t1: float) -> Excerpt:
        return excerpt_of(queue, JOB, t0, t1, length=length(), older=older)

    whole = [(5, "I", 6), (5, "P", 2), (6, "P", 2), (7, "P", 7), (8, "P", 2)]
    assert shape(ask(4.0, 8.0)) == whole
    assert shape(ask(4.0, 6.0)) == whole[:3]
    assert calls == [(JOB, 4.0, 6.0)] * 2  # up to where the queue begins
    assert shape(ask(5.5, float("inf")))[-1] == (9, "P", 2)
    assert calls.pop() == (JOB, 5.5, 6.0)
    assert shape(ask(7.0, 8.0)) == [(8, "I", 6), (8, "P", 2)]
    assert len(calls) == 2  # the queue has all of that
    queue.trim(JOB, "tokens", before=10)
    assert shape(ask(3.0, 5.0)) == [(4, "I", 7), (5, "P", 2)]
    assert shape(ask(4.0, float("inf")))[-1] == (7, "P", 7)
    assert [t1 < float("inf") for _, _, t1 in calls] == [True] * 4


def test_a_broken_i_chunk_leaves_nothing_to_start_from() -> None:
    found = span(stream("IPxPIP"), 3.5, 6.0)
    assert shape(found) == [(5, "I", 7), (6, "P", 2)]


def test_what_is_trimmed_on_the_way_is_not_taken_for_still_valid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a stream that loses its beginning between two pages of one reading
    monkeypatch.setattr("streamer.spans.PAGE", 1)
    queue = stream("IPPPPIPP")
    read = queue.read

    def trimming(*args: Any, **kwargs: Any) -> list[Entry]:
        if kwargs["after"] == 1:
            queue.trim(JOB, "tokens", before=4)
        return read(*args, **kwargs)

    monkeypatch.setattr(queue, "read", trimming)
    monkeypatch.setattr("streamer.spans.entry_at", lambda queue, job, t0: 1)
    # Then what was valid before the loss is not said to be valid after it
    assert shape(span(queue, 4.0, 8.0)) == [(6, "I", 7), (7, "P", 2), (8, "P", 2)]


def test_a_span_that_does_not_fit_is_refused_with_one_that_does() -> None:
    queue = stream("I" + "P" * 40)
    fits = length(400)
    with pytest.raises(SpanRefused) as refused:
        excerpt_of(queue, JOB, 3.0, 40.0, length=fits)
    assert refused.value.why == "too_long"
    said = str(refused.value)
    assert said.startswith(f"3 to 40 s are {fits.used} tokens of context, and 400 fit beside ")
    end = float(said.split("ask about 3 to ")[1].removesuffix(" s"))
    again = length(400)
    assert excerpt_of(queue, JOB, 3.0, end, length=again).last.t1 == end
    assert again.used <= 400 < fits.used
    with pytest.raises(SpanRefused, match=r"20 fit .* not even its first chunk does"):
        excerpt_of(queue, JOB, 3.0, 40.0, length=length(20))
    with pytest.raises(SpanRefused, match="ask about 0 to"):
        excerpt_now(queue, JOB, length=length(400))


def test_the_clock_of_a_live_source_is_cited() -> None:
    found = span(stream("IPP", wall=1e9), 1.0, 3.0)
    assert (found.first.wall0, found.last.wall1) == (1e9 + 1, 1e9 + 3)


@given(
    st.text(alphabet="IPPPgx", max_size=16),
    st.floats(0, 17),
    st.floats(0, 17),
    st.integers(0, 16),
)
def test_a_context_is_at_most_the_spans_tokens_and_one_head(
    kinds: str, a: float, b: float, trimmed: int
) -> None:
    queue = stream(kinds)
    queue.trim(JOB, "tokens", before=trimmed + 1)
    t0, t1 = min(a, b), max(a, b)
    seen = [
        chunk_of(n, kind).head
        for n, kind in enumerate(kinds, start=1)
        if kind in "IP" and n > trimmed and t0 < n and (n - 1 < t1 or n - 1 <= t0)
    ]
    try:
        found = span(queue, t0, t1)
    except SpanRefused:
        broken = [k for n, k in enumerate(kinds, 1) if k == "I" and n > trimmed and n - 1 < t1]
        assert not seen or "x" in kinds or not broken
        return
    assert found.tokens <= sum(head.tokens for head in seen) + CELLS
    numbers = [head.number for head in seen]
    used = [chunk.head.number for chunk in found.chunks[1:]]
    assert used == numbers[len(numbers) - len(used) :]  # nothing left out after the first
    assert [chunk.head.kind for chunk in found.chunks] == ["I", *"P" * len(used)]
