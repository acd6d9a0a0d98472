"""Collaborators that tests hand to the workers, and the records and entries they work on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from streamer.actors.caption import CaptionWorker
from streamer.actors.decode import End, Failure
from streamer.actors.tokenize import Tokenizing, encoder_for
from streamer.actors.worker import JobWorker
from streamer.adapters.clock import Clock, ManualClock
from streamer.adapters.memory_queue import MemoryQueue
from streamer.adapters.queue import Entry, Queue, Stream, Written
from streamer.config import JobSettings
from streamer.jobs import LOCAL, Job, Question
from streamer.model import VideoModel
from streamer.types import FrameChunk
from streamer.wire import ChunkHead, TokenChunk, decode
from streamer.workers import Placement

JOB = "cam"


def a_job(*prompts: str, id: str = JOB, tenant: str = LOCAL, **settings: Any) -> Job:
    """A job with one question per prompt."""
    asked = prompts or ("Describe what happens.",)
    return Job(
        id=id,
        url="clip.mp4",
        questions=tuple(Question(id=f"q{n}", prompt=prompt) for n, prompt in enumerate(asked)),
        settings=JobSettings(**settings),
        tenant=tenant,
    )


def placed(*jobs: Job, **change: Any) -> dict[str, Placement]:
    """The placements of jobs that the first workers carry."""
    return {
        job.id: Placement(
            tenant=job.tenant,
            **{"decode": "decode-1", "tokenize": "tokenize-1", "caption": "caption-1", **change},
        )
        for job in jobs
    }


class FakeDecoder:
    """Chunks that are there already, then an end; what it gives depends on the time alone."""

    def __init__(self, chunks: Sequence[FrameChunk], end: End | Failure | None = None) -> None:
        self.chunks = list(chunks)
        self.end = end or End()
        self.is_ready = True
        self.used: list[str | None] = []
        """The decode workers it was told to ask, the last one last."""
        self.closed = False

    def use(self, worker: str | None) -> None:
        self.used.append(worker)

    def ready(self, start_s: float, wall_s: float | None = None) -> bool:
        return self.is_ready

    def read(self, start_s: float, wall_s: float | None = None) -> FrameChunk | End | Failure:
        return next((c for c in self.chunks if c.t0 >= start_s - 1e-6), self.end)

    def close(self) -> None:
        self.closed = True


class RememberingQueue(MemoryQueue):
    """Remembers what was written after it is trimmed."""

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[tuple[Stream, int], Entry] = {}

    def append(
        self, job_id: str, stream: Stream, number: int, fields: Mapping[str, bytes]
    ) -> Written:
        done = super().append(job_id, stream, number, fields)
        if done == "written":
            self.written[stream, number] = Entry(number, dict(fields), f"job {job_id} {stream}")
        return done

    def everything(self, stream: Stream) -> list[Entry]:
        return [entry for (name, _), entry in self.written.items() if name == stream]


class PowerCut(BaseException):
    """The worker dies here, and nobody can do anything about it."""


class FragileQueue(RememberingQueue):
    """Cuts the writer's power right after the `after`-th append to `stream` has been stored."""

    def __init__(self, stream: Stream, after: int) -> None:
        super().__init__()
        self.fragile, self.left = stream, after

    def append(
        self, job_id: str, stream: Stream, number: int, fields: Mapping[str, bytes]
    ) -> Written:
        written = super().append(job_id, stream, number, fields)
        if stream == self.fragile:
            self.left -= 1
            if not self.left:
                raise PowerCut
        return written


class MeddledQueue(MemoryQueue):
    """Lets someone else act right before each append to `stream`, but not before their own."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.meddled = stream
        self.meddle: Callable[[], object] | None = None

    def append(
        self, job_id: str, stream: Stream, number: int, fields: Mapping[str, bytes]
    ) -> Written:
        meddle, self.meddle = self.meddle, None
        if meddle is not None and stream == self.meddled:
            meddle()
        self.meddle = meddle
        return super().append(job_id, stream, number, fields)


class FakeFleet:
    """Workers that are names."""

    def __init__(self, *names: str) -> None:
        self.living = set(names)
        self.started: list[str] = []
        self.restarted: list[str] = []
        self.stopped: list[str] = []

    def names(self) -> set[str]:
        return set(self.living)

    def start(self, name: str) -> None:
        self.living.add(name)
        self.started.append(name)

    def restart(self, name: str) -> None:
        self.restarted.append(name)

    def stop(self, name: str) -> None:
        self.living.discard(name)
        self.stopped.append(name)


def tokenizer_of(
    model: VideoModel,
    job: Job,
    decoder: FakeDecoder,
    queue: Queue,
    clock: ManualClock | None = None,
) -> Tokenizing:
    """Tokenizing with a tiny model; the job is created when it is not there."""
    queue.create_job(job.id, job.record())
    return Tokenizing(job, decoder, queue, clock or ManualClock(), encoder_for(model, job))


def token_entries(model: VideoModel, job: Job, decoder: FakeDecoder) -> list[Entry]:
    """The whole token stream of a job."""
    queue = RememberingQueue()
    run = tokenizer_of(model, job, decoder, queue)
    while run.step():
        write_events(queue, job, upto=queue.last(job.id, "tokens"))
    return queue.everything("tokens")


def captioner_of(
    model: VideoModel,
    queue: Queue,
    clock: Clock | None = None,
    *,
    batch: int = 8,
    max_new_tokens: int = 5,
) -> CaptionWorker:
    """A caption worker with a tiny model, which says little."""
    return CaptionWorker(
        model, queue, clock or ManualClock(), batch=batch, max_new_tokens=max_new_tokens
    )


def work_off(worker: JobWorker[Any], *jobs: Job, most: int = 1000) -> None:
    """Gives the worker its jobs, and lets it work until it is through with all."""
    worker.take(placed(*jobs))
    for _ in range(most):
        if not worker.runs:
            return
        worker.work()
    raise AssertionError(f"{sorted(worker.runs)} came to no end")


def write_events(queue: Queue, job: Job, *, upto: int) -> None:
    """Stands in for the caption side: chunks up to `upto` have their (unreadable) events."""
    for number in range(queue.last(job.id, "events") + 1, upto + 1):
        queue.append(job.id, "events", number, {"events": b"said"})


def fill(queue: Queue, job: Job, entries: Sequence[Entry], *, error: str | None = None) -> None:
    """The job with a finished token stream."""
    queue.create_job(job.id, job.record())
    for entry in entries:
        queue.append(job.id, "tokens", entry.number, entry.fields)
    end = {"last_chunk": str(entries[-1].number if entries else 0)}
    queue.update_job(job.id, {**end, "error": error} if error else end)


def decoded(queue: RememberingQueue) -> list[TokenChunk]:
    """Every chunk that was written to the token stream, in order of writing."""
    return [decode(e.fields, where=e.where) for e in queue.everything("tokens")]


def timeless(head: ChunkHead) -> ChunkHead:
    """A head without what the clock put in."""
    return replace(head, decode_ms=0.0, tokenize_ms=0.0, written_at=0.0)


def same_chunk(a: TokenChunk, b: TokenChunk) -> bool:
    """Equal to the bit, but for the times it took."""
    pairs = [
        (getattr(a, name), getattr(b, name))
        for name in ("tokens", "position", "run", "size", "deepstack")
    ]
    return timeless(a.head) == timeless(b.head) and all(
        (x is None and y is None) or (x is not None and y is not None and torch.equal(x, y))
        for x, y in pairs
    )
