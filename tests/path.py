"""The whole path in one process: real decoders, the real model, no Ray and no Redis."""

from __future__ import annotations

from streamer.actors.caption import CaptionWorker
from streamer.actors.decode import DecodeWorker, End, Failure, NotYet, Reading
from streamer.actors.tokenize import TokenizeWorker, encoder_for
from streamer.adapters.clock import SystemClock
from streamer.adapters.memory_queue import MemoryQueue
from streamer.config import Settings
from streamer.events import Event, decode_chunk_events
from streamer.jobs import Job, JobStatus, Question, read_status
from streamer.model import VideoModel
from streamer.types import FrameChunk
from streamer.workers import Placement


class DirectDecoder:
    """A decode worker that is called, not sent to."""

    def __init__(self, worker: DecodeWorker, job: Job) -> None:
        self.worker = worker
        self.reading = Reading.of(job)

    def use(self, worker: str | None) -> None:
        pass

    def ready(self, start_s: float, wall_s: float | None = None) -> bool:
        return True

    def read(self, start_s: float, wall_s: float | None = None) -> FrameChunk | End | Failure:
        while isinstance(read := self.worker.read(self.reading, start_s, wall_s), NotYet):
            pass
        return read

    def close(self) -> None:
        self.worker.close(self.reading.job)


def caption_file(
    url: str, model: VideoModel, settings: Settings | None = None
) -> tuple[list[Event], JobStatus]:
    """Every event of a job on `url`, and how it ended."""
    settings = settings or Settings()
    job = Job(
        id="job",
        url=url,
        questions=(Question(id="default", prompt=settings.question),),
        settings=settings.job,
    )
    queue, clock, decoder = MemoryQueue(), SystemClock(), DecodeWorker()
    queue.create_job(job.id, job.record())
    tokenize = TokenizeWorker(
        queue,
        clock,
        decoder_of=lambda job: DirectDecoder(decoder, job),
        encoder_of=lambda job: encoder_for(model, job),
        wait=lambda: None,
    )
    caption = CaptionWorker(
        model, queue, clock, batch=1, max_new_tokens=settings.model.max_new_tokens
    )
    placements = {job.id: Placement(tenant=job.tenant)}
    tokenize.take(placements)
    caption.take(placements)
    while caption.runs:
        tokenize.work()
        caption.work()
    entries = queue.read(job.id, "events", after=0, count=100_000)
    record = queue.job(job.id)
    assert record is not None
    return [e for entry in entries for e in decode_chunk_events(entry)], read_status(record)
