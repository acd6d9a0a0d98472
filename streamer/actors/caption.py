"""Captioning: a job's token stream into its event stream, one entry per chunk."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from streamer.adapters.clock import Clock
from streamer.adapters.queue import Entry, Queue
from streamer.errors import WireError
from streamer.events import Event, EventKind, encode_chunk_events, event_id
from streamer.groups import head_of, last_group
from streamer.jobs import Job, read_status
from streamer.language.session import Ask, Session, answer
from streamer.model import VideoModel
from streamer.wire import ChunkHead, decode

BLOCK_S = 0.5


class CaptionWorker:
    """Writes one job's event stream. Its state is the token stream since the last I-chunk."""

    def __init__(self, job: Job, model: VideoModel, queue: Queue, clock: Clock) -> None:
        self.job = job
        self.model = model
        self.queue = queue
        self.clock = clock
        self.session = Session(model)
        self.said = queue.last(job.id, "events")
        self.t0 = self.t1 = 0.0
        self.resume()

    def resume(self) -> None:
        """Rebuilds the session's trunk up to the last chunk that has its events."""
        if self.said:
            for entry in last_group(self.queue, self.job.id, upto=self.said):
                with suppress(WireError):  # said to be broken when its turn came
                    self._append(entry)

    def step(self) -> bool:
        """Takes the chunks that are there, waiting a moment for one; False when all is said."""
        entries = self.queue.read(self.job.id, "tokens", after=self.said, count=4, block_s=BLOCK_S)
        for entry in entries:
            self._say(entry)
        return bool(entries) or not self._finished()

    def _say(self, entry: Entry) -> None:
        received, started = self.clock.now(), self.clock.monotonic()
        try:
            head = self._append(entry)
        except WireError as exc:
            events = [self._event(entry.number, 0, "error", reason=str(exc))]
        else:
            if head.has_body:
                events = self._captions(head, received, started)
            else:
                kind: EventKind = "gap" if head.kind == "gap" else "skipped"
                events = [self._event(head.number, 0, kind, reason=head.reason)]
        self.queue.append(self.job.id, "events", entry.number, encode_chunk_events(events))
        self.said = entry.number

    def _append(self, entry: Entry) -> ChunkHead:
        head = head_of(entry, self.job.id)
        self.t0, self.t1 = head.t0, head.t1
        if head.kind == "I":
            self.session.restart(head.t0)  # even if its body is broken: what follows is a new group
        chunk = decode(entry.fields, where=entry.where)
        if chunk.head.has_body:
            self.session.append(chunk, where=entry.where)
        return chunk.head

    def _captions(self, head: ChunkHead, received: float, started: float) -> list[Event]:
        asks = [Ask(session=self.session, prompt=q.prompt) for q in self.job.questions]
        answers = answer(self.model, asks, max_new_tokens=self.job.settings.model.max_new_tokens)
        queued_ms = max(0.0, received - head.written_at) * 1e3 if head.written_at else 0.0
        vlm_ms = (self.clock.monotonic() - started) * 1e3
        return [
            replace(
                self._event(head.number, n, "caption"),
                question=question.id,
                text=said.text,
                input_tokens=head.tokens,
                dense_tokens=head.dense,
                output_tokens=said.output_tokens,
                decode_latency_ms=head.decode_ms,
                tokenize_latency_ms=head.tokenize_ms,
                queue_time_ms=round(queued_ms, 2),
                vlm_latency_ms=round(vlm_ms, 2),
                chunk_latency_ms=round(head.decode_ms + head.tokenize_ms + queued_ms + vlm_ms, 2),
            )
            for n, (question, said) in enumerate(zip(self.job.questions, answers, strict=True))
        ]

    def _event(self, chunk: int, n: int, kind: EventKind, reason: str | None = None) -> Event:
        return Event(
            id=event_id(chunk, n),
            event=kind,
            job=self.job.id,
            chunk=chunk,
            t0=self.t0,
            t1=self.t1,
            reason=reason,
        )

    def _finished(self) -> bool:
        record = self.queue.job(self.job.id)
        if record is None:
            return True
        status = read_status(record)
        if status.last_chunk is None or self.said < status.last_chunk:
            return False
        self.queue.update_job(self.job.id, {"state": "failed" if status.error else "ended"})
        return True
