"""One job on this machine, from the servers it needs to its last event, leaving nothing behind."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from streamer.actors.deploy import Workers, start_ray, start_workers, stop_ray
from streamer.adapters.redis_client import connect
from streamer.adapters.redis_queue import RedisQueue
from streamer.adapters.redis_server import EmbeddedRedis
from streamer.config import Settings
from streamer.errors import StreamerError
from streamer.events import Event, decode_chunk_events
from streamer.jobs import Job, JobStatus, Question, read_status
from streamer.sources import absolute

BLOCK_S = 0.5


class LocalRun:
    """Redis (embedded, unless settings name one), a local Ray, three workers and one job."""

    def __init__(self, url: str, settings: Settings, *, told: Callable[[str], None]) -> None:
        """told: is called with what is being waited for."""
        self.settings = settings
        self.told = told
        self.job = Job(
            id=f"caption-{uuid.uuid4().hex[:12]}",
            url=absolute(url),
            questions=(Question(id="default", prompt=settings.question),),
            settings=settings,
        )
        self.cleanup = ExitStack()
        self.workers: Workers

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
        queue = self.settings.queue
        redis_url = queue.url
        folder = self.cleanup.enter_context(
            tempfile.TemporaryDirectory(prefix="streamer-", ignore_cleanup_errors=True)
        )
        if redis_url is None:
            self.told("starting Redis")
            server = self.cleanup.enter_context(
                EmbeddedRedis(Path(folder), port=queue.port, server=queue.server)
            )
            redis_url = server.url
        self.told("opening the queue")
        self.queue = RedisQueue(connect(redis_url))
        self.queue.create_job(self.job.id, self.job.record())
        if queue.url is not None:  # a server of our own takes its data along
            self.cleanup.callback(self.queue.delete_job, self.job.id)
        self.told("starting Ray (10 to 25 s)")
        self.cleanup.callback(stop_ray)
        start_ray(folder)
        self.told("loading the model into two workers (15 to 40 s)")
        self.workers = start_workers(self.job, redis_url)

    def events(self) -> Iterator[Event]:
        """Every event of the job, as it is written, to the last."""
        said = 0
        while True:
            entries = self.queue.read(self.job.id, "events", after=said, block_s=BLOCK_S)
            for entry in entries:
                said = entry.number
                yield from decode_chunk_events(entry)
            if entries:
                continue
            status = self.status()
            if status.state != "running" and said >= (status.last_chunk or 0):
                return
            if reason := self.workers.stopped(tokenized=status.last_chunk is not None):
                raise StreamerError(reason)

    def status(self) -> JobStatus:
        """How far the job has come."""
        record = self.queue.job(self.job.id)
        if record is None:
            return JobStatus(state="failed", last_chunk=None, error="the job was deleted")
        return read_status(record)
