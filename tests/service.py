"""A running service for tests: its Redis, its Ray side, and jobs put straight into the queue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from streamer.adapters.redis_client import connect
from streamer.adapters.redis_queue import RedisQueue
from streamer.adapters.redis_roster import RedisRoster
from streamer.adapters.redis_server import EmbeddedRedis
from streamer.config import JobSettings
from streamer.events import Event, decode_chunk_events
from streamer.jobs import Job, JobStatus, Question, When, read_status
from streamer.workers import WorkerReport

QUESTION = "Describe what happens."


class Service:
    """What a test may do to it."""

    def __init__(self, redis: EmbeddedRedis, environment: dict[str, str]) -> None:
        self.redis = redis
        self.environment = environment
        self.client = connect(redis.url)
        self.queue = RedisQueue(self.client)
        self.roster = RedisRoster(self.client)
        self.keeper: subprocess.Popen[bytes] | None = None

    def start_keeper(self) -> None:
        """The Ray side, as `streamer serve` starts it."""
        self.keeper = subprocess.Popen(
            [sys.executable, "-m", "streamer", "worker"],
            env={**os.environ, **self.environment, "STREAMER__QUEUE__URL": self.redis.url},
            stdout=2,  # Ray prints what its workers log, and a benchmark's stdout is its result
            start_new_session=True,
        )

    def stop_keeper(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.keeper is not None:
            self.keeper.send_signal(number)
            try:
                self.keeper.wait(30)
            except subprocess.TimeoutExpired:
                self.keeper.kill()
                self.keeper.wait()
            self.keeper = None

    def submit(
        self,
        url: str | Path,
        *prompts: str,
        tenant: str = "local",
        when: When = "every",
        **settings: Any,
    ) -> str:
        """A job in the queue; its id."""
        asked = prompts or (QUESTION,)
        job = Job(
            id=f"test-{uuid.uuid4().hex[:8]}",
            url=str(url),
            questions=tuple(Question(id=f"q{n}", prompt=p, when=when) for n, p in enumerate(asked)),
            settings=JobSettings.model_validate(settings),
            tenant=tenant,
            created_at=time.time(),
        )
        self.queue.create_job(job.id, job.record(), tenant=tenant)
        return job.id

    def status(self, job: str) -> JobStatus:
        return read_status(self.queue.job(job) or {"state": "failed", "error": "deleted"})

    def events(self, job: str) -> list[Event]:
        """Every event so far."""
        entries = self.queue.read(job, "events", after=0, count=100_000)
        return [event for entry in entries for event in decode_chunk_events(entry)]

    def said(self, job: str) -> int:
        """Number of the last captioned chunk."""
        return self.queue.last(job, "events")

    def in_flight(self, job: str) -> int:
        """Chunks that are tokenized and not captioned."""
        return self.queue.last(job, "tokens") - self.said(job)

    def workers(self) -> dict[str, WorkerReport]:
        return self.roster.reports()

    def wait(self, holds: Callable[[], Any], what: str, timeout_s: float = 120.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} did not happen within {timeout_s:g} s")
            time.sleep(0.1)

    def wait_ready(self, names: Sequence[str], timeout_s: float = 180.0) -> None:
        """Until workers of these names can work."""

        def ready() -> bool:
            assert self.keeper is None or self.keeper.poll() is None, "the Ray side ended"
            reports = self.workers()
            return all(n in reports and reports[n].state == "ready" for n in names)

        self.wait(ready, f"that {', '.join(names)} are ready", timeout_s)

    def wait_finished(self, jobs: Sequence[str], timeout_s: float = 180.0) -> None:
        self.wait(
            lambda: all(self.status(job).finished for job in jobs), "the jobs' end", timeout_s
        )

    def signal(self, name: str, number: signal.Signals) -> str:
        """Sends a signal to a worker's process; its boot, to tell the next one from it."""
        report = self.workers()[name]
        os.kill(report.pid, number)
        return report.boot

    def wait_replaced(self, name: str, boot: str, timeout_s: float = 120.0) -> None:
        """Until another process works under this name."""

        def replaced() -> bool:
            report = self.workers().get(name)
            return report is not None and report.boot != boot and report.state == "ready"

        self.wait(replaced, f"that {name} is replaced", timeout_s)


@contextmanager
def service(folder: Path, allow: Path, **environment: str) -> Iterator[Service]:
    """A service that may read files under `allow`; environment: settings, WORKERS__SILENT_S="4"."""
    given = {f"STREAMER__{name}": value for name, value in environment.items()}
    given["STREAMER__FETCH__ALLOW_PATHS"] = f'["{allow}"]'
    with EmbeddedRedis(folder) as redis:
        running = Service(redis, given)
        running.start_keeper()
        try:
            yield running
        finally:
            running.stop_keeper()


def check_complete(events: Sequence[Event], last_chunk: int | None, questions: int = 1) -> None:
    """Every chunk's events exactly once, in order, their spans without holes."""
    assert last_chunk
    expected = [(n, q) for n in range(1, last_chunk + 1) for q in range(questions)]
    assert [event.id for event in events] == [f"{n}-{q}" for n, q in expected]
    assert {event.event for event in events} == {"caption"}
    spans = [(event.t0, event.t1) for event in events[::questions]]
    assert all(a[1] == b[0] for a, b in pairwise(spans))
