"""Jobs and events as workers would write them, for the tests of the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi.testclient import TestClient

from streamer.adapters.clock import SYSTEM_CLOCK, Clock
from streamer.adapters.memory_asks import MemoryAsks
from streamer.adapters.memory_queue import MemoryQueue
from streamer.adapters.memory_roster import MemoryRoster
from streamer.adapters.memory_uploads import MemoryUploads
from streamer.adapters.queue import Queue
from streamer.api.app import create_app
from streamer.api.service import PastEvents
from streamer.config import Settings
from streamer.events import Event, Totals, encode_chunk_events, event_id
from streamer.jobs import Job, Question

URL = "https://93.184.216.34/videos/street.mp4"
"""A public address, so that nothing is looked up."""
ALICE, BOB, ADMIN = "alice-0123456789", "bob-0123456789abc", "admin-0123456789"
TOKENS = (
    {"name": "alice", "token": ALICE, "max_jobs": 2},
    {"name": "bob", "token": BOB},
    {"name": "admin", "token": ADMIN, "admin": True},
)


@dataclass
class Api:
    """An API over queue and roster in memory."""

    settings: Settings = field(default_factory=Settings)
    queue: Queue = field(default_factory=MemoryQueue)
    roster: MemoryRoster = field(default_factory=MemoryRoster)
    asks: MemoryAsks = field(default_factory=MemoryAsks)
    uploads: MemoryUploads = field(default_factory=MemoryUploads)
    archive: PastEvents | None = None
    clock: Clock = SYSTEM_CLOCK

    def __post_init__(self) -> None:
        self.app = create_app(
            self.settings,
            self.queue,
            self.roster,
            asks=self.asks,
            uploads=self.uploads,
            archive=self.archive,
            clock=self.clock,
        )
        self.client = self.as_("")

    def as_(self, token: str) -> TestClient:
        """A client with a token."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return TestClient(
            self.app,
            base_url="http://127.0.0.1:8000",
            headers=headers,
            raise_server_exceptions=False,
        )

    def submit(self, token: str = "", **changes: Any) -> Any:
        """The answer to a job's submission."""
        return self.as_(token).post("/v1/jobs", json={"source": {"url": URL}} | changes)


def api(**settings: Mapping[str, Any]) -> Api:
    """With these sections of settings."""
    return Api(Settings(**settings))  # type: ignore[arg-type]  # pydantic makes the sections


def make_job(queue: Queue, job_id: str = "cam", **changes: object) -> Job:
    """A new job in the queue."""
    job = Job(
        id=job_id,
        url=URL,
        questions=(Question(id="default", prompt="Describe what happens."),),
        created_at=1_700_000_000.0,
    )
    job = replace(job, **changes)  # type: ignore[arg-type]  # fields of a Job
    assert queue.create_job(job.id, job.record(), tenant=job.tenant)
    return job


def caption(job_id: str, chunk: int, n: int = 0, *, text: str | None = None) -> Event:
    """The caption of a chunk of two seconds."""
    return Event(
        id=event_id(chunk, n),
        event="caption",
        job=job_id,
        chunk=chunk,
        t0=2.0 * (chunk - 1),
        t1=2.0 * chunk,
        question="default" if n == 0 else f"q{n}",
        text=f"Chunk {chunk}." if text is None else text,
        input_tokens=30,
        dense_tokens=120,
        output_tokens=4,
    )


def write(queue: Queue, job_id: str, *chunks: int, events: int = 1) -> None:
    """Writes chunks' events as a captioner would."""
    for chunk in chunks:
        said = [caption(job_id, chunk, n) for n in range(events)]
        totals = Totals(
            chunks=chunk,
            captions=chunk * events,
            t1=2.0 * chunk,
            patches=480 * chunk,
            patches_kept=120 * chunk,
            tokens_dense=120 * chunk,
            tokens=30 * chunk,
        )
        queue.append(job_id, "events", chunk, encode_chunk_events(said, totals))


def finish(queue: Queue, job_id: str, state: str = "ended") -> None:
    queue.finish_job(job_id, {"state": state, "ended_at": "1700000100.000"})
