"""A worker's life in its process: it gives signs of life, takes the jobs it is given, and works."""

from __future__ import annotations

import os
import resource
import threading
import uuid
from pathlib import Path
from typing import Any, Literal, Protocol

import structlog

from streamer.actors.meter import Meter
from streamer.actors.worker import JobWorker
from streamer.adapters.clock import Clock
from streamer.adapters.roster import Roster
from streamer.errors import QueueError
from streamer.workers import Progress, WorkerKind, WorkerReport

BEAT_S = 1.0
TAKE_S = 0.25
"""How often a worker looks which jobs it has."""

log = structlog.get_logger(__name__)


class Serving(Protocol):
    """A worker that does not take jobs by itself, but is called for them."""

    @property
    def meter(self) -> Meter: ...

    @property
    def backlog(self) -> int: ...

    @property
    def progress(self) -> dict[str, Progress]: ...


class Life:
    """Reports from its first moment on; what `live` is given does the work."""

    def __init__(self, name: str, kind: str, roster: Roster, clock: Clock, *, node: str) -> None:
        self.name = name
        self.kind = kind
        self.roster = roster
        self.clock = clock
        self.node = node
        self.boot = uuid.uuid4().hex[:12]
        self.beat = 0
        self.meter = Meter(clock)
        self.worker: JobWorker[Any] | None = None
        self.served: Serving | None = None
        self.state: Literal["starting", "ready"] = "starting"
        self.error: str | None = None

    def start_reporting(self) -> None:
        """A sign of life every second, from a thread of its own."""
        threading.Thread(target=self._report_forever, name="life", daemon=True).start()

    def report(self) -> WorkerReport:
        """The next sign of life."""
        self.beat += 1
        at_work = self.worker or self.served
        meter = at_work.meter if at_work else self.meter
        return WorkerReport(
            name=self.name,
            kind=self.kind,
            boot=self.boot,
            beat=self.beat,
            state=self.state,
            error=self.error,
            node=self.node,
            pid=os.getpid(),
            rss_bytes=_rss_bytes(),
            backlog=at_work.backlog if at_work else 0,
            busy_s=round(meter.busy_s, 3),
            step_s=round(meter.step_s, 3),
            chunks=meter.chunks,
            latency_s=round(meter.latency_s, 6),
            latencies=tuple(meter.latencies),
            batch=round(meter.sizes / meter.steps, 3) if meter.steps else 0.0,
            jobs=self.progress(),
        )

    def progress(self) -> dict[str, Progress]:
        """Of the jobs in its hands."""
        at_work = self.worker or self.served
        return at_work.progress if at_work else {}

    def serve(self, served: Serving) -> None:
        """From now on it is called by others, and says what for."""
        self.served = served
        self.state = "ready"

    def live(self, kind: WorkerKind, worker: JobWorker[Any]) -> None:
        """Works for ever."""
        self.worker = worker
        self.state = "ready"
        taken_at: float | None = None
        while True:
            now = self.clock.monotonic()
            try:
                if taken_at is None or now - taken_at >= TAKE_S:
                    taken_at = now
                    self._take(kind, worker)
                worker.work()
            except QueueError as exc:
                log.warning("queue_lost", worker=self.name, reason=str(exc))
                self.clock.sleep(BEAT_S)

    def _take(self, kind: WorkerKind, worker: JobWorker[Any]) -> None:
        placed = self.roster.placements()
        worker.take({job: p for job, p in placed.items() if p.on(kind) == self.name})

    def _report_forever(self) -> None:
        while True:
            try:
                self.roster.report(self.report())
            except QueueError as exc:
                log.warning("queue_lost", worker=self.name, reason=str(exc))
            self.clock.sleep(BEAT_S)


def _rss_bytes() -> int:
    """Memory of this process; its peak where the system does not tell more."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()
