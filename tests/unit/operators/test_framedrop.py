from typing import Any

import pytest

from operators import BadParameter
from operators.framedrop import FrameDrop

from .test_properties import make_frames


def test_every_third_tubelet_is_whole_and_its_tokens_last_until_the_next() -> None:
    selection = FrameDrop(every=3).select(make_frames(8, 2, seed=0), None, tubelet=2, cell=2)
    expected = [6, 0, 0, 6, 0, 0, 6, 0]
    assert selection.keep.flatten(1).sum(1).tolist() == expected
    assert selection.run[:, 0, 0].tolist() == [3, 0, 0, 3, 0, 0, 2, 0]


def test_tubelets_are_counted_across_chunks_from_where_the_state_began() -> None:
    operator = FrameDrop(every=3)
    frames = make_frames(2, 1, seed=0)
    state, kept = None, []
    for _ in range(4):
        selection = operator.select(frames, state, tubelet=1, cell=2)
        state = selection.state
        kept += selection.keep[:, 0, 0].int().tolist()
    assert kept == [1, 0, 0, 1, 0, 0, 1, 0]
    afresh = operator.select(frames, None, tubelet=1, cell=2)
    assert afresh.keep[:, 0, 0].int().tolist() == [1, 0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"every": 0}, r"framedrop.every: 0 is not a whole number in \[1, inf\)"),
        ({"every": 1.5}, "framedrop.every: 1.5 is not a whole number"),
    ],
    ids=str,
)
def test_bad_settings_fail(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadParameter, match=said):
        FrameDrop(**settings)
