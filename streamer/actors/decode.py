"""Decoding: the next chunk of pictures from any media time. Never imports torch."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from streamer.actors.meter import Meter
from streamer.adapters.clock import SYSTEM_CLOCK
from streamer.adapters.uploads import Uploads, on_disk, upload_id
from streamer.core.chunker import Chunker
from streamer.core.gate import Gate
from streamer.errors import SourceError
from streamer.jobs import LOCAL, Job
from streamer.sources import Limits, Source, open_source
from streamer.sources.guard import TRUSTING, FetchPolicy
from streamer.types import FrameChunk
from streamer.workers import Progress, SourceState

LIVE_WAIT_S = 1.0
"""How long a read waits for a live source to have a chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What to read: a job's source and how it is sampled."""

    job: str
    url: str
    fps: float
    chunk_s: float
    decoder: Literal["pyav", "decord"] = "pyav"
    tenant: str = LOCAL
    live: bool | None = None
    """Whether the source goes on unread; None: its URL and its server tell."""
    behind_s: float = 30.0
    """How much of a live source waits to be read at most."""

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
            live=source.live,
            behind_s=source.behind_s,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class NotYet:
    """The source goes on, and has no whole chunk there yet."""


class Live(Protocol):
    """What is asked of a live source."""

    @property
    def ended(self) -> bool: ...

    @property
    def failure(self) -> str | None: ...

    @property
    def state(self) -> SourceState: ...

    def chunk(self, start_s: float, *, wait_s: float) -> FrameChunk | None: ...

    def close(self) -> None: ...


class Lives(Protocol):
    """Tells live sources from files, and opens them."""

    def tell(self, reading: Reading) -> bool:
        """Whether it is one. Raises SourceError."""
        ...

    def open(self, reading: Reading, start_s: float, wall_s: float | None) -> Live:
        """wall_s: Unix seconds of start_s, where the job has chunks already. Raises SourceError."""
        ...


@dataclass(slots=True, kw_only=True)
class _Open:
    source: Source
    disk: ExitStack
    """What of it lies on this machine's disk, while it is open."""
    chunks: Iterator[FrameChunk]
    next_s: float
    read_at: float


@dataclass(slots=True, kw_only=True)
class _OpenLive:
    source: Live
    next_s: float
    read_at: float


class DecodeWorker:
    """Holds open sources. What it returns of a file depends on its arguments alone, and a live
    source goes on without it, so it may die anytime.

    Safe to call from several threads; the reads of one job wait for each other.
    """

    def __init__(
        self,
        policy: FetchPolicy = TRUSTING,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        slots: int | None = None,
        lives: Lives | None = None,
        uploads: Uploads | None = None,
    ) -> None:
        """slots: most reads of files at a time; twice the processors, since some wait for their
        server. lives: None takes every source for a file. uploads: where sent videos are."""
        self.policy = policy
        self.limits = limits or Limits()
        self.clock = clock
        self.meter = Meter(SYSTEM_CLOCK)
        self.gate = Gate(slots or max(4, 2 * (os.cpu_count() or 1)))
        self.lives = lives
        self.uploads = uploads
        self.open: dict[str, _Open | _OpenLive] = {}
        self._locks: dict[str, threading.Lock] = {}

    def read(
        self, reading: Reading, start_s: float, wall_s: float | None = None
    ) -> FrameChunk | End | Failure | NotYet:
        """The first chunk at or after start_s, which is a chunk's border; numbers follow time.

        Reading on where the last call ended is cheap; any other place of a file is sought. A live
        source is waited for a moment.
        wall_s: Unix seconds of start_s, where a live source has been read before.
        """
        with self._alone(reading.job):
            try:
                if self._is_live(reading, wall_s):
                    return self._read_live(reading, start_s, wall_s)
                with self.gate.passing(reading.job, reading.tenant):
                    return self._read_file(reading, start_s)
            except SourceError as exc:
                self._let_go(reading.job)
                return Failure(reason=str(exc))

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
        """Per job, where its next chunk begins, and how a live source is."""
        return {
            job: Progress(
                chunk=0,
                t1=held.next_s,
                source=held.source.state if isinstance(held, _OpenLive) else None,
            )
            for job, held in list(self.open.items())
        }

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
            if isinstance(held, _Open):
                held.disk.close()

    def _is_live(self, reading: Reading, wall_s: float | None) -> bool:
        if held := self.open.get(reading.job):
            return isinstance(held, _OpenLive)
        if upload_id(reading.url) is not None:
            return False
        return self.lives is not None and (wall_s is not None or self.lives.tell(reading))

    def _read_live(
        self, reading: Reading, start_s: float, wall_s: float | None
    ) -> FrameChunk | End | Failure | NotYet:
        held = self.open.get(reading.job)
        if not isinstance(held, _OpenLive):
            assert self.lives is not None  # or nothing is live
            source = self.lives.open(reading, start_s, wall_s)
            held = _OpenLive(source=source, next_s=start_s, read_at=self.clock())
            self.open[reading.job] = held
        chunk = held.source.chunk(start_s, wait_s=LIVE_WAIT_S)
        held.read_at = self.clock()
        if chunk is not None:
            held.next_s = chunk.t1
            self.meter.shared(chunk.decode_ms / 1000, parts=self.gate.slots)
            return chunk
        if (reason := held.source.failure) is not None:
            self._let_go(reading.job)
            return Failure(reason=reason)
        if held.source.ended:
            self._let_go(reading.job)
            return End()
        return NotYet()

    def _read_file(self, reading: Reading, start_s: float) -> FrameChunk | End:
        started = self.clock()
        held = self.open.get(reading.job)
        if not isinstance(held, _Open) or abs(held.next_s - start_s) > 1e-6:
            held = self._seek(reading, start_s)
        # a border in the middle of a chunk follows one that was cut short: it has been read
        chunk = next((c for c in held.chunks if c.t0 > start_s - 1e-6), None)
        if chunk is None:
            missing = held.source.missing
            self._let_go(reading.job)
            return End(missing=missing)
        held.next_s, held.read_at = chunk.t1, self.clock()
        self.meter.shared(held.read_at - started, parts=self.gate.slots)
        return chunk

    def _seek(self, reading: Reading, start_s: float) -> _Open:
        held = self.open.get(reading.job)
        source, disk = (held.source, held.disk) if isinstance(held, _Open) else self._open(reading)
        chunker = Chunker(chunk_s=reading.chunk_s, fps=reading.fps, clock=self.clock)
        number = chunker.number_at(start_s)
        self.open[reading.job] = opened = _Open(
            source=source,
            disk=disk,
            chunks=chunker.chunks(source, number),
            next_s=start_s,
            read_at=self.clock(),
        )
        return opened

    def _open(self, reading: Reading) -> tuple[Source, ExitStack]:
        """The source, and what it needs on the disk. An upload may lead to itself alone."""
        url, policy = reading.url, self.policy
        with ExitStack() as disk:
            upload = upload_id(url)
            if upload is not None and self.uploads is not None:
                path = disk.enter_context(on_disk(self.uploads, upload))
                url, policy = str(path), replace(policy, paths=(str(path.parent),))
            source = open_source(
                url,
                fps=reading.fps,
                decoder=reading.decoder,
                limits=self.limits,
                policy=policy,
            )
            return source, disk.pop_all()
