"""Tokenizing: a source's chunks into the job's token stream, from wherever that stream ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from streamer.actors.decode import End, Failure
from streamer.adapters.clock import Clock
from streamer.adapters.queue import Queue
from streamer.core.keyframes import KeyframePolicy
from streamer.core.pipeline import build_pipeline
from streamer.errors import SourceError
from streamer.groups import head_of, last_group
from streamer.jobs import Job
from streamer.model import VideoModel
from streamer.types import FrameChunk, Gap
from streamer.vision.stream_encoder import StreamEncoder
from streamer.wire import ChunkHead, TokenChunk, encode

POLL_S = 0.05


class Decoder(Protocol):
    """Where chunks of pictures come from."""

    def read(self, start_s: float) -> FrameChunk | End | Failure: ...


class TokenizeWorker:
    """Writes one job's token stream. Holds nothing that the stream and the source cannot rebuild.

    make_encoder gives a fresh StreamEncoder for the job.
    """

    def __init__(
        self,
        job: Job,
        decoder: Decoder,
        queue: Queue,
        clock: Clock,
        make_encoder: Callable[[Job], StreamEncoder],
    ) -> None:
        self.job = job
        self.decoder = decoder
        self.queue = queue
        self.clock = clock
        self.encoder = make_encoder(job)
        self.number = 1
        self.next_s = 0.0
        self.captioned = 0
        self.groups: list[int] = []
        self.resume()

    def resume(self) -> None:
        """Finds the stream's end and brings the encoder to the state it had there.

        The last group's pictures are decoded again, because the next P-chunk must be compared with
        the same picture as before; nothing is encoded twice.
        """
        entries = last_group(self.queue, self.job.id)
        heads = [head_of(entry, self.job.id) for entry in entries]
        self.groups = [heads[0].number] if heads else []
        for head in heads:
            self._take_up(head, heads[0])
            self.number, self.next_s = head.number + 1, head.t1

    def _take_up(self, head: ChunkHead, first: ChunkHead) -> None:
        if not head.has_body:
            self.encoder.gap(Gap(number=head.number, t0=head.t0, t1=head.t1, reason=head.reason))
            return
        chunk = self.decoder.read(head.t0)
        if not isinstance(chunk, FrameChunk):
            told = chunk.reason if isinstance(chunk, Failure) else "it ends before"
            raise SourceError(f"the source cannot be read again from {head.t0:g} s: {told}")
        self.encoder.replay(chunk, first_tubelet=first.tubelet_t)

    def step(self) -> bool:
        """Writes the next entry, or waits a moment when it is too far ahead; False at the end."""
        if self._too_far_ahead():
            self.clock.sleep(POLL_S)
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

    def finish(self, error: str | None) -> None:
        """No more chunks will come."""
        fields = {"last_chunk": str(self.number - 1)}
        self.queue.update_job(self.job.id, {**fields, "error": error} if error else fields)

    def _too_far_ahead(self) -> bool:
        ahead = self.job.settings.queue.ahead
        if self.number - self.captioned <= ahead:
            return False
        self.captioned = self.queue.last(self.job.id, "events")
        return self.number - self.captioned > ahead

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
