"""Captioning: jobs' token streams into their event streams, one entry per chunk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import structlog

from streamer.actors.worker import JobWorker
from streamer.adapters.clock import Clock
from streamer.adapters.queue import Entry, Queue
from streamer.core.pipeline import build_pipeline
from streamer.errors import WireError
from streamer.events import (
    Event,
    EventKind,
    Totals,
    decode_totals,
    encode_chunk_events,
    event_id,
)
from streamer.groups import head_of, last_group
from streamer.jobs import Job, JobStatus, Question, read_questions, read_status
from streamer.language.decoding import Answer, Ask, Decoding
from streamer.language.session import Session
from streamer.model import VideoModel
from streamer.wire import ChunkHead, decode
from streamer.workers import Progress

BLOCK_S = 0.2
LOOK_S = 0.05
"""How often the queue is looked at while answers are being decoded."""
PAGE = 2
CAREFUL_S = 60.0
"""How long chunks are captioned one by one after several together failed."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Turn:
    """A chunk whose questions are being answered."""

    head: ChunkHead
    questions: tuple[Question, ...]
    received: float
    started: float


class Captioning:
    """Writes one job's event stream. Its state is the token stream since the last I-chunk."""

    def __init__(self, job: Job, model: VideoModel, queue: Queue, clock: Clock) -> None:
        self.job = job
        self.model = model
        self.queue = queue
        self.clock = clock
        self.session = Session(model, build_pipeline(job.settings.pipeline))
        self.said = queue.last(job.id, "events")
        self.totals = Totals()
        self.t0 = self.t1 = 0.0
        self.pending: deque[Entry] = deque()
        self.turn: _Turn | None = None
        if self.said:
            self._resume()

    @property
    def progress(self) -> Progress:
        return Progress(chunk=self.said, t1=self.t1)

    @property
    def received(self) -> int:
        """Number of the last entry taken from the token stream."""
        if self.pending:
            return self.pending[-1].number
        return self.turn.head.number if self.turn else self.said

    def close(self) -> None:
        pass

    def begin(self, questions: tuple[Question, ...]) -> list[Ask]:
        """Takes the next pending entry; what is to be asked about it, which may be nothing."""
        entry = self.pending.popleft()
        received, started = self.clock.now(), self.clock.monotonic()
        self.turn = None
        try:
            head = self._append(entry)
        except WireError as exc:
            self._write(entry.number, [self._event(entry.number, 0, "error", reason=str(exc))])
            return []
        if not head.has_body:
            kind: EventKind = "gap" if head.kind == "gap" else "skipped"
            self._write(head.number, [self._event(head.number, 0, kind, reason=head.reason)])
            return []
        self.turn = _Turn(head=head, questions=questions, received=received, started=started)
        return [Ask(session=self.session, prompt=question.prompt) for question in questions]

    @property
    def asked(self) -> int:
        """How many answers the present chunk needs."""
        return len(self.turn.questions) if self.turn else 0

    def end(self, answers: list[Answer]) -> Event:
        """Writes the answers to what `begin` asked; the first of its events."""
        assert self.turn is not None
        turn, self.turn = self.turn, None
        events = self._captions(turn, answers)
        self._write(turn.head.number, events, turn.head)
        return events[0]

    def is_finished(self, status: JobStatus) -> bool:
        """Whether every chunk there will ever be has its events."""
        return status.last_chunk is not None and self.said >= status.last_chunk

    def _resume(self) -> None:
        """Rebuilds the session's trunk up to the last chunk that has its events."""
        entry = self.queue.entry(self.job.id, "events", self.said)
        if entry is not None:
            self.totals = decode_totals(entry)
        for kept in last_group(self.queue, self.job.id, upto=self.said):
            with suppress(WireError):  # said to be broken when its turn came
                self._append(kept)

    def _append(self, entry: Entry) -> ChunkHead:
        head = head_of(entry, self.job.id)
        self.t0, self.t1 = head.t0, head.t1
        if head.kind == "I":
            self.session.restart(head.t0)  # even if its body is broken: what follows is a new group
        chunk = decode(entry.fields, where=entry.where)
        if chunk.head.has_body:
            self.session.append(chunk, where=entry.where)
        return chunk.head

    def _write(self, number: int, events: list[Event], head: ChunkHead | None = None) -> None:
        totals = self._totals(events, head)
        self.queue.append(self.job.id, "events", number, encode_chunk_events(events, totals))
        self.said, self.totals = number, totals

    def _totals(self, events: list[Event], head: ChunkHead | None) -> Totals:
        before = self.totals
        counted = replace(
            before,
            chunks=before.chunks + 1,
            captions=before.captions + sum(event.event == "caption" for event in events),
            errors=before.errors + sum(event.event == "error" for event in events),
            t1=self.t1,
            output_tokens=before.output_tokens + sum(event.output_tokens or 0 for event in events),
        )
        if head is None:
            return counted
        return replace(
            counted,
            patches=before.patches + head.dense * self.model.geometry.merge_size**2,
            patches_kept=before.patches_kept + head.patches_kept,
            tokens_dense=before.tokens_dense + head.dense,
            tokens=before.tokens + head.tokens,
        )

    def _captions(self, turn: _Turn, answers: list[Answer]) -> list[Event]:
        head = turn.head
        queued_ms = max(0.0, turn.received - head.written_at) * 1e3 if head.written_at else 0.0
        vlm_ms = (self.clock.monotonic() - turn.started) * 1e3
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
            for n, (question, said) in enumerate(zip(turn.questions, answers, strict=True))
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


class CaptionWorker(JobWorker[Captioning]):
    """Captions many jobs, their answers decoded together; tenants take turns in joining."""

    def __init__(
        self, model: VideoModel, queue: Queue, clock: Clock, *, batch: int, max_new_tokens: int
    ) -> None:
        """batch: most jobs whose chunks are captioned at the same time."""
        super().__init__(queue, clock)
        self.model = model
        self.batch = batch
        self.decoding: Decoding[tuple[str, int]] = Decoding(model, max_new_tokens=max_new_tokens)
        self.answering: dict[str, dict[int, Answer]] = {}
        """Jobs with a chunk that is being captioned: its answers so far, by question."""
        self.careful_until = 0.0
        self.looked_at: float | None = None

    def open(self, job: Job) -> Captioning:
        return Captioning(job, self.model, self.queue, self.clock)

    def is_over(self, status: JobStatus) -> bool:
        return status.finished

    def fail(self, job_id: str, reason: str) -> None:
        self._finish(job_id, {"state": "failed", "error": reason})

    def drop(self, job_id: str) -> None:
        if self.answering.pop(job_id, None) is not None:
            self.decoding.drop({row.key for row in self.decoding.rows if row.key[0] == job_id})
        super().drop(job_id)

    def work(self) -> bool:
        """Lets chunks join, then decodes one token of every answer."""
        self._receive()
        begun = self._join()
        if not self.answering:
            return begun
        with self.meter.step(size=len(self.answering)), self._together():
            for (job_id, question), said in self.decoding.step().items():
                self.answering[job_id][question] = said
        self._end()
        return True

    def _receive(self) -> None:
        """Takes what is there for jobs with nothing pending; waits a moment if nobody has any."""
        idle = {job_id: run for job_id, run in self.runs.items() if not run.pending}
        waits = not self.answering and len(idle) == len(self.runs)
        now = self.clock.monotonic()
        if not waits and self.looked_at is not None and now - self.looked_at < LOOK_S:
            return
        self.looked_at = now
        if not idle:
            if waits:
                self.clock.sleep(BLOCK_S)
            return
        after = {job_id: run.received for job_id, run in idle.items()}
        found = self.queue.read_any("tokens", after, count=PAGE, block_s=BLOCK_S if waits else 0.0)
        for job_id, entries in found.items():
            self.runs[job_id].pending.extend(entries)
        self._end_idle([job for job in idle if job not in found and job not in self.answering])

    def _join(self) -> bool:
        """Begins the chunks whose turn it is; whether there were any."""
        active = {job_id: self.placements[job_id].tenant for job_id in self.answering}
        ready = {
            job_id: self.placements[job_id].tenant
            for job_id, run in self.runs.items()
            if run.pending and job_id not in active
        }
        careful = self.clock.monotonic() < self.careful_until or any(
            self.placements[job_id].strikes > 1 for job_id in ready
        )
        most = 1 if careful else self.batch
        picked = self.turns.pick(ready, most=most, active=active)
        self.backlog = len(ready) - len(picked)
        if not picked:
            return False
        with self.meter.step():
            self._begin(picked)
        return True

    def _begin(self, picked: list[str]) -> None:
        asks: dict[tuple[str, int], Ask] = {}
        try:
            for job_id, record in self.queue.records(picked).items():
                with self.isolated(job_id):
                    asked = self.runs[job_id].begin(read_questions(record))
                    asks |= {(job_id, n): ask for n, ask in enumerate(asked)}
                    if asked:
                        self.answering[job_id] = {}
        finally:  # who has begun goes on, even where the queue was lost at another one
            with self._together():
                self.decoding.begin(asks)

    def _end(self) -> None:
        """Writes the events of the chunks that have all their answers."""
        for job_id in list(self.answering):
            run, answers = self.runs[job_id], self.answering[job_id]
            if len(answers) < run.asked:
                continue
            del self.answering[job_id]
            with self.isolated(job_id):
                event = run.end([answers[n] for n in range(run.asked)])
                self.meter.chunk((event.chunk_latency_ms or 0.0) / 1e3)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """An error of the batch is that of one job in it, or of their number.

        So for a while they are captioned one by one, and the job at fault fails alone.
        """
        try:
            yield
        except Exception as exc:  # lack of memory, or what only one of them brings
            jobs = list(self.answering)
            if len(jobs) == 1:
                with self.isolated(jobs[0]):
                    raise
            reason = " ".join(str(exc).split())[:200]
            if len(jobs) > 1:
                log.warning("batch_failed", jobs=len(jobs), reason=reason)
                self.careful_until = self.clock.monotonic() + CAREFUL_S
            for job_id in jobs:
                self.drop(job_id)

    def _end_idle(self, idle: list[str]) -> None:
        """Ends those that are through."""
        for job_id, record in self.queue.records(idle).items():
            with self.isolated(job_id):
                status = read_status(record)
                if status.finished:
                    self.over(job_id)
                elif self.runs[job_id].is_finished(status):
                    self._finish(job_id, {"state": "failed" if status.error else "ended"})
                    self.over(job_id)

    def _finish(self, job_id: str, fields: dict[str, str]) -> None:
        self.queue.finish_job(job_id, {**fields, "ended_at": f"{self.clock.now():.3f}"})
