"""Which workers carry which job: as few moves as possible, even loads, every tenant spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from streamer.workers import KINDS, Placement, WorkerKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The workers of one kind at this moment."""

    ready: Sequence[str]
    """That may be given jobs."""
    coming: Sequence[str] = ()
    """That are being started again, and may keep the jobs they had."""
    jobs: int = 16
    """Most jobs of one worker."""


def place(
    jobs: Mapping[str, str],
    now: Mapping[str, Placement],
    pools: Mapping[WorkerKind, Pool],
) -> dict[str, Placement]:
    """The placements of `jobs` (id → tenant, oldest first), as near to `now` as may be.

    A job whose worker is gone moves to the one with the fewest jobs, among equals to the one with
    the fewest of its tenant; where no other has room it waits for a worker that is coming back.
    Then at most one job a kind moves for the sake of balance. What finds no room gets no worker;
    tenants take turns in finding it.
    """
    placed = {job: now.get(job, Placement(tenant=tenant)) for job, tenant in jobs.items()}
    order = _by_turns(jobs)
    for kind in KINDS:
        pool = pools[kind]
        chosen = _choose(order, jobs, {job: placed[job].on(kind) for job in order}, pool)
        _balance(chosen, jobs, pool)
        for job in order:
            placed[job] = placed[job].moved(kind, chosen[job])
    return placed


def _choose(
    order: Sequence[str],
    jobs: Mapping[str, str],
    present: dict[str, str | None],
    pool: Pool,
) -> dict[str, str | None]:
    chosen: dict[str, str | None] = dict.fromkeys(order)
    loads: Counter[str] = Counter()

    def settle(job: str, name: str) -> None:
        loads[name] += 1
        chosen[job] = name

    for job in order:
        there = present[job]
        if there and there in pool.ready and loads[there] < pool.jobs:
            settle(job, there)
    for job in order:
        if chosen[job]:
            continue
        there = present[job]
        free = [name for name in pool.ready if loads[name] < pool.jobs]
        if free:
            tenant = jobs[job]
            mates = Counter(name for other, name in chosen.items() if jobs[other] == tenant)
            settle(job, min(free, key=lambda name: (loads[name], mates[name], name)))
        elif there and there in pool.coming and loads[there] < pool.jobs:
            settle(job, there)
    return chosen


def _balance(chosen: dict[str, str | None], jobs: Mapping[str, str], pool: Pool) -> None:
    """Moves one job from the fullest worker to the emptiest, if that evens them."""
    loads = Counter(dict.fromkeys(pool.ready, 0))
    loads.update(name for name in chosen.values() if name and name in loads)
    if len(loads) < 2:
        return
    fullest = max(loads, key=lambda name: (loads[name], name))
    emptiest = min(loads, key=lambda name: (loads[name], name))
    if loads[fullest] - loads[emptiest] < 2:
        return
    there = [job for job, name in chosen.items() if name == fullest]
    crowd = Counter(jobs[job] for job in there)
    chosen[max(there, key=lambda job: (crowd[jobs[job]], job))] = emptiest


def _by_turns(jobs: Mapping[str, str]) -> list[str]:
    """Every tenant's first job, then every tenant's second …"""
    nth: dict[str, count[int]] = {}
    turn = {job: next(nth.setdefault(tenant, count())) for job, tenant in jobs.items()}
    return sorted(jobs, key=lambda job: turn[job])
