"""What a worker did since its boot, as values for its reports."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager

from streamer.adapters.clock import Clock
from streamer.workers import LATENCY_BUCKETS_S


class Meter:
    """Counts work. One thread works, another may read."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.busy_s = 0.0
        self.chunks = 0
        self.steps = self.sizes = 0
        self.latency_s = 0.0
        self.latencies = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self._since: float | None = None
        self._lock = threading.Lock()

    @contextmanager
    def step(self, *, size: int = 0) -> Iterator[None]:
        """One piece of work; size: of how many rows, where it is a batch."""
        self._since = started = self.clock.monotonic()
        try:
            yield
        finally:
            self._since = None
            self.busy_s += self.clock.monotonic() - started
            self.steps += bool(size)
            self.sizes += size

    @property
    def step_s(self) -> float:
        """How long the present piece of work has lasted; 0 between two."""
        since = self._since
        return 0.0 if since is None else self.clock.monotonic() - since

    def shared(self, seconds: float, *, parts: int) -> None:
        """A chunk was done by one of `parts` that work side by side."""
        with self._lock:
            self.busy_s += seconds / parts
            self.chunk(seconds)

    def chunk(self, latency_s: float) -> None:
        """A chunk was done, so long after it was begun."""
        self.chunks += 1
        self.latency_s += latency_s
        self.latencies[bisect_left(LATENCY_BUCKETS_S, latency_s)] += 1
