"""What two looks at the workers' reports tell, and one does not: who still lives, who is busy."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from streamer.adapters.clock import Clock
from streamer.workers import WorkerReport

WINDOW_S = 2.0
"""The shortest time over which a share is taken."""

State = Literal["starting", "ready", "silent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A worker, seen from here."""

    report: WorkerReport
    state: State
    age_s: float
    """Since its report was first seen to be a new one."""
    busy: float
    """Share of the last seconds that it worked, 0 to 1."""


@dataclass(slots=True)
class _Seen:
    boot: str
    beat: int
    since: float
    busy: float
    worked_s: float
    measured_at: float


class Signs:
    """Remembers the last look; reports carry no time, because machines' clocks differ."""

    def __init__(self, clock: Clock, *, silent_s: float) -> None:
        """silent_s: age from which a worker counts as silent."""
        self._clock = clock
        self._silent_s = silent_s
        self._lock = threading.Lock()
        self._seen: dict[str, _Seen] = {}

    def look(self, reports: Mapping[str, WorkerReport]) -> dict[str, Sign]:
        """The signs of all who report, by name."""
        now = self._clock.monotonic()
        with self._lock:
            self._seen = {
                name: self._update(self._seen.get(name), report, now)
                for name, report in reports.items()
            }
            return {name: self._sign(report, now) for name, report in reports.items()}

    def _update(self, seen: _Seen | None, report: WorkerReport, now: float) -> _Seen:
        worked_s = report.busy_s + report.step_s
        if seen is None or seen.boot != report.boot:
            return _Seen(report.boot, report.beat, now, float(report.step_s > 0), worked_s, now)
        if seen.beat != report.beat:
            seen.beat, seen.since = report.beat, now
        elapsed_s = now - seen.measured_at
        if elapsed_s >= WINDOW_S:
            seen.busy = min(1.0, max(0.0, (worked_s - seen.worked_s) / elapsed_s))
            seen.worked_s, seen.measured_at = worked_s, now
        return seen

    def _sign(self, report: WorkerReport, now: float) -> Sign:
        seen = self._seen[report.name]
        age_s = now - seen.since
        return Sign(
            report=report,
            state="silent" if age_s > self._silent_s else report.state,
            age_s=round(age_s, 1),
            busy=round(seen.busy, 2),
        )
