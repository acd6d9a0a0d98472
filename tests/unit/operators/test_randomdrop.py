from typing import Any

import pytest
import torch

from operators import BadParameter
from operators.randomdrop import RandomDrop

from .test_properties import make_frames


@pytest.mark.parametrize(
    ("keep", "kept"), [(1.0, 6), (0.75, 4), (0.5, 3), (0.34, 2), (0.1, 1), (0.001, 1)]
)
def test_every_tubelet_but_the_first_keeps_as_many_cells(keep: float, kept: int) -> None:
    selection = RandomDrop(keep=keep).select(make_frames(5, 2, seed=0), None, tubelet=2, cell=2)
    assert selection.keep.flatten(1).sum(1).tolist() == [6, kept, kept, kept, kept]


def test_tubelets_and_seeds_choose_differently_and_a_replay_alike() -> None:
    frames = torch.zeros(4, 16, 16, 3, dtype=torch.uint8)
    first = RandomDrop(seed=1).select(frames, None, tubelet=1, cell=2).keep
    assert torch.equal(RandomDrop(seed=1).select(frames, None, tubelet=1, cell=2).keep, first)
    other = RandomDrop(seed=2).select(frames, None, tubelet=1, cell=2).keep
    drawn = [first[1], first[2], first[3], other[1], other[2], other[3]]
    assert not any(torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_no_cell_is_preferred() -> None:
    frames = torch.zeros(1001, 4, 6, 3, dtype=torch.uint8)
    keep = RandomDrop(keep=0.5).select(frames, None, tubelet=1, cell=2).keep[1:]
    share = keep.float().mean(0)
    assert ((share - 0.5).abs() < 0.08).all()  # five standard deviations


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keep": 0}, r"randomdrop.keep: 0 is not a number in \(0, 1\]"),
        ({"seed": -1}, r"randomdrop.seed: -1 is not a whole number in \[0, inf\)"),
    ],
    ids=str,
)
def test_bad_settings_fail(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadParameter, match=said):
        RandomDrop(**settings)
