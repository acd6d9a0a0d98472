from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from operators import RLT, BadParameter, RLTState, ShapeError
from operators.robust import RobustState

from .test_properties import make_frames

Anchor = Literal["prev", "head"]
Change = Literal["plain", "robust"]


def grey(levels: list[list[int]]) -> Tensor:
    """One row of one-pixel cells per frame -> uint8 [T, 1, W, 3]"""
    return torch.tensor(levels, dtype=torch.uint8)[:, None, :, None].expand(-1, -1, -1, 3)


def test_five_tubelets_by_hand() -> None:
    # Cells: still, one step, a slow drift. 0.1 is 5.76 grey levels.
    frames = grey([[9, 0, 0], [9, 0, 5], [9, 7, 10], [9, 7, 15], [9, 7, 20]])
    selection = RLT().select(frames, None, tubelet=1, cell=1)
    assert selection.keep[:, 0].int().tolist() == [[1, 1, 1], [0, 0, 0], [0, 1, 0]] + 2 * [[0] * 3]
    assert selection.run[:, 0].tolist() == [[5, 2, 5], [0, 0, 0], [0, 3, 0], [0, 0, 0], [0, 0, 0]]
    assert selection.state.open_run.tolist() == [[5, 3, 5]]
    assert isinstance(selection.state, RLTState)
    assert selection.state.front[0, :, 0].tolist() == [9, 7, 20]


def test_next_chunk_continues_the_runs_by_hand() -> None:
    operator = RLT()
    first = operator.select(grey([[9, 0], [9, 50]]), None, tubelet=1, cell=1)
    second = operator.select(grey([[9, 50], [90, 50]]), first.state, tubelet=1, cell=1)
    assert second.keep[:, 0].int().tolist() == [[0, 0], [1, 0]]
    assert second.state.open_run.tolist() == [[1, 3]]


def joined(chunks: list[Tensor], operator: RLT, tubelet: int) -> tuple[Tensor, Tensor, Tensor]:
    """keep, run and distance of the whole video, from its chunks: how a consumer joins them."""
    state: RLTState | RobustState | None = None
    keeps: list[Tensor] = []
    runs: list[Tensor] = []
    distances: list[Tensor] = []
    for chunk in chunks:
        selection = operator.select(chunk, state, tubelet=tubelet, cell=2)
        keeps.append(selection.keep)
        distances.append(selection.distance)
        run = torch.cat([*runs[-1:], selection.run])
        if state is not None:
            past = len(runs[-1])
            for y, x in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
                kept = selection.keep[:, y, x].nonzero()
                waited = int(kept[0]) if len(kept) else len(selection.keep)
                head = int(runs[-1][:, y, x].nonzero()[-1])
                assert head < past
                run[head, y, x] = state.open_run[y, x] + waited
        runs.append(run)
        state = selection.state
    assert state is not None
    last = runs[-1]
    for y, x in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        assert state.open_run[y, x] == last[:, y, x][last[:, y, x] > 0][-1]
    return torch.cat(keeps), last, torch.cat(distances)


@given(
    tubelet=st.integers(1, 3),
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=5),
    symmetric=st.booleans(),
    anchor=st.sampled_from(["prev", "head"]),
    refresh=st.sampled_from([None, 1, 3]),
    change=st.sampled_from(["plain", "robust"]),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=100)
def test_chunks_with_state_equal_one_pass(
    tubelet: int,
    sizes: list[int],
    symmetric: bool,
    anchor: Anchor,
    refresh: int | None,
    change: Change,
    seed: int,
) -> None:
    frames = make_frames(sum(sizes), tubelet, seed)
    operator = RLT(symmetric=symmetric, anchor=anchor, refresh=refresh, change=change)
    whole = operator.select(frames, None, tubelet=tubelet, cell=2)
    chunks = list(torch.split(frames, [size * tubelet for size in sizes]))
    keep, run, distance = joined(chunks, operator, tubelet)
    assert torch.equal(keep, whole.keep)
    assert torch.equal(run, whole.run)
    assert torch.equal(distance, whole.distance)


@pytest.mark.parametrize("change", ["plain", "robust"])
def test_state_does_not_share_memory_with_the_chunk(change: Change) -> None:
    frames = make_frames(2, 2, seed=0)
    operator = RLT(change=change)
    state = operator.select(frames, None, tubelet=2, cell=2).state
    after = make_frames(1, 2, seed=1)
    expected = operator.select(after, state, tubelet=2, cell=2)
    frames.zero_()
    again = operator.select(after, state, tubelet=2, cell=2)
    assert torch.equal(again.distance, expected.distance)


@pytest.mark.parametrize("change", ["plain", "robust"])
def test_slow_drift_needs_the_head_as_anchor(change: Change) -> None:
    # One cell of four brightens by 4 grey levels a tubelet; 0.1 is 5.76.
    frames = grey([[100 + 4 * t, 90, 80, 70] for t in range(5)])
    assert not RLT(change=change).select(frames, None, tubelet=1, cell=1).keep[1:].any()
    head = RLT(anchor="head", change=change).select(frames, None, tubelet=1, cell=1)
    assert head.keep[:, 0].int().tolist() == [[1] * 4, [0] * 4, [1, 0, 0, 0], [0] * 4, [1, 0, 0, 0]]


@pytest.mark.parametrize("change", ["plain", "robust"])
def test_a_run_is_no_longer_than_refresh(change: Change) -> None:
    frames = grey([[5, 80]] * 7)
    selection = RLT(refresh=3, change=change).select(frames, None, tubelet=1, cell=1)
    assert selection.keep[:, 0, 0].int().tolist() == [1, 0, 0, 1, 0, 0, 1]
    assert selection.run[:, 0, 1].tolist() == [3, 0, 0, 3, 0, 0, 1]
    assert selection.distance[3].tolist() == [[0.0, 0.0]]  # nothing changed: no sign of a cut


def test_flash_in_a_first_frame_needs_symmetric() -> None:
    frames = grey([[0], [0], [200], [0], [0], [0]])
    plain = RLT().select(frames, None, tubelet=2, cell=1)
    assert plain.keep.flatten().tolist() == [True, False, True]
    symmetric = RLT(symmetric=True).select(frames, None, tubelet=2, cell=1)
    assert symmetric.keep.flatten().tolist() == [True, True, True]


def test_frames_that_do_not_divide_fail() -> None:
    frames = make_frames(5, 1, seed=0)
    with pytest.raises(ShapeError, match=r"5 frames .* tubelets of 2"):
        RLT().select(frames, None, tubelet=2, cell=2)
    with pytest.raises(ShapeError, match=r"0 frames .* tubelets of 2"):
        RLT().select(frames[:0], None, tubelet=2, cell=2)
    with pytest.raises(ShapeError, match=r"4 x 6 .* cells of 4"):
        RLT().select(frames, None, tubelet=1, cell=4)
    with pytest.raises(ShapeError, match=r"cell 0: both must be at least 1"):
        RLT().select(frames, None, tubelet=1, cell=0)
    with pytest.raises(ShapeError, match=r"float32 .* takes uint8 \[T, H, W, 3\]"):
        RLT().select(frames.float(), None, tubelet=1, cell=2)


def test_a_change_of_size_fails() -> None:
    frames = make_frames(2, 1, seed=0)
    for operator in (RLT(), RLT(change="robust")):
        state = operator.select(frames, None, tubelet=1, cell=2).state
        for other, cell in ((frames[:, :2], 2), (frames, 1)):
            with pytest.raises(ShapeError, match="start afresh with state=None"):
                operator.select(other, state, tubelet=1, cell=cell)


def test_a_state_of_the_other_test_fails() -> None:
    frames = make_frames(2, 1, seed=0)
    both: tuple[tuple[Change, Change], ...] = (("plain", "robust"), ("robust", "plain"))
    for change, other in both:
        state = RLT(change=change).select(frames, None, tubelet=1, cell=2).state
        with pytest.raises(ShapeError, match=r"other change test; .* state=None"):
            RLT(change=other).select(frames, state, tubelet=1, cell=2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"anchor": "first"}, "rlt.anchor: 'first' is not one of 'prev', 'head'"),
        ({"change": True}, "rlt.change: True is not one of 'plain', 'robust'"),
        ({"refresh": 0}, r"rlt.refresh: 0 is not a whole number in \[1, 2147483647\], or null"),
        ({"refresh": 2.5}, "rlt.refresh: 2.5 is not a whole number"),
        ({"refresh": True}, "rlt.refresh: True is not a whole number"),
    ],
    ids=str,
)
def test_bad_settings_fail(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadParameter, match=said):
        RLT(**settings)
