"""The controller: keeps the pools at their size, replaces workers, gives every job its workers.

What it decides lies in the roster; it can be started anew anytime, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from streamer.adapters.clock import Clock
from streamer.adapters.queue import Queue
from streamer.adapters.roster import Roster
from streamer.config import PoolSettings, Settings
from streamer.core.placement import Pool, place
from streamer.core.scaling import Load, Scaler, needed
from streamer.errors import StreamGone
from streamer.workers import (
    CONTROLLER,
    KINDS,
    Placement,
    Size,
    WorkerKind,
    WorkerReport,
    kind_of,
)

STEP_S = 0.25
RETIRE_S = 5.0
"""How long a worker that lost its jobs to others may take to let go of them."""
FORGET_S = 600.0
"""After so long without another one a live job's strikes are forgotten."""
LATE_S = 2.0
"""A step so long after the one before waited for Redis, and so did whoever wanted to report."""

log = structlog.get_logger(__name__)


class Fleet(Protocol):
    """The workers' processes."""

    def names(self) -> set[str]:
        """Workers that live, are being started or will be started again."""
        ...

    def start(self, name: str) -> None:
        """Its name says its kind."""
        ...

    def restart(self, name: str) -> None:
        """Kills it; it comes back under the same name."""
        ...

    def stop(self, name: str) -> None: ...


@dataclass(slots=True)
class _Watched:
    """What is known of one worker."""

    kind: WorkerKind
    since: float
    """When it was started, or gave its last sign of life."""
    boot: str = ""
    beat: int = 0
    heard: bool = False
    """Whether it spoke since it was last started."""
    retiring_since: float | None = None
    worked_s: float = 0.0
    """In work since its boot, when it gave its last sign of life."""
    busy: float = 0.0
    """Share of its time in work, 0 to 1, between its last two signs of life."""


class Controller:
    """One step after another; every decision is made anew from the roster and the queue."""

    def __init__(
        self, settings: Settings, queue: Queue, roster: Roster, fleet: Fleet, clock: Clock
    ) -> None:
        self.settings = settings
        self.queue = queue
        self.roster = roster
        self.fleet = fleet
        self.clock = clock
        self.watched: dict[str, _Watched] = {}
        self.scalers: dict[WorkerKind, Scaler] = {}
        self.struck: dict[str, float] = {}
        """When a job last lost a worker."""
        self.heard_at = clock.monotonic()
        """When Redis last told of the workers."""

    def step(self) -> None:
        """Looks at everything once, and sets right what is not as it should be."""
        reports = self.roster.reports()
        now = self.clock.monotonic()
        self._excuse(now)
        sizes = self._sizes()
        names = self.fleet.names()
        self._meet(names, reports, now)
        placed = self.roster.placements()
        lost = self._watch(reports, now)
        active = self.queue.active()
        records = self.queue.records(active)
        jobs = {job: active[job] for job in sorted(records, key=lambda j: _age(records[j], j))}
        there = {job: p for job, p in placed.items() if job in jobs and _same(p, records[job])}
        live = {job for job in there if records[job].get("live")}
        kept = self._strike(self._forgive(there), lost, live)
        wanted = self._wanted(sizes, reports, placed, len(jobs), now)
        pools = {kind: self._pool(kind, wanted[kind], reports, kept) for kind in KINDS}
        target = {
            job: replace(
                placement,
                created_at=_created_at(records[job]),
                paused=bool(records[job].get("paused")),
                keyframes=_keyframes(records[job]),
            )
            for job, placement in place(jobs, kept, pools).items()
        }
        self._start_jobs(records, target)
        self._write(placed, target)
        self._fill(wanted, pools, now)
        self._retire(target, reports, now)
        self._publish(sizes)

    def _excuse(self, now: float) -> None:
        """Does not count as silence what Redis could not tell."""
        late_s, self.heard_at = now - self.heard_at, now
        if late_s > LATE_S:
            for watched in self.watched.values():
                watched.since += late_s

    def _sizes(self) -> dict[WorkerKind, Size]:
        given = self.roster.sizes()
        return {
            kind: given.get(kind, Size(min=self._pool_of(kind).min, max=self._pool_of(kind).max))
            for kind in KINDS
        }

    def _pool_of(self, kind: WorkerKind) -> PoolSettings:
        settings: PoolSettings = getattr(self.settings.pools, kind)
        return settings

    def _meet(self, names: set[str], reports: Mapping[str, WorkerReport], now: float) -> None:
        """Gets to know workers that an earlier controller started; forgets those that are gone."""
        for name in names - self.watched.keys():
            kind = kind_of(name)
            if kind is not None:
                self.watched[name] = _Watched(kind=kind, since=now)
        for name in self.watched.keys() - names:
            del self.watched[name]
        for name in reports.keys() - names - {CONTROLLER}:
            self.roster.forget(name)

    def _watch(self, reports: Mapping[str, WorkerReport], now: float) -> set[str]:
        """Listens for signs of life; restarts who gave none. Returns who was lost with its jobs."""
        lost = set()
        limits = self.settings.workers
        for name, watched in self.watched.items():
            report = reports.get(name)
            new = report and (report.boot, report.beat) != (watched.boot, watched.beat)
            same = report is not None and report.boot == watched.boot
            if report and new and (watched.heard or not same):  # not the last word of one given up
                if watched.heard and not same:
                    lost.add(name)
                    log.warning("worker_restarted", worker=name, node=report.node)
                worked_s = report.busy_s + report.step_s
                more_s = worked_s - watched.worked_s if same else 0.0
                watched.busy = min(1.0, max(0.0, more_s) / max(1e-3, now - watched.since))
                watched.worked_s = worked_s
                watched.boot, watched.beat = report.boot, report.beat
                watched.since, watched.heard = now, True
            silent_s = now - watched.since
            limit_s = limits.silent_s if watched.heard else limits.starting_s
            step_s = report.step_s if report and watched.heard else 0.0
            if silent_s > limit_s or step_s > limits.step_s:
                log.warning("worker_hung", worker=name, silent_s=silent_s, step_s=step_s)
                self.fleet.restart(name)
                if watched.heard:
                    lost.add(name)
                watched.since, watched.heard = now, False
        return lost

    def _strike(
        self, placed: Mapping[str, Placement], lost: set[str], live: set[str]
    ) -> dict[str, Placement]:
        """Counts a lost worker against its jobs, unless they came further since the last one.

        A live source is read for ever: its decode worker does not count. While its source is silent
        a live job does not come further, so its strikes are forgotten after a while.
        """
        kept = dict(placed)
        now = self.clock.monotonic()
        self.struck = {job: at for job, at in self.struck.items() if now - at < FORGET_S}
        for job, placement in placed.items():
            if job in live and placement.strikes and job not in self.struck:
                kept[job] = placement = replace(placement, strikes=0)
            carriers = {placement.tokenize, placement.caption}
            if not lost & (carriers if job in live else {*carriers, placement.decode}):
                continue
            self.struck[job] = now
            with suppress(StreamGone):
                kept[job] = self._struck(job, placement, self.queue.last(job, "events"))
        return kept

    def _forgive(self, placed: Mapping[str, Placement]) -> dict[str, Placement]:
        """A job that came further since its workers were lost was not the reason."""
        kept = dict(placed)
        for job, placement in placed.items():
            with suppress(StreamGone):
                if placement.strikes and self.queue.last(job, "events") > placement.struck_at:
                    kept[job] = replace(placement, strikes=0)
        return kept

    def _struck(self, job: str, placement: Placement, said: int) -> Placement:
        strikes = placement.strikes + 1 if placement.struck_at == said else 1
        if strikes >= self.settings.workers.strikes:
            reason = f"{strikes} workers were lost at chunk {said + 1}, one after the other"
            log.error("job_failed", job=job, reason=reason)
            fields = {"state": "failed", "error": reason, "ended_at": f"{self.clock.now():.3f}"}
            self.queue.finish_job(job, fields)
        return replace(placement, strikes=strikes, struck_at=said)

    def _wanted(
        self,
        sizes: Mapping[WorkerKind, Size],
        reports: Mapping[str, WorkerReport],
        placed: Mapping[str, Placement],
        jobs: int,
        now: float,
    ) -> dict[WorkerKind, int]:
        wanted = {}
        for kind in KINDS:
            ready = self._ready(kind, reports)
            load = Load(
                workers=len(ready),
                backlog=sum(reports[name].backlog for name in ready),
                busy=sum(self.watched[name].busy for name in ready),
                needed=needed(jobs, self._pool_of(kind).jobs),
            )
            if kind not in self.scalers:  # an earlier controller may have had more than the least
                carrying = {placement.on(kind) for placement in placed.values()}
                self.scalers[kind] = Scaler(len(carrying & self.watched.keys()))
            wanted[kind] = self.scalers[kind].wanted(sizes[kind], load, now)
        return wanted

    def _ready(self, kind: WorkerKind, reports: Mapping[str, WorkerReport]) -> list[str]:
        """Workers of a kind that can work now, in their numbers' order."""
        return sorted(
            (
                name
                for name, watched in self.watched.items()
                if watched.kind == kind
                and watched.heard
                and name in reports
                and reports[name].state == "ready"
                and reports[name].boot == watched.boot
            ),
            key=_number_of,
        )

    def _pool(
        self,
        kind: WorkerKind,
        wanted: int,
        reports: Mapping[str, WorkerReport],
        placed: Mapping[str, Placement],
    ) -> Pool:
        """As many as are wanted of those that can work; the rest are spares or leave."""
        ready = self._ready(kind, reports)
        carrying = {placement.on(kind) for placement in placed.values()}
        chosen = sorted(ready, key=lambda name: (name not in carrying, _number_of(name)))[:wanted]
        coming = [
            name
            for name, watched in self.watched.items()
            if watched.kind == kind and name not in ready and watched.retiring_since is None
        ]
        return Pool(ready=chosen, coming=coming, jobs=self._pool_of(kind).jobs)

    def _write(self, placed: Mapping[str, Placement], target: Mapping[str, Placement]) -> None:
        changes: dict[str, Placement | None] = dict.fromkeys(placed.keys() - target.keys())
        for job, placement in target.items():
            if placed.get(job) != placement:
                changes[job] = placement
        if changes:
            self.roster.place(changes)
        for job in changes.keys() & target.keys():
            at = {kind: target[job].on(kind) for kind in KINDS}
            if any(at.values()):
                log.info("job_placed", job=job, **at)

    def _start_jobs(
        self, records: Mapping[str, Mapping[str, str]], target: Mapping[str, Placement]
    ) -> None:
        for job, placement in target.items():
            carried = placement.decode and placement.tokenize and placement.caption
            if carried and records[job].get("state") == "queued":
                self.queue.update_job(job, {"state": "running"})

    def _fill(
        self, wanted: Mapping[WorkerKind, int], pools: Mapping[WorkerKind, Pool], now: float
    ) -> None:
        """Starts workers that are missing, and lets the surplus retire."""
        for kind in KINDS:
            there = sorted(
                (name for name, watched in self.watched.items() if watched.kind == kind),
                key=lambda name: (name not in pools[kind].ready, _number_of(name)),
            )
            target = wanted[kind] + self._pool_of(kind).spares
            for name in there[target:]:
                if self.watched[name].retiring_since is None:
                    self.watched[name].retiring_since = now
            for name in there[:target]:
                self.watched[name].retiring_since = None
            free = (f"{kind}-{n}" for n in range(1, target + len(there) + 1))
            missing = [name for name in free if name not in self.watched]
            for name in missing[: max(0, target - len(there))]:
                log.info("worker_started", worker=name)
                self.fleet.start(name)
                self.watched[name] = _Watched(kind=kind, since=now)

    def _retire(
        self,
        target: Mapping[str, Placement],
        reports: Mapping[str, WorkerReport],
        now: float,
    ) -> None:
        for name, watched in list(self.watched.items()):
            since = watched.retiring_since
            if since is None or any(p.on(watched.kind) == name for p in target.values()):
                continue
            report = reports.get(name)
            if report is None or not report.jobs or now - since > RETIRE_S:
                log.info("worker_stopped", worker=name)
                self.fleet.stop(name)
                self.roster.forget(name)
                del self.watched[name]

    def _publish(self, sizes: Mapping[WorkerKind, Size]) -> None:
        capacity = str(min(sizes[kind].max * self._pool_of(kind).jobs for kind in KINDS))
        if self.roster.published("capacity") != capacity:
            self.roster.publish("capacity", capacity)


def _number_of(name: str) -> int:
    return int(name.rpartition("-")[2])


def _age(record: Mapping[str, str], job: str) -> tuple[float, str]:
    return _created_at(record), job


def _created_at(record: Mapping[str, str]) -> float:
    with suppress(ValueError):  # who opens the job will say so
        return float(record.get("created_at", 0))
    return 0.0


def _keyframes(record: Mapping[str, str]) -> int:
    """How often an I-chunk was asked for."""
    with suppress(ValueError):  # whoever asks again will set it right
        return int(record.get("keyframes", 0))
    return 0


def _same(placement: Placement, record: Mapping[str, str]) -> bool:
    """Whether it was placed for this job, not for one of the same id that was deleted."""
    return placement.created_at == _created_at(record)
