"""Decoding: the next chunk of pictures from any media time. Never imports torch."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from streamer.actors.meter import Meter
from streamer.adapters.clock import SYSTEM_CLOCK
from streamer.core.chunker import Chunker
from streamer.core.gate import Gate
from streamer.errors import SourceError
from streamer.jobs import LOCAL, Job
from streamer.sources import Limits, Source, open_source
from streamer.sources.guard import TRUSTING, FetchPolicy
from streamer.types import FrameChunk
from streamer.workers import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What to read: a job's source and how it is sampled."""

    job: str
    url: str
    fps: float
    chunk_s: float
    decoder: Literal["pyav", "decord"] = "pyav"
    tenant: str = LOCAL

    @classmethod
    def of(cls, job: Job) -> Reading:
        """What a job asks for."""
        source = job.settings.source
        return cls(
            job=job.id,
            url=job.url,
            fps=source.fps,
            chunk_s=source.chunk_s,
            decoder=source.decoder,
            tenant=job.tenant,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The source has no more pictures."""

    missing: tuple[float, float] | None = None
    """A span that the file announces and does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The source cannot be read any further; one sentence says why."""

    reason: str


@dataclass(slots=True, kw_only=True)
class _Open:
    source: Source
    chunks: Iterator[FrameChunk]
    next_s: float
    read_at: float


class DecodeWorker:
    """Holds open sources; what it returns depends on its arguments alone, so it may die anytime.

    Safe to call from several threads; the reads of one job wait for each other.
    """

    def __init__(
        self,
        policy: FetchPolicy = TRUSTING,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        slots: int | None = None,
    ) -> None:
        """slots: most reads at a time; twice the processors, since some wait for their server."""
        self.policy = policy
        self.limits = limits or Limits()
        self.clock = clock
        self.meter = Meter(SYSTEM_CLOCK)
        self.gate = Gate(slots or max(4, 2 * (os.cpu_count() or 1)))
        self.open: dict[str, _Open] = {}
        self._locks: dict[str, threading.Lock] = {}

    def read(self, reading: Reading, start_s: float) -> FrameChunk | End | Failure:
        """The first chunk at or after start_s, which is a chunk's border; numbers follow time.

        Reading on where the last call ended is cheap; any other place is sought.
        """
        with self._alone(reading.job), self.gate.passing(reading.job, reading.tenant):
            started = self.clock()
            try:
                held = self.open.get(reading.job)
                if held is None or abs(held.next_s - start_s) > 1e-6:
                    held = self._seek(reading, start_s)
                # a border in the middle of a chunk follows one that was cut short: it has been read
                chunk = next((c for c in held.chunks if c.t0 > start_s - 1e-6), None)
            except SourceError as exc:
                self._let_go(reading.job)
                return Failure(reason=str(exc))
            if chunk is None:
                missing = held.source.missing
                self._let_go(reading.job)
                return End(missing=missing)
            held.next_s, held.read_at = chunk.t1, self.clock()
            self.meter.shared(held.read_at - started, parts=self.gate.slots)
            return chunk

    def close(self, job: str) -> None:
        """Lets go of a job's source."""
        with self._alone(job):
            self._let_go(job)
            self._locks.pop(job, None)

    def close_idle(self, idle_s: float) -> None:
        """Lets go of the sources that nobody read for so long; a later read opens them again."""
        for job, held in list(self.open.items()):
            if self.clock() - held.read_at > idle_s:
                self.close(job)

    @property
    def backlog(self) -> int:
        """Reads that wait for their turn."""
        return self.gate.waiting

    @property
    def progress(self) -> dict[str, Progress]:
        """Per job, where its next chunk begins."""
        return {job: Progress(chunk=0, t1=held.next_s) for job, held in list(self.open.items())}

    @contextmanager
    def _alone(self, job: str) -> Iterator[None]:
        """One thread at a time for a job. A lock is dropped by who holds it: then try another."""
        while True:
            lock = self._locks.setdefault(job, threading.Lock())
            with lock:
                if self._locks.get(job) is lock:
                    yield
                    return

    def _let_go(self, job: str) -> None:
        if held := self.open.pop(job, None):
            held.source.close()

    def _seek(self, reading: Reading, start_s: float) -> _Open:
        held = self.open.get(reading.job)
        source = (
            held.source
            if held
            else open_source(
                reading.url,
                fps=reading.fps,
                decoder=reading.decoder,
                limits=self.limits,
                policy=self.policy,
            )
        )
        chunker = Chunker(chunk_s=reading.chunk_s, fps=reading.fps, clock=self.clock)
        number = chunker.number_at(start_s)
        self.open[reading.job] = opened = _Open(
            source=source,
            chunks=chunker.chunks(source, number),
            next_s=start_s,
            read_at=self.clock(),
        )
        return opened
