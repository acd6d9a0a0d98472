"""Captioning: jobs' token streams into their event streams, one entry per chunk."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

import structlog

from streamer.actors.worker import JobWorker
from streamer.adapters.clock import Clock
from streamer.adapters.queue import Entry, Queue
from streamer.core.pace import SKIPPING
from streamer.core.pipeline import build_pipeline
from streamer.core.speaking import Speaking, decide, lost
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
from streamer.speech import Speech, decode_speech, encode_speech, said_key
from streamer.wire import ChunkHead, decode
from streamer.workers import Progress

BLOCK_S = 0.2
LOOK_S = 0.05
"""How often the queue is looked at while answers are being decoded."""
PAGE = 2
ASK = -1
"""Of an answer's key: it is the desk's, and of no job."""
CAREFUL_S = 60.0
"""How long chunks are captioned one by one after several together failed."""

log = structlog.get_logger(__name__)


class Desk(Protocol):
    """Where questions come from that are asked once, beside those of jobs. A key is the desk's."""

    @property
    def busy(self) -> bool:
        """Whether `take` has work to do, beside looking for questions."""

    def take(self, *, room: int) -> Mapping[str, Ask]:
        """At most `room` new questions whose sessions are ready; called often."""

    def told(self, key: str, text: str) -> None:
        """What its answer is so far."""

    def hear(self, key: str, answer: Answer) -> None:
        """Its answer."""

    def fail(self, key: str, reason: str) -> None:
        """There will be no answer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Turn:
    """A chunk whose questions are being answered."""

    head: ChunkHead
    questions: tuple[Question, ...]
    asked: tuple[Question, ...]
    """Those of them that the LLM answers."""
    after: Speaking
    received: float
    started: float


class Captioning:
    """Writes one job's event stream. Its state is the token stream since the last I-chunk, and what
    its last entry there remembers."""

    def __init__(self, job: Job, model: VideoModel, queue: Queue, clock: Clock) -> None:
        self.job = job
        self.model = model
        self.queue = queue
        self.clock = clock
        self.session = Session(model, build_pipeline(job.settings.pipeline))
        self.said = queue.last(job.id, "events")
        self.totals = Totals()
        self.speech = Speech()
        self.t0 = self.t1 = 0.0
        self.walls: tuple[str | None, str | None] = (None, None)
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
        """Takes the next pending entry; what is to be asked about it, which may be nothing.

        `turn` is None afterwards where that is all there is to it.
        """
        self.turn, self.walls = None, (None, None)
        if self.pending[0].number > self.said + 1:
            self._skip_to(self.pending[0])
            return []
        entry = self.pending.popleft()
        received, started = self.clock.now(), self.clock.monotonic()
        try:
            head = self._append(entry)
        except WireError as exc:
            self._tell_no_chunk(entry.number, "error", str(exc))
            return []
        if not head.has_body:
            self._tell_no_chunk(
                head.number, "gap" if head.kind == "gap" else "skipped", head.reason
            )
            return []
        decision = decide(
            self.speech.speaking,
            changed=head.changed,
            seconds=head.t1 - head.t0,
            keyframe=head.reason if head.kind == "I" else None,
        )
        asked = tuple(
            question
            for question in questions
            if question.when == "every"
            or decision.why
            or said_key(question) not in self.speech.said
        )
        self.turn = _Turn(
            head=head,
            questions=questions,
            asked=asked,
            after=decision.after,
            received=received,
            started=started,
        )
        return [Ask(session=self.session, prompt=question.prompt) for question in asked]

    @property
    def asked(self) -> int:
        """How many answers the present chunk needs."""
        return len(self.turn.asked) if self.turn else 0

    def end(self, answers: list[Answer]) -> Event:
        """Writes the answers to what `begin` asked; the first of its events."""
        assert self.turn is not None
        turn, self.turn = self.turn, None
        answered = {q.id: said for q, said in zip(turn.asked, answers, strict=True)}
        events = self._events(turn, answered)
        speech = Speech(
            speaking=turn.after,
            said={
                said_key(question): answered[question.id].text
                if question.id in answered
                else self.speech.said[said_key(question)]
                for question in turn.questions
                if question.when == "on_change"
            },
            level=turn.head.level,
        )
        self._write(turn.head.number, events, speech, turn, answers)
        return events[0]

    def skip_to_end(self, last_chunk: int) -> None:
        """All that was left to be captioned is gone."""
        self.walls = (None, None)
        self.t0 = self.t1
        self._tell_no_chunk(last_chunk, "skipped", "trimmed")

    def is_finished(self, status: JobStatus) -> bool:
        """Whether every chunk there will ever be has its events."""
        return status.last_chunk is not None and self.said >= status.last_chunk

    def _resume(self) -> None:
        """Rebuilds the session's trunk up to the last chunk that has its events."""
        entry = self.queue.entry(self.job.id, "events", self.said)
        if entry is not None:
            self.totals = decode_totals(entry)
            self.speech = decode_speech(entry)
            self.t0 = self.t1 = self.totals.t1
        for kept in last_group(self.queue, self.job.id, upto=self.said):
            with suppress(WireError):  # said to be broken when its turn came
                self._append(kept)

    def _append(self, entry: Entry) -> ChunkHead:
        head = head_of(entry, self.job.id)
        self.t0, self.t1 = head.t0, head.t1
        if head.live:
            self.walls = (_rfc3339(head.wall0), _rfc3339(head.wall1))
        if head.kind == "I":
            self.session.restart(head.t0)  # even if its body is broken: what follows is a new group
        chunk = decode(entry.fields, where=entry.where)
        if chunk.head.has_body:
            self.session.append(chunk, where=entry.where)
        return chunk.head

    def _skip_to(self, entry: Entry) -> None:
        """Entries before this one are gone, and nobody has said anything about them."""
        self.t0 = self.t1
        with suppress(WireError):
            self.t1 = max(self.t0, head_of(entry, self.job.id).t0)
        self._tell_no_chunk(entry.number - 1, "skipped", "trimmed")

    def _tell_no_chunk(self, number: int, kind: EventKind, reason: str) -> None:
        event = self._event(number, 0, kind, reason=reason)
        speech = replace(self.speech, speaking=lost(self.speech.speaking))
        self._write(number, [event], speech)

    def _write(
        self,
        number: int,
        events: list[Event],
        speech: Speech,
        turn: _Turn | None = None,
        answers: Sequence[Answer] = (),
    ) -> None:
        totals = self._totals(events, turn, answers)
        fields = encode_chunk_events(events, totals)
        self.queue.append(
            self.job.id, "events", number, {**fields, "speech": encode_speech(speech)}
        )
        self.said, self.totals, self.speech = number, totals, speech

    def _totals(self, events: list[Event], turn: _Turn | None, answers: Sequence[Answer]) -> Totals:
        before, kinds = self.totals, Counter(event.event for event in events)
        counted = replace(
            before,
            chunks=before.chunks + 1,
            captions=before.captions + kinds["caption"],
            unchanged=before.unchanged + kinds["unchanged"],
            gaps=before.gaps + kinds["gap"],
            skipped=before.skipped + kinds["skipped"],
            levels=before.levels + kinds["level"],
            errors=before.errors + kinds["error"],
            t1=self.t1,
            # of answers that say the same again too
            output_tokens=before.output_tokens + sum(said.output_tokens for said in answers),
        )
        if turn is None:
            return counted
        head = turn.head
        return replace(
            counted,
            asked=before.asked + len(turn.asked),
            patches=before.patches + head.dense * self.model.geometry.merge_size**2,
            patches_kept=before.patches_kept + head.patches_kept,
            tokens_dense=before.tokens_dense + head.dense,
            tokens=before.tokens + head.tokens,
        )

    def _events(self, turn: _Turn, answered: Mapping[str, Answer]) -> list[Event]:
        head = turn.head
        queued_ms = max(0.0, turn.received - head.written_at) * 1e3 if head.written_at else 0.0
        vlm_ms = (self.clock.monotonic() - turn.started) * 1e3
        event = replace(
            self._event(head.number, 0, "seen"),
            input_tokens=head.tokens,
            dense_tokens=head.dense,
            decode_latency_ms=head.decode_ms,
            tokenize_latency_ms=head.tokenize_ms,
            queue_time_ms=round(queued_ms, 2),
            chunk_latency_ms=round(head.decode_ms + head.tokenize_ms + queued_ms + vlm_ms, 2),
        )
        events = [event] if not turn.questions else []
        for question in turn.questions:
            said = answered.get(question.id)
            event = replace(
                event,
                id=event_id(head.number, len(events)),
                event="unchanged",
                question=question.id,
                text=None,
                output_tokens=None,
                vlm_latency_ms=None if said is None else round(vlm_ms, 2),
            )
            if said is not None and not self._repeats(question, said):
                event = replace(
                    event, event="caption", text=said.text, output_tokens=said.output_tokens
                )
            events.append(event)
        if head.level != self.speech.level:
            level = self._event(
                head.number, len(events), "level", reason=_levelled(self.speech.level, head)
            )
            events.append(replace(level, level=head.level))
        return events

    def _repeats(self, question: Question, said: Answer) -> bool:
        before = self.speech.said.get(said_key(question))
        return question.when == "on_change" and said.text == before

    def _event(self, chunk: int, n: int, kind: EventKind, reason: str | None = None) -> Event:
        wall0, wall1 = self.walls
        return Event(
            id=event_id(chunk, n),
            event=kind,
            job=self.job.id,
            chunk=chunk,
            t0=self.t0,
            t1=self.t1,
            reason=reason,
            wall0=wall0,
            wall1=wall1,
        )


def _levelled(before: int, head: ChunkHead) -> str:
    """What it means that a live job is thinned out more or less than before."""
    if not head.level:
        return "caught up: nothing is thinned out any more"
    if head.level >= SKIPPING:
        means = "what comes is skipped until it has caught up"
    elif head.level == 2:
        means = "the change threshold is doubled, and every second picture is left out"
    elif before > head.level:
        means = "no picture is left out any more, and the change threshold is still doubled"
    else:
        means = "the change threshold is doubled"
    return f"{head.behind_s:.1f} s behind: {means}"


def _rfc3339(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


class CaptionWorker(JobWorker[Captioning]):
    """Captions many jobs, their answers decoded together; tenants take turns in joining.

    Questions from the desk are answered among them, in at most half of the batch.
    """

    def __init__(
        self,
        model: VideoModel,
        queue: Queue,
        clock: Clock,
        *,
        batch: int,
        max_new_tokens: int,
        desk: Desk | None = None,
    ) -> None:
        """batch: most jobs whose chunks are captioned at the same time."""
        super().__init__(queue, clock)
        self.model = model
        self.batch = batch
        self.desk = desk
        self.decoding: Decoding[tuple[str, int]] = Decoding(model, max_new_tokens=max_new_tokens)
        """Its keys are jobs with the number of a question, and the desk's with ASK."""
        self.answering: dict[str, dict[int, Answer]] = {}
        """Jobs with a chunk that is being captioned: its answers so far, by question."""
        self.asks: dict[str, Ask] = {}
        """Those taken from the desk, by its key."""
        self.begun: set[str] = set()
        """Those of them that are being answered."""
        self.careful_until = 0.0
        self.asks_first = False
        """Whose turn it is while all are answered one by one."""
        self.looked_at: float | None = None

    def open(self, job: Job) -> Captioning:
        return Captioning(job, self.model, self.queue, self.clock)

    def is_over(self, status: JobStatus) -> bool:
        return status.finished

    def fail(self, job_id: str, reason: str) -> None:
        self._finish(job_id, {"state": "failed", "error": reason})

    def drop(self, job_id: str) -> None:
        if self.answering.pop(job_id, None) is not None:
            self.decoding.drop(
                {
                    row.key
                    for row in self.decoding.rows
                    if row.key[0] == job_id and row.key[1] != ASK
                }
            )
        super().drop(job_id)

    def work(self) -> bool:
        """Lets chunks and asks join, then decodes one token of every answer."""
        self._receive()
        self._take_asks()
        begun = self._join_in_turn()
        if not self.decoding.rows:
            self._end()
            return begun
        with self.meter.step(size=len(self.decoding.rows)), self._together():
            for (name, question), said in self.decoding.step().items():
                if question == ASK:
                    self._hear(name, said)
                else:
                    self.answering[name][question] = said
        self._end()
        self._tell_asks()
        return True

    @property
    def careful(self) -> bool:
        """Whether one at a time is answered."""
        return self.batch == 1 or self.clock.monotonic() < self.careful_until

    def _receive(self) -> None:
        """Takes what is there for jobs with nothing pending; waits a moment if nobody has any."""
        idle = {job_id: run for job_id, run in self.runs.items() if not run.pending}
        waits = not (self.answering or self.asks or (self.desk and self.desk.busy))
        waits = waits and len(idle) == len(self.runs)
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

    def _join_in_turn(self) -> bool:
        """Begins what may begin; while all are careful, jobs and asks one after the other."""
        if not self.careful:
            self._join_asks(most=self.batch - len(self.answering) - len(self.begun))
            return self._join()
        if self.decoding.rows:
            return False
        self.asks_first = not self.asks_first
        if self.asks_first and self._join_asks(most=1):
            return True
        return self._join() or self._join_asks(most=1)

    def _join(self) -> bool:
        """Begins the chunks whose turn it is; whether there were any."""
        active = {job_id: self.placements[job_id].tenant for job_id in self.answering}
        ready = {
            job_id: self.placements[job_id].tenant
            for job_id, run in self.runs.items()
            if run.pending and job_id not in active
        }
        careful = self.careful or any(self.placements[job_id].strikes > 1 for job_id in ready)
        most = 1 if careful else self.batch - len(self.asks)
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
                    run = self.runs[job_id]
                    asked = run.begin(read_questions(record))
                    asks |= {(job_id, n): ask for n, ask in enumerate(asked)}
                    if run.turn is not None:
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

    def _take_asks(self) -> None:
        if self.desk is not None:
            room = max(1, self.batch // 2) - len(self.asks)
            # to read a context is work, and may hang; to look for questions is none
            with self.meter.step() if self.desk.busy else nullcontext():
                self.asks |= self.desk.take(room=max(0, room))

    def _join_asks(self, *, most: int) -> bool:
        """Begins asks, each by itself: where one fails, it fails alone."""
        joining = [key for key in self.asks if key not in self.begun][: max(0, most)]
        for key in joining:
            try:
                with self.meter.step():
                    self.decoding.begin({(key, ASK): self.asks[key]})
                self.begun.add(key)
            except Exception as exc:  # noqa: BLE001  # an ask's failure must not harm the others
                self._fail_ask(key, exc)
        return bool(joining)

    def _hear(self, key: str, said: Answer) -> None:
        assert self.desk is not None
        del self.asks[key]
        self.begun.remove(key)
        self.desk.hear(key, said)

    def _tell_asks(self) -> None:
        for key in self.begun:
            assert self.desk is not None
            self.desk.told(key, self.decoding.text((key, ASK)))

    def _fail_ask(self, key: str, exc: Exception) -> None:
        assert self.desk is not None
        log.error("ask_crashed", ask=key, exc_info=exc)
        del self.asks[key]
        self.begun.discard(key)
        self.desk.fail(key, f"an internal error: {_sentence(exc)}")

    @contextmanager
    def _together(self) -> Iterator[None]:
        """An error of the batch is that of one job or ask in it, or of their number.

        So for a while they are answered one by one, and the one at fault fails alone.
        """
        try:
            yield
        except Exception as exc:  # lack of memory, or what only one of them brings
            jobs, asks = list(self.answering), list(self.begun)
            self.decoding.drop({row.key for row in self.decoding.rows})
            self.begun.clear()
            if len(jobs) == 1 and not asks:
                with self.isolated(jobs[0]):
                    raise
            elif len(asks) == 1 and not jobs:
                self._fail_ask(asks[0], exc)
            elif jobs or asks:
                log.warning("batch_failed", jobs=len(jobs), asks=len(asks), reason=_sentence(exc))
                self.careful_until = self.clock.monotonic() + CAREFUL_S
            for job_id in jobs:
                self.drop(job_id)

    def _end_idle(self, idle: list[str]) -> None:
        """Ends those that are through."""
        for job_id, record in self.queue.records(idle).items():
            with self.isolated(job_id):
                status, run = read_status(record), self.runs[job_id]
                if status.finished:
                    self.over(job_id)
                elif run.is_finished(status):
                    self._finish(job_id, {"state": "failed" if status.error else "ended"})
                    self.over(job_id)
                elif status.last_chunk is not None and self._is_gone(run, status.last_chunk):
                    run.skip_to_end(status.last_chunk)

    def _is_gone(self, run: Captioning, last_chunk: int) -> bool:
        """Whether all chunks up to the last one that have no events were written, and trimmed."""
        written = self.queue.last(run.job.id, "tokens") >= last_chunk
        return written and not self.queue.read(run.job.id, "tokens", after=run.said, count=1)

    def _finish(self, job_id: str, fields: dict[str, str]) -> None:
        self.queue.finish_job(job_id, {**fields, "ended_at": f"{self.clock.now():.3f}"})


def _sentence(exc: Exception) -> str:
    return " ".join(str(exc).split())[:200] or repr(exc)
