"""What holds for every operator of the matrix that chooses cells."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from operators import PixelOperator

from .matrix import configured, neutral
from .streams import assert_equal, tensors

PIXEL = [operator for operator in configured() if isinstance(operator, PixelOperator)]
NEUTRAL = [operator for operator in neutral() if isinstance(operator, PixelOperator)]

quick = settings(deadline=None, max_examples=25)


def make_frames(tubelets: int, tubelet: int, seed: int) -> Tensor:
    """uint8 [T, 4, 6, 3], cells of 2; about half of them repeat the frame before."""
    generator = torch.Generator().manual_seed(seed)
    shape = (tubelets * tubelet, 4, 6, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    stays = torch.rand((shape[0], 2, 3), generator=generator) < 0.7
    stays = stays.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    for t in range(1, shape[0]):
        frames[t, stays[t]] = frames[t - 1, stays[t]]
    return frames


videos = st.integers(1, 2).flatmap(
    lambda tubelet: st.tuples(
        st.just(tubelet),
        st.builds(
            make_frames,
            tubelets=st.integers(1, 6),
            tubelet=st.just(tubelet),
            seed=st.integers(0, 2**31),
        ),
    )
)


@pytest.mark.parametrize("operator", PIXEL, ids=repr)
@given(video=videos)
@quick
def test_a_first_tubelet_is_whole_and_runs_cover_the_video(
    operator: PixelOperator[object], video: tuple[int, Tensor]
) -> None:
    tubelet, frames = video
    selection = operator.select(frames, None, tubelet=tubelet, cell=2)
    assert selection.keep[0].all()
    assert (selection.run.sum(0) == len(frames) // tubelet).all()
    assert ((selection.run > 0) == selection.keep).all()


@pytest.mark.parametrize("operator", NEUTRAL, ids=repr)
@given(video=videos)
@quick
def test_neutral_settings_keep_everything(
    operator: PixelOperator[object], video: tuple[int, Tensor]
) -> None:
    tubelet, frames = video
    selection = operator.select(frames, None, tubelet=tubelet, cell=2)
    assert selection.keep.all()
    assert (selection.run == 1).all()


@pytest.mark.parametrize("operator", PIXEL, ids=repr)
def test_frames_are_untouched_and_device_and_result_stay(
    operator: PixelOperator[object], device: str
) -> None:
    frames = make_frames(4, 2, seed=0).to(device)
    before = frames.clone()
    selection = operator.select(frames, None, tubelet=2, cell=2)
    assert torch.equal(frames, before)
    assert {tensor.device for tensor in tensors(selection).values()} == {frames.device}
    assert_equal(operator.select(frames, None, tubelet=2, cell=2), selection)
    again = operator.select(frames, selection.state, tubelet=2, cell=2)
    assert_equal(operator.select(frames, selection.state, tubelet=2, cell=2), again)
