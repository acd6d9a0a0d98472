"""Tokenizing: sources' chunks into their jobs' token streams, from wherever those end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from streamer.actors.decode import End, Failure
from streamer.actors.worker import JobWorker
from streamer.adapters.clock import Clock
from streamer.adapters.queue import Queue
from streamer.core.keyframes import KeyframePolicy
from streamer.core.pipeline import build_pipeline
from streamer.errors import SourceError
from streamer.groups import head_of, last_group
from streamer.jobs import Job, JobStatus
from streamer.model import VideoModel
from streamer.types import FrameChunk, Gap
from streamer.vision.stream_encoder import StreamEncoder
from streamer.wire import ChunkHead, TokenChunk, encode
from streamer.workers import Placement, Progress

LOOK_S = 0.1
"""How often a job that waits for its captions looks how far they are."""


class Decoder(Protocol):
    """Where one job's chunks of pictures come from."""

    def use(self, worker: str | None) -> None:
        """The decode worker to ask from now on."""
        ...

    def ready(self, start_s: float) -> bool:
        """Whether `read` would answer at once; asks for the chunk if nobody did."""
        ...

    def read(self, start_s: float) -> FrameChunk | End | Failure: ...

    def close(self) -> None: ...


class Tokenizing:
    """Writes one job's token stream. Holds nothing that the stream and the source cannot rebuild.

    The last group's pictures are decoded again first, because the next P-chunk must be compared
    with the same picture as before; nothing is encoded twice, unless operators after the encoder
    remember tokens.
    """

    def __init__(
        self, job: Job, decoder: Decoder, queue: Queue, clock: Clock, encoder: StreamEncoder
    ) -> None:
        self.job = job
        self.decoder = decoder
        self.queue = queue
        self.clock = clock
        self.encoder = encoder
        heads = [head_of(entry, job.id) for entry in last_group(queue, job.id)]
        self.replay = deque(heads)
        self.first_tubelet = heads[0].tubelet_t if heads else 0
        self.groups = [heads[0].number] if heads else []
        self.number = heads[-1].number + 1 if heads else 1
        self.next_s = heads[-1].t1 if heads else 0.0
        self.captioned = 0
        self.looked_at: float | None = None

    @property
    def progress(self) -> Progress:
        return Progress(chunk=self.number - 1, t1=self.next_s)

    def close(self) -> None:
        self.decoder.close()

    def ready(self) -> bool:
        """Whether `step` would do something, and at once."""
        if self.replay:
            head = self.replay[0]
            return not head.has_body or self.decoder.ready(head.t0)
        return self.decoder.ready(self.next_s) and not self.too_far_ahead()

    def step(self) -> bool:
        """Writes the next entry, or takes up one that is written; False at the end."""
        if self.replay:
            self._take_up(self.replay[0])
            self.replay.popleft()
            return True
        read = self.decoder.read(self.next_s)
        if isinstance(read, FrameChunk):
            if not self._write_gap(self.next_s, read.t0, "the source has no pictures here"):
                self._write(self.encoder.encode(replace(read, number=self.number)))
            return True
        error = None
        if isinstance(read, Failure):
            error = read.reason
        elif read.missing is not None:
            self._write_gap(
                max(self.next_s, read.missing[0]),
                read.missing[1],
                "the file announces pictures here, but does not hold them",
            )
        self.finish(error)
        return False

    def too_far_ahead(self) -> bool:
        """Whether the job waits for its captions."""
        ahead = self.job.settings.source.ahead
        if self.number - self.captioned <= ahead:
            return False
        now = self.clock.monotonic()
        if self.looked_at is None or now - self.looked_at >= LOOK_S:
            self.looked_at = now
            self.captioned = self.queue.last(self.job.id, "events")
        return self.number - self.captioned > ahead

    def _take_up(self, head: ChunkHead) -> None:
        if not head.has_body:
            self.encoder.gap(Gap(number=head.number, t0=head.t0, t1=head.t1, reason=head.reason))
            return
        chunk = self.decoder.read(head.t0)
        if not isinstance(chunk, FrameChunk):
            told = chunk.reason if isinstance(chunk, Failure) else "it ends before"
            raise SourceError(f"the source cannot be read again from {head.t0:g} s: {told}")
        self.encoder.replay(chunk, tokens=head.tokens, first_tubelet=self.first_tubelet)

    def finish(self, error: str | None) -> None:
        """No more chunks will come."""
        fields = {"last_chunk": str(self.number - 1)}
        self.queue.update_job(self.job.id, {**fields, "error": error} if error else fields)

    def _write_gap(self, t0: float, t1: float, reason: str) -> bool:
        """False, and nothing written, where nothing is missing."""
        if t1 <= t0 + 1e-6:
            return False
        self._write(self.encoder.gap(Gap(number=self.number, t0=t0, t1=t1, reason=reason)))
        return True

    def _write(self, chunk: TokenChunk) -> None:
        stamped = replace(chunk, head=replace(chunk.head, written_at=self.clock.now()))
        self.queue.append(self.job.id, "tokens", self.number, encode(stamped))
        if chunk.head.kind == "I":
            self.groups.append(self.number)
            self._trim()
        self.number, self.next_s = self.number + 1, chunk.head.t1

    def _trim(self) -> None:
        """Drops the groups before the one that the captioner would be rebuilt from."""
        self.captioned = self.queue.last(self.job.id, "events")
        behind = [number for number in self.groups if number <= self.captioned]
        if behind:
            self.queue.trim(self.job.id, "tokens", before=behind[-1])
            self.groups = [number for number in self.groups if number >= behind[-1]]


class TokenizeWorker(JobWorker[Tokenizing]):
    """Tokenizes many jobs in turn, a chunk at a time; tenants take turns."""

    def __init__(
        self,
        queue: Queue,
        clock: Clock,
        *,
        decoder_of: Callable[[Job], Decoder],
        encoder_of: Callable[[Job], StreamEncoder],
        wait: Callable[[], None],
    ) -> None:
        """wait: returns when a decoder may have something, or after a moment."""
        super().__init__(queue, clock)
        self.decoder_of = decoder_of
        self.encoder_of = encoder_of
        self.wait = wait

    def open(self, job: Job) -> Tokenizing:
        decoder = self.decoder_of(job)
        decoder.use(self.placements[job.id].decode)
        return Tokenizing(job, decoder, self.queue, self.clock, self.encoder_of(job))

    def is_over(self, status: JobStatus) -> bool:
        return status.finished or status.last_chunk is not None

    def fail(self, job_id: str, reason: str) -> None:
        last = self.queue.last(job_id, "tokens")
        self.queue.update_job(job_id, {"last_chunk": str(last), "error": reason})

    def take(self, placements: Mapping[str, Placement]) -> None:
        super().take(placements)
        for job_id, run in self.runs.items():
            run.decoder.use(placements[job_id].decode)

    def work(self) -> bool:
        ready = self._ready()
        self.backlog = max(0, len(ready) - 1)
        for job_id in self.turns.pick(ready, most=1):
            with self.isolated(job_id), self.meter.step():
                self._step(job_id, self.runs[job_id])
            return True
        self.wait()
        return False

    def _ready(self) -> dict[str, str]:
        ready = {}
        for job_id, run in list(self.runs.items()):
            placement = self.placements[job_id]
            with self.isolated(job_id):
                if not placement.paused and run.ready():
                    ready[job_id] = placement.tenant
        return ready

    def _step(self, job_id: str, run: Tokenizing) -> None:
        before, started = run.number, self.clock.monotonic()
        if not run.step():
            self.over(job_id)
        if run.number > before:
            self.meter.chunk(self.clock.monotonic() - started)


def encoder_for(model: VideoModel, job: Job) -> StreamEncoder:
    """The encoder that a job's settings describe."""
    keyframes = job.settings.keyframes
    return StreamEncoder(
        model.tower,
        model.geometry,
        job=job.id,
        pipeline=build_pipeline(job.settings.pipeline),
        policy=KeyframePolicy(
            interval_s=keyframes.interval_s,
            budget=keyframes.budget,
            cut_share=keyframes.cut_share,
        ),
    )
