"""Placement: jobs stay where they are, spread where they can, and never overfill a worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.core.placement import Pool, place
from streamer.workers import KINDS, Placement, WorkerKind

FULL: dict[WorkerKind, Pool] = {kind: Pool(ready=[f"{kind}-1"]) for kind in KINDS}


def captions(pool: Pool) -> dict[WorkerKind, Pool]:
    """One worker of the other kinds, with room for all."""
    return {**FULL, "caption": pool}


def jobs_of(**sizes: int) -> dict[str, str]:
    """So many jobs of each tenant: a0, a1 …, in the order of age."""
    return {f"{tenant}{n}": tenant for tenant, size in sizes.items() for n in range(size)}


def on(placed: Mapping[str, Placement]) -> dict[str, str | None]:
    return {job: placement.caption for job, placement in placed.items()}


def settle(
    jobs: Mapping[str, str], now: Mapping[str, Placement], pools: Mapping[WorkerKind, Pool]
) -> dict[str, Placement]:
    """Placed again and again until nothing moves."""
    placed = dict(now)
    for _ in range(1 + len(KINDS) * len(jobs)):
        after = place(jobs, placed, pools)
        if after == placed:
            return after
        placed = after
    raise AssertionError("jobs move for ever")


def test_a_new_job_gets_a_worker_of_each_kind() -> None:
    placed = place({"a": "ann"}, {}, FULL)
    assert placed == {
        "a": Placement(tenant="ann", decode="decode-1", tokenize="tokenize-1", caption="caption-1")
    }


def test_jobs_stay_where_they_are() -> None:
    # Given jobs that are not spread as evenly as could be
    jobs, pools = jobs_of(a=3), captions(Pool(ready=["caption-1", "caption-2"]))
    now = {
        "a0": Placement(tenant="a", caption="caption-1", paused=True, strikes=2),
        "a1": Placement(tenant="a", caption="caption-2"),
        "a2": Placement(tenant="a", caption="caption-2"),
    }
    # Then that is no reason to move one
    placed = place(jobs, now, pools)
    assert on(placed) == on(now)
    # And what else is known of them is kept
    assert (placed["a0"].paused, placed["a0"].strikes) == (True, 2)


def test_a_job_that_is_over_is_placed_no_more() -> None:
    now = {"a0": Placement(tenant="a", caption="caption-1"), "a1": Placement(tenant="a")}
    assert place({"a1": "a"}, now, FULL).keys() == {"a1"}


def test_a_new_job_goes_to_the_worker_with_the_fewest() -> None:
    jobs = jobs_of(a=6)
    pool = Pool(ready=["caption-1", "caption-2", "caption-3"])
    now = {
        job: Placement(tenant="a", caption=f"caption-{1 + n // 2}")
        for n, job in enumerate(list(jobs)[:5])
    }
    assert place(jobs, now, captions(pool))["a5"].caption == "caption-3"


def test_jobs_of_a_tenant_are_spread() -> None:
    # Given two tenants, two jobs each, that come one after another
    pool = Pool(ready=["caption-1", "caption-2"])
    placed = place(jobs_of(a=2, b=2), {}, captions(pool))
    # Then no worker has both of one
    assert placed["a0"].caption != placed["a1"].caption
    assert placed["b0"].caption != placed["b1"].caption


def test_a_lost_workers_jobs_are_spread_over_the_others() -> None:
    # Given four jobs on each of three workers
    jobs = jobs_of(a=12)
    now = {job: Placement(tenant="a", caption=f"caption-{n % 3}") for n, job in enumerate(jobs)}
    # When one is gone
    placed = on(place(jobs, now, captions(Pool(ready=["caption-0", "caption-2"]))))
    # Then only its jobs move
    assert all(placed[job] == now[job].caption for job in jobs if now[job].caption != "caption-1")
    assert Counter(placed.values()) == {"caption-0": 6, "caption-2": 6}


def test_a_full_worker_takes_no_more() -> None:
    placed = on(place(jobs_of(a=5), {}, captions(Pool(ready=["caption-1", "caption-2"], jobs=2))))
    assert Counter(placed.values()) == {"caption-1": 2, "caption-2": 2, None: 1}
    assert placed["a4"] is None  # the youngest


def test_room_that_became_less_is_respected() -> None:
    # Given four jobs on a worker that may have two from now on, and a second one with room for one
    jobs = jobs_of(a=4)
    now = {job: Placement(tenant="a", caption="caption-1") for job in jobs}
    placed = on(place(jobs, now, captions(Pool(ready=["caption-1"], jobs=2))))
    assert Counter(placed.values()) == {"caption-1": 2, None: 2}
    wider = on(place(jobs, now, captions(Pool(ready=["caption-1", "caption-2"], jobs=2))))
    assert Counter(wider.values()) == {"caption-1": 2, "caption-2": 2}


def test_tenants_take_turns_in_finding_room() -> None:
    # Given room for four, twelve jobs of one tenant, and two younger ones of another
    placed = on(place(jobs_of(a=12, b=2), {}, captions(Pool(ready=["caption-1"], jobs=4))))
    assert {job for job, name in placed.items() if name} == {"a0", "a1", "b0", "b1"}


def test_a_job_waits_for_its_worker_when_no_other_has_room() -> None:
    jobs = jobs_of(a=3)
    now = {
        "a0": Placement(tenant="a", caption="caption-1"),
        "a1": Placement(tenant="a", caption="caption-2"),
        "a2": Placement(tenant="a", caption="caption-2"),
    }
    # Given its worker is being started again, and the other has room for one
    pool = Pool(ready=["caption-1"], coming=["caption-2"], jobs=2)
    # Then one moves, and one waits
    placed = on(place(jobs, now, captions(pool)))
    assert placed == {"a0": "caption-1", "a1": "caption-1", "a2": "caption-2"}
    # And a job that never was there does not wait for it
    newer = on(place(jobs_of(a=4), now, captions(pool)))
    assert newer["a3"] is None


def test_nobody_waits_for_a_worker_that_is_not_coming_back() -> None:
    now = {"a0": Placement(tenant="a", caption="caption-2")}
    placed = on(place(jobs_of(a=1), now, captions(Pool(ready=[], coming=["caption-1"]))))
    assert placed == {"a0": None}


def test_a_new_worker_gets_one_job_at_a_time() -> None:
    # Given six jobs on one worker, and a second that has just come
    jobs, pools = jobs_of(a=6), captions(Pool(ready=["caption-1", "caption-2"]))
    placed = {job: Placement(tenant="a", caption="caption-1") for job in jobs}
    # Then one job moves at a time, until both have as many
    for moved in (1, 2, 3, 3):
        placed = place(jobs, placed, pools)
        assert Counter(on(placed).values())["caption-2"] == moved


def test_balance_moves_a_job_of_the_most_crowded_tenant() -> None:
    jobs = jobs_of(a=1, b=3, c=1)
    now = {job: Placement(tenant=tenant, caption="caption-1") for job, tenant in jobs.items()}
    pools = captions(Pool(ready=["caption-1", "caption-2"]))
    [moved] = [job for job, name in on(place(jobs, now, pools)).items() if name == "caption-2"]
    assert jobs[moved] == "b"


workers = st.lists(st.integers(1, 6), max_size=5, unique=True)


@st.composite
def situations(
    draw: st.DrawFn,
) -> tuple[dict[str, str], dict[str, Placement], dict[WorkerKind, Pool]]:
    """Jobs, some of which were placed, on workers that may be there, coming or gone."""
    jobs = {f"j{n}": tenant for n, tenant in enumerate(draw(st.text("abc", max_size=14)))}
    pools: dict[WorkerKind, Pool] = {}
    for kind in KINDS:
        numbers = draw(workers)
        ready = draw(st.integers(0, len(numbers)))
        names = [f"{kind}-{n}" for n in numbers]
        room = draw(st.integers(1, 5))
        pools[kind] = Pool(ready=sorted(names[:ready]), coming=sorted(names[ready:]), jobs=room)
    somewhere = {
        kind: st.none() | st.sampled_from([f"{kind}-{n}" for n in (1, 2, 3)]) for kind in KINDS
    }
    now = {
        job: Placement(
            tenant=tenant,
            decode=draw(somewhere["decode"]),
            tokenize=draw(somewhere["tokenize"]),
            caption=draw(somewhere["caption"]),
        )
        for job, tenant in jobs.items()
        if draw(st.booleans())
    }
    return jobs, now, pools


def carried(kind: WorkerKind, placed: Mapping[str, Placement]) -> Counter[str]:
    names: Sequence[str | None] = [placement.on(kind) for placement in placed.values()]
    return Counter(name for name in names if name)


@settings(deadline=None, max_examples=150)
@given(situations())
def test_whatever_the_situation(
    situation: tuple[dict[str, str], dict[str, Placement], dict[WorkerKind, Pool]],
) -> None:
    jobs, now, pools = situation
    placed = place(jobs, now, pools)
    assert placed.keys() == jobs.keys()
    for kind, pool in pools.items():
        loads = carried(kind, placed)
        # never on a worker that nobody knows, and never too many
        assert loads.keys() <= {*pool.ready, *pool.coming}
        assert all(load <= pool.jobs for load in loads.values())
        # only who was there waits for a worker that is coming
        waiting = [job for job, p in placed.items() if p.on(kind) in pool.coming]
        assert all(job in now and now[job].on(kind) == placed[job].on(kind) for job in waiting)
        # nobody waits, or has no place, where there is room
        if waiting or sum(loads.values()) < len(jobs):
            assert all(loads[name] == pool.jobs for name in pool.ready)
        # who could stay did, but for one that evens the loads
        fits = carried(kind, now)
        moved = [
            job
            for job, before in now.items()
            if before.on(kind) in pool.ready
            and fits[before.on(kind) or ""] <= pool.jobs
            and placed[job].on(kind) != before.on(kind)
        ]
        assert len(moved) <= 1


@settings(deadline=None, max_examples=60)
@given(situations())
def test_jobs_come_to_rest_with_even_loads(
    situation: tuple[dict[str, str], dict[str, Placement], dict[WorkerKind, Pool]],
) -> None:
    jobs, now, pools = situation
    placed = settle(jobs, now, pools)
    for kind, pool in pools.items():
        loads = [carried(kind, placed)[name] for name in pool.ready]
        assert not loads or max(loads) - min(loads) <= 1
