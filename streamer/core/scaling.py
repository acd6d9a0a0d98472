"""How many workers a pool should have, from its backlog."""

from __future__ import annotations

import math
from dataclasses import dataclass

from streamer.workers import Size

BUSY_BACKLOG = 1.0
"""Chunks waiting per worker, on average, from which one more worker is worth it."""
IDLE_SHARE = 0.6
"""Busy share that the remaining workers may have if one goes."""
UP_S = 10.0
DOWN_S = 60.0
"""How long it must have been so: starting a worker takes longer than waiting a little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A pool at one moment."""

    workers: int
    """Ready ones."""
    backlog: int
    """Chunks that wait for their turn, of all workers."""
    busy: float
    """Workers' worth of time spent in work since the last moment: 0 to `workers`."""
    needed: int
    """Workers without which not every job has a place."""


class Scaler:
    """One pool's size over time: grows when chunks wait, shrinks when workers do."""

    def __init__(self, workers: int = 0) -> None:
        """workers: those that carry jobs already, from which it goes on."""
        self._wanted = workers
        self._crowded_since: float | None = None
        self._idle_since: float | None = None

    def wanted(self, size: Size, load: Load, now: float) -> int:
        """The number of workers wanted at `now` (seconds), within `size`."""
        least = max(size.min, load.needed)
        wanted = max(size.min, self._wanted)
        steady = load.workers >= wanted
        crowded = steady and load.backlog > BUSY_BACKLOG * max(1, wanted)
        idle = steady and wanted > least and load.busy <= IDLE_SHARE * (wanted - 1)
        self._crowded_since = _since(self._crowded_since, crowded, now)
        self._idle_since = _since(self._idle_since, idle and not crowded, now)
        if _lasted(self._crowded_since, now, UP_S):
            wanted, self._crowded_since = wanted + 1, None
        elif _lasted(self._idle_since, now, DOWN_S):
            wanted, self._idle_since = wanted - 1, None
        self._wanted = min(size.max, max(least, wanted))
        return self._wanted


def needed(jobs: int, jobs_per_worker: int) -> int:
    """Workers that so many jobs need at least."""
    return math.ceil(jobs / jobs_per_worker)


def _since(since: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if since is None else since


def _lasted(since: float | None, now: float, seconds: float) -> bool:
    return since is not None and now - since >= seconds
