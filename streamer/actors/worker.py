"""A worker that carries many jobs side by side, each isolated from the others' failures."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import structlog

from streamer.actors.meter import Meter
from streamer.adapters.clock import Clock
from streamer.adapters.queue import Queue
from streamer.core.turns import Turns
from streamer.errors import (
    ConfigError,
    ModelError,
    QueueError,
    SourceError,
    StreamGone,
    WireError,
    WriterReplaced,
)
from streamer.jobs import Job, JobStatus, read_job, read_status
from streamer.workers import Placement, Progress

ATTEMPTS = 3
"""Unforeseen errors at one chunk with which a job fails."""
RETRY_S = 1.0

log = structlog.get_logger(__name__)


class Run(Protocol):
    """One job in a worker."""

    @property
    def progress(self) -> Progress: ...

    def close(self) -> None: ...


R = TypeVar("R", bound=Run)


@dataclass(slots=True)
class _Trouble:
    chunk: int
    attempts: int
    retry_at: float


class JobWorker(ABC, Generic[R]):
    """What a run holds can be rebuilt from the queue: a run in trouble is dropped and opened anew.

    A job whose source, settings or streams are at fault ends with a sentence in its record; one
    that meets an error nobody foresaw is tried again, and given up when it comes no further.
    """

    def __init__(self, queue: Queue, clock: Clock) -> None:
        self.queue = queue
        self.clock = clock
        self.meter = Meter(clock)
        self.turns = Turns(salt=uuid.uuid4().hex)
        self.placements: dict[str, Placement] = {}
        self.runs: dict[str, R] = {}
        self.backlog = 0
        self._over: set[str] = set()
        self._trouble: dict[str, _Trouble] = {}

    @abstractmethod
    def open(self, job: Job) -> R:
        """Takes a job up where its streams end."""

    @abstractmethod
    def is_over(self, status: JobStatus) -> bool:
        """Whether this worker's part of the job is done."""

    @abstractmethod
    def fail(self, job_id: str, reason: str) -> None:
        """Writes into the job's record why this part of it ends early."""

    @abstractmethod
    def work(self) -> bool:
        """One piece of work; False, perhaps after a moment of waiting, when there was none."""

    def take(self, placements: Mapping[str, Placement]) -> None:
        """Takes up the jobs that are new among `placements`, and lets go of those that left."""
        new = {job for job, placement in placements.items() if self._is_new(job, placement)}
        for job_id in [job for job in self.runs if job in new or job not in placements]:
            self.drop(job_id)
        self.placements = dict(placements)
        self._over &= placements.keys() - new
        self._trouble = {job: t for job, t in self._trouble.items() if job in placements}
        awake = {job: p for job, p in placements.items() if not p.paused}
        self.turns.keep(
            {job: placement.tenant for job, placement in awake.items()},
            late={job: placement.strikes for job, placement in awake.items()},
        )
        for job_id in sorted(placements, key=lambda job: placements[job].strikes):
            if job_id not in self.runs and job_id not in self._over and not self._waits(job_id):
                with self.isolated(job_id):
                    self._open(job_id)

    def over(self, job_id: str) -> None:
        """This worker's part of the job is done."""
        self._over.add(job_id)
        self.drop(job_id)

    def drop(self, job_id: str) -> None:
        """Lets go of a job; nothing is lost by that."""
        if run := self.runs.pop(job_id, None):
            run.close()

    @property
    def progress(self) -> dict[str, Progress]:
        return {job_id: run.progress for job_id, run in list(self.runs.items())}

    @contextmanager
    def isolated(self, job_id: str) -> Iterator[None]:
        """What goes wrong in here is this job's own affair, unless the queue is lost."""
        try:
            yield
        except StreamGone:
            self.over(job_id)
        except WriterReplaced as exc:
            log.info("writer_replaced", job=job_id, reason=str(exc))
            self._rebuild(job_id, attempts=0)
        except QueueError:
            self.drop(job_id)
            raise
        except (ConfigError, ModelError, SourceError, WireError) as exc:
            self._give_up(job_id, str(exc))
        except Exception as exc:  # noqa: BLE001  # one job's failure must not take the others along
            self._unforeseen(job_id, exc)

    def _is_new(self, job_id: str, placement: Placement) -> bool:
        """Whether it is not the job that had this id before."""
        known = self.placements.get(job_id)
        return known is not None and known.created_at != placement.created_at

    def _open(self, job_id: str) -> None:
        record = self.queue.job(job_id)
        if record is None or self.is_over(read_status(record)):
            self._over.add(job_id)
            return
        job = read_job(job_id, record)
        if job.created_at == self.placements[job_id].created_at:  # else it is placed anew soon
            self.runs[job_id] = self.open(job)

    def _unforeseen(self, job_id: str, exc: Exception) -> None:
        run, before = self.runs.get(job_id), self._trouble.get(job_id)
        chunk = run.progress.chunk if run else before.chunk if before else 0
        attempts = 1 + (before.attempts if before and before.chunk >= chunk else 0)
        log.error("job_crashed", job=job_id, chunk=chunk + 1, attempts=attempts, exc_info=exc)
        if attempts < ATTEMPTS:
            self._rebuild(job_id, attempts=attempts, chunk=chunk)
        else:
            said = " ".join(str(exc).split())[:200]
            self._give_up(job_id, f"an internal error at chunk {chunk + 1}: {said or repr(exc)}")

    def _rebuild(self, job_id: str, *, attempts: int, chunk: int = 0) -> None:
        self.drop(job_id)
        self._trouble[job_id] = _Trouble(chunk, attempts, self.clock.monotonic() + RETRY_S)

    def _give_up(self, job_id: str, reason: str) -> None:
        log.warning("job_failed", job=job_id, reason=reason)
        self.drop(job_id)
        with suppress(StreamGone):  # deleted meanwhile
            self.fail(job_id, reason)
        self.over(job_id)

    def _waits(self, job_id: str) -> bool:
        trouble = self._trouble.get(job_id)
        return trouble is not None and self.clock.monotonic() < trouble.retry_at
