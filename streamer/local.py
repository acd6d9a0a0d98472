"""One job on this machine, from the servers it needs to its last event, leaving nothing behind."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self

from streamer.actors.controller import Controller
from streamer.actors.deploy import RayFleet
from streamer.actors.janitor import Janitor
from streamer.actors.ray_cluster import start_ray, stop_ray
from streamer.adapters.clock import SYSTEM_CLOCK, Clock
from streamer.adapters.redis_client import connect
from streamer.adapters.redis_queue import RedisQueue
from streamer.adapters.redis_roster import RedisRoster
from streamer.adapters.redis_server import EmbeddedRedis
from streamer.config import Settings
from streamer.errors import StreamerError
from streamer.events import Event as ChunkEvent
from streamer.events import decode_chunk_events
from streamer.jobs import Job, JobStatus, Question, When, read_status
from streamer.sources import absolute
from streamer.sources.guard import TRUSTING
from streamer.workers import SourceState, WorkerReport

BLOCK_S = 0.25
AWAY_S = 2.0
"""How long a live source is away before it is told."""
TELL_S = 10.0
"""Least time between two reasons."""


class Absence:
    """Tells why a live source is away: once a reason, until it is back."""

    def __init__(self, told: Callable[[str], None], clock: Clock) -> None:
        self._told = told
        self._clock = clock
        self._since: float | None = None
        self._last: str | None = None
        self._quiet_until = 0.0

    def see(self, source: SourceState | None) -> None:
        """Called with the source's state again and again; None while it has none."""
        now = self._clock.monotonic()
        if source is None:
            return  # its worker is being replaced
        if source.connected:
            self._since = self._last = None
            return
        self._since = now if self._since is None else self._since
        if now < max(self._since + AWAY_S, self._quiet_until):
            return
        if source.reason and source.reason != self._last:
            self._told(f"{source.reason}; connecting again")
            self._last, self._quiet_until = source.reason, now + TELL_S


class LocalRun:
    """A Redis and a Ray of its own, a controller in this process, three workers and one job."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        *,
        told: Callable[[str], None],
        when: When = "every",
    ) -> None:
        """told: is called with what is being waited for; when: the question is asked."""
        self.settings = settings
        self.told = told
        self.absence = Absence(told, SYSTEM_CLOCK)
        self.job = Job(
            id=f"caption-{uuid.uuid4().hex[:12]}",
            url=absolute(url),
            questions=(Question(id="default", prompt=settings.question, when=when),),
            settings=settings.job,
            created_at=SYSTEM_CLOCK.now(),
        )
        self.cleanup = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.cleanup.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cleanup.close()

    def _start(self) -> None:
        folder = self.cleanup.enter_context(
            tempfile.TemporaryDirectory(prefix="streamer-", ignore_cleanup_errors=True)
        )
        self.told("starting Redis")
        queue = self.settings.queue
        server = self.cleanup.enter_context(
            EmbeddedRedis(Path(folder), port=queue.port, server=queue.server)
        )
        client = connect(server.url)
        self.queue, self.roster = RedisQueue(client), RedisRoster(client)
        self.queue.create_job(self.job.id, self.job.record())
        self.told("starting Ray (10 to 25 s)")
        self.cleanup.callback(stop_ray)
        start_ray(folder)
        self.told("loading the model into two workers (15 to 40 s)")
        settings = self.settings.model_copy(
            update={"queue": queue.model_copy(update={"url": server.url})}
        )
        self._tidy()
        fleet = RayFleet(settings, TRUSTING)
        self.controller = Controller(settings, self.queue, self.roster, fleet, SYSTEM_CLOCK)
        self.controller.step()

    def _tidy(self) -> None:
        """Lets Redis forget what is old, so that a live source may go on for ever."""
        ended = Event()
        retention = self.settings.retention.model_copy(update={"archive": None})
        janitor = Janitor(retention, self.queue, SYSTEM_CLOCK)
        thread = Thread(target=janitor.run, args=(ended,), name="janitor", daemon=True)
        thread.start()
        self.cleanup.callback(ended.set)

    def events(self) -> Iterator[ChunkEvent]:
        """Every event of the job, as it is written, to the last."""
        said = 0
        while True:
            entries = self.queue.read(self.job.id, "events", after=said, block_s=BLOCK_S)
            for entry in entries:
                said = entry.number
                yield from decode_chunk_events(entry)
            if entries:
                continue
            if self.status().finished:
                return
            self.controller.step()
            reports = self.roster.reports()
            for report in reports.values():
                if report.error:
                    raise StreamerError(report.error)
            self.absence.see(_source(reports, self.job.id))

    def status(self) -> JobStatus:
        """How far the job has come."""
        record = self.queue.job(self.job.id)
        if record is None:
            return JobStatus(state="failed", last_chunk=None, error="the job was deleted")
        return read_status(record)


def _source(reports: Mapping[str, WorkerReport], job_id: str) -> SourceState | None:
    """What the worker that reads a job's live source says of it."""
    found = (report.jobs.get(job_id) for report in reports.values() if report.kind == "decode")
    return next((progress.source for progress in found if progress), None)
