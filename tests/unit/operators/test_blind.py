"""What both baselines share: runs, distance and what is carried from chunk to chunk."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import RLT, ShapeError
from operators.blind import BlindOperator, BlindState
from operators.framedrop import FrameDrop
from operators.randomdrop import RandomDrop

from .test_properties import make_frames

every = pytest.mark.parametrize("operator", [RandomDrop(keep=0.3), FrameDrop(every=3)], ids=repr)


@every
@given(
    tubelet=st.integers(1, 3),
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=25)
def test_chunks_with_state_equal_one_pass(
    operator: BlindOperator, tubelet: int, sizes: list[int], seed: int
) -> None:
    frames = make_frames(sum(sizes), tubelet, seed)
    whole = operator.select(frames, None, tubelet=tubelet, cell=2)
    state: BlindState | None = None
    keeps, distances = [], []
    for chunk in torch.split(frames, [size * tubelet for size in sizes]):
        selection = operator.select(chunk, state, tubelet=tubelet, cell=2)
        state = selection.state
        keeps.append(selection.keep)
        distances.append(selection.distance)
    assert state is not None
    assert torch.equal(torch.cat(keeps), whole.keep)
    assert torch.equal(torch.cat(distances), whole.distance)
    assert torch.equal(state.open_run, whole.state.open_run)
    assert torch.equal(state.front, whole.state.front)
    assert state.tubelets == whole.state.tubelets == sum(sizes)


@every
def test_an_open_run_is_the_last_one_of_its_cell(operator: BlindOperator) -> None:
    selection = operator.select(make_frames(5, 2, seed=0), None, tubelet=2, cell=2)
    for y, x in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        run = selection.run[:, y, x]
        assert selection.state.open_run[y, x] == run[run > 0][-1]


@every
def test_an_open_run_grows_through_a_chunk_that_keeps_nothing_of_its_cell(
    operator: BlindOperator,
) -> None:
    frames = make_frames(3, 1, seed=0)
    before = operator.select(frames[:2], None, tubelet=1, cell=2).state
    after = operator.select(frames[2:], before, tubelet=1, cell=2)
    assert not after.keep.all()
    grown = torch.where(after.keep[0], 1, before.open_run + 1)
    assert torch.equal(after.state.open_run, grown)


@every
def test_its_distance_is_the_one_of_rlt(operator: BlindOperator) -> None:
    frames = make_frames(6, 2, seed=3)
    expected = RLT().select(frames, None, tubelet=2, cell=2).distance
    assert torch.equal(operator.select(frames, None, tubelet=2, cell=2).distance, expected)


@every
def test_pixels_do_not_matter(operator: BlindOperator) -> None:
    ours, others = (
        operator.select(make_frames(6, 1, seed), None, tubelet=1, cell=2) for seed in (0, 1)
    )
    assert torch.equal(ours.keep, others.keep)


@every
def test_frames_or_a_state_of_another_size_fail(operator: BlindOperator) -> None:
    frames = make_frames(2, 1, seed=0)
    with pytest.raises(ShapeError, match=rf"float32 .* {operator.name} takes uint8"):
        operator.select(frames.float(), None, tubelet=1, cell=2)
    state = operator.select(frames, None, tubelet=1, cell=2).state
    with pytest.raises(ShapeError, match="start afresh with state=None"):
        operator.select(frames[:, :2], state, tubelet=1, cell=2)
