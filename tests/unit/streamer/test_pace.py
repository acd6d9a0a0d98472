"""How far a live job that is behind is thinned out, and what waits for its captions."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.core.backlog import Backlog
from streamer.core.pace import CALM_S, FULL, STARTS, Pace


def levels(shares: Iterable[tuple[float, float]], pace: Pace | None = None) -> list[int]:
    """The level after each (time, share)."""
    pace, found = pace or Pace(), []
    for now, share in shares:
        pace = pace.after(share, now=now)
        found.append(pace.level)
    return found


@pytest.mark.parametrize(
    ("share", "level"), [(0.0, 0), (0.24, 0), (0.25, 1), (0.49, 1), (0.5, 2), (0.99, 2), (1.0, 3)]
)
def test_a_level_begins_at_its_share(share: float, level: int) -> None:
    assert levels([(0.0, share)]) == [level]


def test_it_goes_down_one_by_one_when_well_below_for_a_while() -> None:
    # Given level 2, which begins at a half
    pace = Pace().after(0.6, now=0.0)
    # Then below a half, but not below a quarter, nothing changes, however long
    assert levels([(1.0, 0.3), (60.0, 0.26)], pace) == [2, 2]
    # And below a quarter it takes its time, for every level
    assert levels([(1.0, 0.2), (2.9, 0.2), (3.0, 0.1), (4.9, 0.1), (5.0, 0.1)], pace) == [
        *(2, 2, 1, 1, 0)
    ]


def test_what_is_calm_for_a_moment_only_stays() -> None:
    pace = Pace().after(0.6, now=0.0)
    assert levels([(1.0, 0.1), (2.0, 0.4), (3.0, 0.1), (4.0, 0.1), (5.0, 0.1)], pace) == [
        *(2, 2, 2, 2, 1)
    ]


def test_skipping_ends_at_the_present() -> None:
    pace = Pace().after(1.5, now=0.0)
    assert levels([(9.0, 0.9), (10.0, 0.25), (10.1, 0.24), (10.2, 0.3)], pace) == [3, 3, 0, 1]


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60))
def test_it_is_never_below_what_is_due_and_goes_down_slowly(shares: list[float]) -> None:
    found = levels((0.5 * n, share) for n, share in enumerate(shares))
    for (before, after), share in zip(pairwise([0, *found]), shares, strict=True):
        due = sum(share >= start for start in STARTS)
        assert after >= due or before == 3
        assert after >= before - 1 or (before == 3 and share < STARTS[0])
    # no two steps down within CALM_S
    downs = [0.5 * n for n, (a, b) in enumerate(pairwise(found)) if b < a < 3]
    assert all(later - earlier >= CALM_S for earlier, later in pairwise(downs))


def test_what_is_left_out_grows_with_the_level() -> None:
    thinned = [Pace(level=level).thinning for level in range(4)]
    assert thinned[0] == FULL
    assert [t.threshold for t in thinned[:3]] == [1, 2, 2]
    assert [t.every for t in thinned[:3]] == [1, 1, 2]
    assert [Pace(level=level).skipping for level in range(4)] == [False, False, False, True]


def test_a_backlog_is_what_was_not_captioned() -> None:
    backlog = Backlog()
    for number in range(1, 5):
        backlog.add(number, seconds=0.1, size=number)
    assert backlog.seconds == pytest.approx(0.4)
    assert backlog.size == 10
    backlog.captioned(2)
    backlog.captioned(1)  # an answer that came late
    assert backlog.seconds == pytest.approx(0.2)
    assert backlog.size == 7
    backlog.captioned(9)
    assert (backlog.seconds, backlog.size) == (0.0, 0)
