"""The whole path in one process: real decoders, the real model, no Ray and no Redis."""

from __future__ import annotations

from streamer.actors.caption import CaptionWorker
from streamer.actors.decode import DecodeWorker, End, Failure, Reading
from streamer.actors.tokenize import TokenizeWorker, encoder_for
from streamer.adapters.clock import SystemClock
from streamer.adapters.memory_queue import MemoryQueue
from streamer.config import Settings
from streamer.events import Event, decode_chunk_events
from streamer.jobs import Job, JobStatus, Question, read_status
from streamer.model import VideoModel
from streamer.types import FrameChunk


class DirectDecoder:
    """A decode worker that is called, not sent to."""

    def __init__(self, worker: DecodeWorker, reading: Reading) -> None:
        self.worker = worker
        self.reading = reading

    def read(self, start_s: float) -> FrameChunk | End | Failure:
        return self.worker.read(self.reading, start_s)


def caption_file(
    url: str, model: VideoModel, settings: Settings | None = None
) -> tuple[list[Event], JobStatus]:
    """Every event of a job on `url`, and how it ended."""
    settings = settings or Settings()
    job = Job(
        id="job",
        url=url,
        questions=(Question(id="default", prompt=settings.question),),
        settings=settings,
    )
    queue, clock = MemoryQueue(), SystemClock()
    queue.create_job(job.id, job.record())
    reading = Reading(job=job.id, url=url, fps=settings.source.fps, chunk_s=settings.source.chunk_s)
    tokenize = TokenizeWorker(
        job,
        DirectDecoder(DecodeWorker(), reading),
        queue,
        clock,
        lambda job: encoder_for(model, job),
    )
    caption = CaptionWorker(job, model, queue, clock)
    while tokenize.step():
        if queue.last(job.id, "tokens") > caption.said:
            caption.step()
    while caption.step():
        pass
    entries = queue.read(job.id, "events", after=0, count=100_000)
    record = queue.job(job.id)
    assert record is not None
    return [e for entry in entries for e in decode_chunk_events(entry)], read_status(record)
