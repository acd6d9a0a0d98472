"""How many workers a pool wants: more when chunks wait, fewer when workers do, within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.core.scaling import DOWN_S, UP_S, Load, Scaler, needed
from streamer.workers import Size

WIDE = Size(min=1, max=4)


def load(workers: int, *, backlog: int = 0, busy: float | None = None, needed: int = 0) -> Load:
    """Full of work unless told otherwise."""
    return Load(
        workers=workers,
        backlog=backlog,
        busy=float(workers) if busy is None else busy,
        needed=needed,
    )


def test_a_backlog_that_lasts_brings_one_worker() -> None:
    # Given a pool whose chunks wait
    scaler, crowded = Scaler(), load(1, backlog=5)
    # When it stays so, then it grows after ten seconds and not before
    assert scaler.wanted(WIDE, crowded, 0.0) == 1
    assert scaler.wanted(WIDE, crowded, UP_S - 0.1) == 1
    assert scaler.wanted(WIDE, crowded, UP_S) == 2
    # And by no more until that worker is there
    assert scaler.wanted(WIDE, crowded, UP_S + 100) == 2
    # When it is, and chunks still wait, then by another, after another ten
    more = load(2, backlog=5)
    assert scaler.wanted(WIDE, more, 200.0) == 2
    assert scaler.wanted(WIDE, more, 200.0 + UP_S) == 3


def test_a_moment_without_backlog_starts_the_wait_again() -> None:
    scaler = Scaler()
    scaler.wanted(WIDE, load(1, backlog=5), 0.0)
    scaler.wanted(WIDE, load(1, backlog=0), 9.0)
    assert scaler.wanted(WIDE, load(1, backlog=5), 9.5) == 1
    assert scaler.wanted(WIDE, load(1, backlog=5), 19.0) == 1
    assert scaler.wanted(WIDE, load(1, backlog=5), 19.5) == 2


def test_one_waiting_chunk_a_worker_is_no_backlog() -> None:
    scaler = Scaler()
    for now in range(0, 100, 5):
        assert scaler.wanted(WIDE, load(1, backlog=1), float(now)) == 1


def test_idle_workers_leave_one_by_one() -> None:
    # Given a pool of three with hardly any work
    scaler, size = Scaler(3), WIDE
    assert scaler.wanted(size, load(3, busy=0.2), 0.0) == 3
    # When it stays so, then one leaves a minute, down to the least
    assert scaler.wanted(size, load(3, busy=0.2), DOWN_S - 1) == 3
    assert scaler.wanted(size, load(3, busy=0.2), DOWN_S) == 2
    assert scaler.wanted(size, load(2, busy=0.2), DOWN_S + 1) == 2
    assert scaler.wanted(size, load(2, busy=0.2), 2 * DOWN_S + 1) == 1
    for later in range(10):
        assert scaler.wanted(size, load(1, busy=0.0), (3 + later) * DOWN_S) == 1


def test_workers_that_the_others_could_not_replace_stay() -> None:
    scaler = Scaler(3)
    for now in range(0, 1000, 10):
        assert scaler.wanted(WIDE, load(3, busy=1.3), float(now)) == 3


def test_a_pool_may_shrink_to_nothing() -> None:
    scaler, size = Scaler(), Size(min=0, max=2)
    assert scaler.wanted(size, load(0), 0.0) == 0
    # A job needs a worker, and keeps it however little there is to do
    for now in (1.0, 2.0, 2.0 + DOWN_S, 2.0 + 3 * DOWN_S):
        assert scaler.wanted(size, load(1, busy=0.0, needed=1), now) == 1
    # When it ended, the last worker leaves
    assert scaler.wanted(size, load(1, busy=0.0), 1000.0) == 1
    assert scaler.wanted(size, load(1, busy=0.0), 1000.0 + DOWN_S) == 0


@pytest.mark.parametrize(
    ("size", "wanted"),
    [(Size(min=1, max=8), 3), (Size(min=1, max=2), 2), (Size(min=5, max=8), 5)],
    ids=["needed", "max", "min"],
)
def test_every_job_has_a_place_within_the_bounds(size: Size, wanted: int) -> None:
    assert Scaler().wanted(size, load(1, needed=3), 0.0) == wanted


def test_new_bounds_hold_at_once() -> None:
    scaler = Scaler()
    assert scaler.wanted(Size(min=3, max=4), load(3), 0.0) == 3
    assert scaler.wanted(Size(min=1, max=2), load(3), 0.1) == 2
    assert scaler.wanted(Size(min=1, max=4), load(2), 0.2) == 2


def test_a_scaler_goes_on_from_the_workers_there_are() -> None:
    assert Scaler(3).wanted(WIDE, load(3), 0.0) == 3
    assert Scaler(9).wanted(WIDE, load(9), 0.0) == 4


@pytest.mark.parametrize(
    ("jobs", "per_worker", "workers"), [(0, 16, 0), (1, 16, 1), (16, 16, 1), (17, 16, 2), (3, 1, 3)]
)
def test_needed(jobs: int, per_worker: int, workers: int) -> None:
    assert needed(jobs, per_worker) == workers


loads = st.builds(
    Load,
    workers=st.integers(0, 9),
    backlog=st.integers(0, 40),
    busy=st.floats(0, 9),
    needed=st.integers(0, 9),
)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 4),
    st.integers(1, 4),
    st.lists(st.tuples(loads, st.floats(0, 90)), min_size=1, max_size=30),
)
def test_what_is_wanted_is_always_within_the_bounds(
    least: int, more: int, moments: list[tuple[Load, float]]
) -> None:
    size, scaler, now, before = Size(min=least, max=least + more), Scaler(), 0.0, None
    for at, seconds in moments:
        now += seconds
        wanted = scaler.wanted(size, at, now)
        assert size.min <= wanted <= size.max
        assert wanted >= min(at.needed, size.max)
        if before is not None:  # one at a time, but for what the jobs need
            assert before - 1 <= wanted <= max(before + 1, at.needed)
        before = wanted
