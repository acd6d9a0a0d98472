"""Turns: nobody starves, tenants are equals, and a single one gets all there is."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.core.turns import Turns

quick = settings(deadline=None, max_examples=60)


def jobs_of(sizes: list[int]) -> dict[str, str]:
    """So many jobs of each tenant."""
    return {f"{tenant}-{n}": f"t{tenant}" for tenant, size in enumerate(sizes) for n in range(size)}


sizes = st.lists(st.integers(1, 6), min_size=1, max_size=4)


def test_two_tenants_take_turns_however_many_jobs_each_has() -> None:
    # Given twelve cameras of one tenant, and one of another
    ready = {f"a{n:02}": "many" for n in range(12)} | {"b": "one"}
    turns = Turns()
    # When a worker takes one chunk after another
    picked = [job for _ in range(24) for job in turns.pick(ready, most=1)]
    # Then each tenant has every second turn, and the cameras of the first take theirs in order
    assert [ready[job] for job in picked] == ["many", "one"] * 12
    assert picked[::2] == [f"a{n:02}" for n in range(12)]


def test_a_batch_holds_as_many_of_each_tenant() -> None:
    ready = jobs_of([12, 2])
    picked = Turns().pick(ready, most=8)
    assert Counter(ready[job] for job in picked) == {"t0": 2, "t1": 2}


@pytest.mark.parametrize("most", [1, 3, 8, 12, 40])
def test_one_tenant_gets_the_whole_batch(most: int) -> None:
    ready = jobs_of([12])
    assert len(Turns().pick(ready, most=most)) == min(most, 12)


@pytest.mark.parametrize(("most", "part"), [(8, 2), (16, 4), (3, 1), (1, 1)])
def test_room_is_left_for_a_tenant_that_is_about_to_come(most: int, part: int) -> None:
    # Given a tenant whose jobs are all ready, and another whose job is not, for the moment
    turns, ready = Turns(), jobs_of([20])
    turns.keep(ready | {"b": "other"})
    # Then only a small part is taken, so that the other does not wait long
    assert len(turns.pick(ready, most)) == part
    # When it comes, then both have as much
    assert sorted(turns.pick(ready | {"b": "other"}, 2))[-1] == "b"
    # When it is gone, then the first has all there is
    turns.keep(ready)
    assert len(turns.pick(ready, most)) == most


@pytest.mark.parametrize(
    ("ready", "active", "most", "picked"),
    [
        pytest.param({"a1": "A", "b": "B"}, {"a0": "A"}, 8, ["b"], id="who_has_less"),
        pytest.param({"a2": "A", "b1": "B"}, {"a0": "A", "a1": "A"}, 8, ["b1"], id="much_less"),
        pytest.param({"a1": "A"}, {"a0": "A", "b": "B"}, 8, [], id="as_much_is_enough"),
        pytest.param({"a1": "A", "a2": "A"}, {"a0": "A"}, 8, ["a1", "a2"], id="alone"),
        pytest.param({"a1": "A", "a2": "A"}, {"a0": "A"}, 2, ["a1"], id="up_to_most"),
        pytest.param({"b": "B"}, {"a0": "A", "a1": "A"}, 2, [], id="full"),
    ],
)
def test_who_joins_those_at_work(
    ready: dict[str, str], active: dict[str, str], most: int, picked: list[str]
) -> None:
    assert Turns().pick(ready, most, active=active) == picked


def test_nobody_is_picked_where_nobody_is_ready() -> None:
    assert Turns().pick({}, most=8) == []


def test_a_job_that_was_not_ready_comes_first_when_it_is() -> None:
    turns, ready = Turns(), jobs_of([3])
    for _ in range(3):
        turns.pick({"0-0": "t0", "0-1": "t0"}, most=1)
    assert turns.pick(ready, most=1) == ["0-2"]


def test_who_left_is_forgotten() -> None:
    # Given a job that was served and left
    turns = Turns()
    turns.pick({"a": "t"}, most=1)
    turns.pick({"b": "t"}, most=1)
    turns.keep({"b": "t"})
    # Then it is a new one when it comes back
    assert turns.pick({"a": "t", "b": "t"}, most=1) == ["a"]
    turns.keep({})
    assert turns.pick({"x": "z", "b": "t"}, most=1) == ["b"]  # no tenant is remembered either


@quick
@given(sizes, st.integers(1, 8), st.integers(0, 3), st.integers(1, 20))
def test_what_is_picked_is_ready_and_once(
    sizes: list[int], most: int, absent: int, rounds: int
) -> None:
    turns, ready = Turns(), jobs_of(sizes)
    turns.keep(jobs_of([*sizes, *[1] * absent]))
    for _ in range(rounds):
        picked = turns.pick(ready, most)
        assert 1 <= len(picked) <= most
        assert len(set(picked)) == len(picked)
        assert set(picked) <= ready.keys()


@quick
@given(sizes, st.integers(1, 8), st.data())
def test_a_ready_job_waits_no_longer_than_its_bound(
    sizes: list[int], most: int, data: st.DataObject
) -> None:
    """Others may be ready or not as they like: each tenant is served at most once before one that
    waits, and so is each job of a tenant."""
    # Given a job that is always ready
    everybody = jobs_of(sizes)
    job = data.draw(st.sampled_from(sorted(everybody)))
    bound = len(sizes) * sizes[int(job.partition("-")[0])]
    turns = Turns()
    turns.keep(everybody)
    waited = 0
    # When others come and go, then it is served again and again
    for _ in range(3 * bound):
        others = data.draw(st.sets(st.sampled_from(sorted(everybody))))
        ready = {name: everybody[name] for name in {*others, job}}
        waited = 0 if job in turns.pick(ready, most) else waited + 1
        assert waited < bound


@quick
@given(sizes, st.integers(1, 8))
def test_tenants_that_are_always_ready_are_equals(sizes: list[int], most: int) -> None:
    turns, ready = Turns(), jobs_of(sizes)
    served: Counter[str] = Counter(dict.fromkeys(ready.values(), 0))
    for _ in range(30):
        served.update(ready[job] for job in turns.pick(ready, most))
        assert max(served.values()) - min(served.values()) <= 1


@quick
@given(sizes, st.integers(1, 8))
def test_jobs_of_a_tenant_are_equals(sizes: list[int], most: int) -> None:
    turns, ready = Turns(), jobs_of(sizes)
    served = Counter(chain.from_iterable(turns.pick(ready, most) for _ in range(30)))
    for tenant in set(ready.values()):
        of_tenant = [served[job] for job in ready if ready[job] == tenant]
        assert max(of_tenant) - min(of_tenant) <= 1


@quick
@given(sizes, st.integers(1, 6), st.data())
def test_whoever_waits_joins_when_others_end(
    sizes: list[int], most: int, data: st.DataObject
) -> None:
    """Chunks end in any order, though none lasts for ever; and so no job waits for ever."""
    # Given jobs that are always ready, and at work one after another
    jobs = jobs_of(sizes)
    turns = Turns()
    turns.keep(jobs)
    active: dict[str, str] = {}
    began = dict.fromkeys(jobs, 0)
    bound = (most + 1) * len(sizes) * max(sizes)
    for now in range(2 * bound):
        # When one of those at work ends at a time
        ready = {job: tenant for job, tenant in jobs.items() if job not in active}
        for job in turns.pick(ready, most, active=active):
            active[job] = jobs[job]
            began[job] = now
        # Then there is always somebody at work, and nobody who waited too long
        assert 1 <= len(active) <= most
        assert all(now - began[job] <= bound for job in jobs)
        oldest = min(active, key=lambda job: began[job])
        late = now - began[oldest] >= most
        del active[oldest if late else data.draw(st.sampled_from(sorted(active)))]
