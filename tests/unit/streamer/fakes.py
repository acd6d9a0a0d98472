"""Collaborators that tests hand to the workers, and the records and entries they work on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from streamer.actors.decode import End, Failure
from streamer.actors.tokenize import TokenizeWorker, encoder_for
from streamer.adapters.clock import ManualClock
from streamer.adapters.memory_queue import MemoryQueue
from streamer.adapters.queue import Entry, Queue, Stream, Written
from streamer.config import Settings
from streamer.jobs import Job, Question
from streamer.model import VideoModel
from streamer.types import FrameChunk
from streamer.wire import ChunkHead, TokenChunk, decode

JOB = "cam"


def a_job(*prompts: str, **settings: Any) -> Job:
    """A job with one question per prompt."""
    asked = prompts or ("Describe what happens.",)
    return Job(
        id=JOB,
        url="clip.mp4",
        questions=tuple(Question(id=f"q{n}", prompt=prompt) for n, prompt in enumerate(asked)),
        settings=Settings(**settings),
    )


class FakeDecoder:
    """Chunks that are there already, then an end; what it gives depends on the time alone."""

    def __init__(self, chunks: Sequence[FrameChunk], end: End | Failure | None = None) -> None:
        self.chunks = list(chunks)
        self.end = end or End()

    def read(self, start_s: float) -> FrameChunk | End | Failure:
        return next((c for c in self.chunks if c.t0 >= start_s - 1e-6), self.end)


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


class PowerCut(Exception):
    """The worker dies here."""


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


def tokenizer_of(
    model: VideoModel,
    job: Job,
    decoder: FakeDecoder,
    queue: Queue,
    clock: ManualClock | None = None,
) -> TokenizeWorker:
    """A tokenize worker around a tiny model; the job is created when it is not there."""
    queue.create_job(job.id, job.record())
    return TokenizeWorker(
        job,
        decoder,
        queue,
        clock or ManualClock(),
        lambda job: encoder_for(model, job),
    )


def token_entries(model: VideoModel, job: Job, decoder: FakeDecoder) -> list[Entry]:
    """The whole token stream of a job."""
    queue = RememberingQueue()
    worker = tokenizer_of(model, job, decoder, queue)
    while worker.step():
        write_events(queue, job, upto=queue.last(job.id, "tokens"))
    return queue.everything("tokens")


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
