"""When a chunk must be an I-chunk."""

from __future__ import annotations

import pytest

from streamer.core.keyframes import Group, KeyframePolicy, keyframe_reason

GRID = (4, 5)
POLICY = KeyframePolicy(interval_s=8.0, budget=3.0, cut_share=0.8)


def reason(group: Group | None, *, t1: float = 4.0, grid: tuple[int, int] = GRID) -> str | None:
    return keyframe_reason(POLICY, group, t1=t1, tubelets=1, grid=grid)


def test_the_first_chunk_is_one() -> None:
    assert reason(None) == "first"


def test_a_group_goes_on_within_its_limits() -> None:
    assert reason(Group(started_s=0.0, grid=GRID, tokens=40), t1=8.0) is None


@pytest.mark.parametrize(
    ("group", "t1", "grid", "expected"),
    [
        (Group(started_s=0.0, grid=GRID), 8.5, GRID, "interval"),
        (Group(started_s=0.0, grid=GRID, tokens=41), 4.0, GRID, "budget"),
        (Group(started_s=0.0, grid=GRID), 4.0, (5, 4), "resize"),
        (Group(started_s=0.0, grid=GRID, ended="gap"), 4.0, GRID, "gap"),
    ],
)
def test_every_limit_ends_a_group(
    group: Group, t1: float, grid: tuple[int, int], expected: str
) -> None:
    assert reason(group, t1=t1, grid=grid) == expected


def test_the_chunk_after_a_cut_starts_a_group() -> None:
    group = Group(started_s=0.0, grid=GRID, tokens=20)
    calm = group.grown(tokens=3, largest_change=0.8, policy=POLICY)
    assert (calm.tokens, reason(calm)) == (23, None)
    assert reason(calm.grown(tokens=3, largest_change=0.81, policy=POLICY)) == "cut"


@pytest.mark.parametrize(
    "setting",
    [{"interval_s": 0.0}, {"interval_s": float("nan")}, {"budget": 0.5}, {"cut_share": 1.5}],
)
def test_impossible_limits_are_refused_by_name(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        KeyframePolicy(**setting)
