"""What is valid now, and that it does not matter where the reading began."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from operators import RLT
from streamer.core.pipeline import Pipeline
from streamer.errors import WireError
from streamer.token_state import TokenState
from streamer.wire import ChunkHead, ChunkKind, TokenChunk, decode, encode, without_tokens
from tests.unit.streamer.tiny import moving_square, tiny_model, tokens_of

WIDTH, LAYERS = 3, 2
"""Of the tokens and of their DeepStack."""

Step = tuple[ChunkKind, tuple[int, int], list[list[int]], int]
"""Kind, grid, the kept cells of each tubelet, a seed."""

GRIDS = ((1, 1), (2, 3), (3, 2))


@st.composite
def steps(draw: st.DrawFn, *, whole: bool = False) -> list[Step]:
    """A stream from anywhere on: groups of one grid each, gaps, skips, P-chunks before any I.

    whole: an I-chunk's first tubelet keeps every cell.
    """
    grid = draw(st.sampled_from(GRIDS))
    told: list[Step] = []
    kinds: tuple[ChunkKind, ...] = ("I", "P", "P", "P", "gap", "skipped")
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=9)):
        if kind == "I":
            grid = draw(st.sampled_from(GRIDS))
        cells = grid[0] * grid[1]
        kept = draw(
            st.lists(st.lists(st.integers(0, cells - 1), unique=True), min_size=1, max_size=3)
        )
        if kind == "I":
            kept[0] = list(range(cells)) if whole else kept[0] or [0]
        told.append((kind, grid, [sorted(some) for some in kept], draw(st.integers(0, 99))))
    return told


def stream(told: list[Step]) -> list[TokenChunk]:
    """Chunks of a second, tubelets numbered through."""
    chunks, t = [], 0
    for number, (kind, grid, kept, seed) in enumerate(told, start=1):
        head = ChunkHead(job="cam", number=number, kind=kind, t0=number - 1.0, t1=float(number))
        if kind in ("gap", "skipped"):
            chunks.append(without_tokens(replace(head, reason="no pictures")))
            continue
        generator = torch.Generator().manual_seed(1000 * number + seed)
        position = [
            (t + j, cell // grid[1], cell % grid[1]) for j, some in enumerate(kept) for cell in some
        ]
        n, step = len(position), 1.0 / len(kept)
        chunk = TokenChunk(
            head=replace(
                head,
                tubelet_s=tuple(number - 1.0 + (j + 0.5) * step for j in range(len(kept))),
                tubelet_t=t,
                grid=grid,
                tokens=n,
                dense=len(kept) * grid[0] * grid[1],
            ),
            tokens=torch.randn(n, WIDTH, generator=generator).bfloat16(),
            position=torch.tensor(position, dtype=torch.int32).reshape(n, 3),
            run=torch.ones(n, dtype=torch.int32),
            size=torch.rand(n, generator=generator) + 0.5,
            deepstack=torch.randn(LAYERS, n, WIDTH, generator=generator).bfloat16(),
        )
        chunks.append(decode(encode(chunk)))
        t += len(kept)
    return chunks


def after(chunks: list[TokenChunk]) -> TokenState:
    state = TokenState()
    for chunk in chunks:
        state.apply(chunk)
    return state


def same(a: TokenState, b: TokenState) -> bool:
    """To the bit."""
    marks = [(s.last_t, s.at_s, s.interrupted) for s in (a, b)]
    if marks[0] != marks[1] or a.valid is None or b.valid is None:
        return marks[0] == marks[1] and a.valid is b.valid
    names = ("tokens", "deepstack", "size", "since_t", "since_s")
    return a.valid.grid == b.valid.grid and all(
        torch.equal(getattr(a.valid, name), getattr(b.valid, name)) for name in names
    )


@given(steps())
def test_any_i_chunk_is_a_place_to_start(told: list[Step]) -> None:
    chunks = stream(told)
    for start in [n for n, chunk in enumerate(chunks) if chunk.head.kind == "I"]:
        for end in range(start + 1, len(chunks) + 1):
            assert same(after(chunks[start:end]), after(chunks[:end]))


@given(steps())
def test_every_cell_holds_the_last_token_it_was_given(told: list[Step]) -> None:
    chunks = stream(told)
    state = after(chunks)
    starts = [n for n, chunk in enumerate(chunks) if chunk.head.kind == "I"]
    if not starts:
        assert state.valid is None
        return
    assert state.valid is not None
    expected: dict[tuple[int, int], tuple[list[float], int, float]] = {}
    for chunk in chunks[starts[-1] :]:
        for row, (t, h, w) in enumerate(chunk.position.tolist()):
            seconds = chunk.head.tubelet_s[t - chunk.head.tubelet_t]
            expected[h, w] = (chunk.tokens[row].tolist(), t, seconds)
    columns = state.valid.grid[1]
    for cell, covered in enumerate(state.valid.covered.tolist()):
        place = (cell // columns, cell % columns)
        assert covered == (place in expected)
        if covered:
            found = (
                state.valid.tokens[cell].tolist(),
                int(state.valid.since_t[cell]),
                float(state.valid.since_s[cell]),
            )
            assert found == expected[place]


@given(steps(whole=True))
def test_where_nothing_was_merged_every_cell_is_covered_from_the_i_chunk_on(
    told: list[Step],
) -> None:
    state = TokenState()
    for chunk in stream(told):
        state.apply(chunk)
        if state.valid is not None:
            assert state.valid.covered.all()


@given(steps())
def test_gaps_and_skips_clear_nothing_but_are_marked(told: list[Step]) -> None:
    state = TokenState()
    for chunk in stream(told):
        before = state.valid
        state.apply(chunk)
        if not chunk.head.has_body:
            assert state.interrupted
            assert state.valid is before
        elif chunk.head.kind == "I":
            assert not state.interrupted


@given(steps())
def test_the_head_is_a_chunk_from_which_the_same_is_valid(told: list[Step]) -> None:
    state = after(stream(told))
    if state.valid is None:
        with pytest.raises(ValueError, match="before the first I-chunk"):
            state.head(job="cam", number=1)
        return
    head = state.head(job="cam", number=7)
    assert head.head.tokens <= head.head.dense == state.valid.grid[0] * state.valid.grid[1]
    again = TokenState()
    again.apply(decode(encode(head)))  # it is fit for the wire
    assert again.valid is not None
    assert torch.equal(again.valid.tokens, state.valid.tokens)
    assert torch.equal(again.valid.size, state.valid.size)
    assert torch.equal(again.valid.covered, state.valid.covered)
    since = state.valid.since_t[state.valid.covered]
    assert torch.equal(head.run, state.last_t - since + 1)


def test_what_does_not_follow_is_refused_and_changes_nothing() -> None:
    whole: list[Step] = [("I", (2, 3), [list(range(6))], 1), ("P", (3, 2), [[5]], 2)]
    first, second = stream(whole)
    state = after([first])
    before = state.valid
    with pytest.raises(WireError, match=r"chunk 2: head.grid: \(3, 2\), its group's is \(2, 3\)"):
        state.apply(second)
    narrow = replace(second, head=replace(second.head, grid=(2, 3)), deepstack=None)
    with pytest.raises(
        WireError, match=r"body: \(width, layers\) \(3, 0\), its group's is \(3, 2\)"
    ):
        state.apply(narrow)
    assert state.valid is before


def test_what_is_lost_stays_lost_until_an_i_chunk() -> None:
    told: list[Step] = [
        ("I", (1, 1), [[0]], 1),
        ("P", (1, 1), [[0]], 2),
        ("I", (1, 1), [[0]], 3),
    ]
    first, changes, fresh = stream(told)
    state = after([first])
    state.lose()
    state.apply(changes)
    assert state.valid is None
    state.apply(fresh)
    assert same(state, after([first, changes, fresh]))


def test_what_never_changed_is_still_what_the_i_chunk_said() -> None:
    # Given a square that crosses a still picture
    chunks = tokens_of(tiny_model(), moving_square(16), pipeline=Pipeline(pixel=RLT(threshold=0.1)))
    assert [chunk.head.kind for chunk in chunks] == ["I", "P", "P", "P"]
    # When the stream has been read
    valid = after(chunks).valid
    assert valid is not None
    # Then what it crossed is new, and the rest is the first tubelet to the bit
    untouched = valid.since_t == 0
    assert 0 < untouched.sum() < len(untouched)
    assert valid.covered.all()
    first = chunks[0].tokens[chunks[0].position[:, 0] == 0]
    assert torch.equal(valid.tokens[untouched], first[untouched])
    assert not torch.equal(valid.tokens[~untouched], first[~untouched])
