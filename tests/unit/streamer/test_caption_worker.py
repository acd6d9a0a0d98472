"""The event stream's writer: one entry per chunk, whatever becomes of the writer or the chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from streamer.actors.caption import CAREFUL_S, Captioning, CaptionWorker
from streamer.actors.decode import End
from streamer.actors.worker import RETRY_S
from streamer.adapters.clock import ManualClock
from streamer.adapters.memory_queue import MemoryQueue
from streamer.adapters.queue import Entry, Queue, Stream, Written
from streamer.errors import QueueError
from streamer.events import Event, Totals, decode_chunk_events, decode_totals
from streamer.jobs import Job, Question, encode_questions, read_status
from streamer.language.decoding import Answer, Ask, Decoding, answer
from streamer.language.session import Session
from streamer.model import VideoModel
from streamer.types import FrameChunk
from streamer.wire import ChunkHead, TokenChunk, decode, encode, encode_head
from tests.unit.streamer.fakes import (
    JOB,
    FakeDecoder,
    FragileQueue,
    MeddledQueue,
    PowerCut,
    a_job,
    captioner_of,
    fill,
    placed,
    token_entries,
    work_off,
)
from tests.unit.streamer.tiny import chunks_of, moving_square, tiny_model


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return tiny_model()


def clip() -> list[FrameChunk]:
    """Two groups and what is missing: I P P gap I P gap."""
    chunks = chunks_of(moving_square(28))
    return [*chunks[:3], *chunks[4:6]]


@pytest.fixture(scope="module")
def tokens(model: VideoModel) -> list[Entry]:
    entries = token_entries(model, a_job(), FakeDecoder(clip(), End(missing=(12.0, 20.0))))
    kinds = [decode(entry.fields).head.kind for entry in entries]
    assert kinds == ["I", "P", "P", "gap", "I", "P", "gap"]
    return entries


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.actors.caption.BLOCK_S", 0.0)


def run(worker: CaptionWorker) -> None:
    """To the end of the one job."""
    work_off(worker, a_job())


def taken(worker: CaptionWorker, *jobs: Job) -> Captioning:
    """The first of the worker's jobs, taken up."""
    worker.take(placed(*(jobs or (a_job(),))))
    return worker.runs[jobs[0].id if jobs else JOB]


def work_until(worker: CaptionWorker, holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        worker.work()
    raise AssertionError("it never came to pass")


def said(queue: Queue, job: str = JOB) -> list[Event]:
    return [e for entry in queue.read(job, "events", after=0) for e in decode_chunk_events(entry)]


def timeless(events: list[Event]) -> list[Event]:
    return [
        replace(
            event,
            decode_latency_ms=0.0,
            tokenize_latency_ms=0.0,
            queue_time_ms=0.0,
            vlm_latency_ms=0.0,
            chunk_latency_ms=0.0,
        )
        for event in events
    ]


def uninterrupted(model: VideoModel, tokens: list[Entry], *prompts: str) -> list[Event]:
    queue = MemoryQueue()
    fill(queue, a_job(*prompts), tokens)
    run(captioner_of(model, queue))
    return said(queue)


def test_every_chunk_has_one_entry_in_order(model: VideoModel, tokens: list[Entry]) -> None:
    events = uninterrupted(model, tokens)
    assert [e.id for e in events] == [f"{n}-0" for n in range(1, 8)]
    assert [e.event for e in events] == [
        *("caption", "caption", "caption", "gap", "caption", "caption", "gap")
    ]
    captions = [e for e in events if e.event == "caption"]
    assert {(e.job, e.question) for e in captions} == {(JOB, "q0")}
    assert len({e.text for e in captions}) > 2  # or the other tests would see nothing
    assert all(e.output_tokens is not None and 1 <= e.output_tokens <= 5 for e in captions)
    heads = [decode(entry.fields).head for entry in tokens]
    assert [(e.t0, e.t1) for e in events] == [(h.t0, h.t1) for h in heads]
    assert all(a.t1 <= b.t0 < b.t1 for a, b in pairwise(events))
    assert [(e.input_tokens, e.dense_tokens) for e in captions] == [
        (h.tokens, h.dense) for h in heads if h.has_body
    ]
    assert captions[1].input_tokens < captions[1].dense_tokens == 40  # type: ignore[operator]


def test_every_question_has_its_answer_in_order(model: VideoModel, tokens: list[Entry]) -> None:
    prompts = ("Describe what happens.", "Which way does it go?", "How many?")
    events = uninterrupted(model, tokens, *prompts)
    assert [e.id for e in events[:6]] == ["1-0", "1-1", "1-2", "2-0", "2-1", "2-2"]
    assert [e.question for e in events[:3]] == ["q0", "q1", "q2"]
    assert [e.id for e in events if e.event == "gap"] == ["4-0", "7-0"]
    # asked together or alone, a question gets the same answer
    for n, prompt in enumerate(prompts):
        alone = [e.text for e in uninterrupted(model, tokens, prompt)]
        assert [e.text for e in events if e.id.endswith(f"-{n}") or e.event == "gap"] == alone


def test_gaps_and_skips_say_why_and_from_when_to_when(model: VideoModel) -> None:
    queue = MemoryQueue()
    heads = [
        ChunkHead(job=JOB, number=1, kind="gap", t0=0.0, t1=3.5, reason="the camera was off"),
        ChunkHead(job=JOB, number=2, kind="skipped", t0=3.5, t1=9.0, reason="too far behind"),
    ]
    fill(queue, a_job(), [Entry(head.number, encode_head(head)) for head in heads])
    run(captioner_of(model, queue))
    assert [(e.event, e.t0, e.t1, e.reason, e.text) for e in said(queue)] == [
        ("gap", 0.0, 3.5, "the camera was off", None),
        ("skipped", 3.5, 9.0, "too far behind", None),
    ]


@pytest.mark.parametrize("cut_after", range(1, 8))
def test_a_crash_after_any_entry_changes_no_text(
    model: VideoModel, tokens: list[Entry], cut_after: int
) -> None:
    # Given a worker that dies when an entry is stored and its own state has not moved on
    queue = FragileQueue("events", cut_after)
    fill(queue, a_job(), tokens)
    with pytest.raises(PowerCut):
        run(captioner_of(model, queue))
    assert queue.last(JOB, "events") == cut_after
    # When another takes its place
    run(captioner_of(model, queue))
    # Then nobody can tell
    assert timeless(said(queue)) == timeless(uninterrupted(model, tokens))
    assert read_status(queue.job(JOB) or {}).state == "ended"


@pytest.mark.parametrize("cut_after", [5, 6])
def test_a_stream_trimmed_to_its_last_group_is_enough_to_go_on(
    model: VideoModel, tokens: list[Entry], cut_after: int
) -> None:
    queue = FragileQueue("events", cut_after)
    fill(queue, a_job(), tokens)
    with pytest.raises(PowerCut):
        run(captioner_of(model, queue))
    queue.trim(JOB, "tokens", before=5)
    run(captioner_of(model, queue))
    assert timeless(said(queue)) == timeless(uninterrupted(model, tokens))


def _no_json(entry: Entry, _: list[Entry]) -> dict[str, bytes]:
    return {**entry.fields, "head": b"\xff{"}


def _torn(entry: Entry, _: list[Entry]) -> dict[str, bytes]:
    return {**entry.fields, "body": entry.fields["body"][:-7]}


def _no_body(entry: Entry, _: list[Entry]) -> dict[str, bytes]:
    return {"head": entry.fields["head"]}


def _of_another_chunk(_: Entry, entries: list[Entry]) -> dict[str, bytes]:
    return entries[5].fields


def _of_another_model(entry: Entry, _: list[Entry]) -> dict[str, bytes]:
    chunk = decode(entry.fields)
    return encode(replace(chunk, tokens=chunk.tokens[:, :8], deepstack=None))


def _of_other_layers(entry: Entry, _: list[Entry]) -> dict[str, bytes]:
    chunk = decode(entry.fields)
    assert chunk.deepstack is not None
    return encode(replace(chunk, deepstack=chunk.deepstack[:1]))


def _of_another_job(entry: Entry, _: list[Entry]) -> dict[str, bytes]:
    chunk = decode(entry.fields)
    return encode(replace(chunk, head=replace(chunk.head, job="other")))


DAMAGES: dict[str, tuple[Callable[[Entry, list[Entry]], dict[str, bytes]], str]] = {
    "garbage_head": (_no_json, "head is not JSON"),
    "torn_body": (_torn, "body: "),
    "no_body": (_no_body, "body: "),
    "of_another_chunk": (_of_another_chunk, "head.number"),
    "of_another_model": (_of_another_model, "body.tokens"),
    "of_other_layers": (_of_other_layers, "body.deepstack"),
    "of_another_job": (_of_another_job, "head.job"),
}


@pytest.mark.parametrize("number", [2, 5], ids=["P", "I"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_entry_is_an_error_of_its_chunk_alone(
    model: VideoModel, tokens: list[Entry], damage: str, number: int
) -> None:
    # Given one entry that cannot be read
    spoil, reason = DAMAGES[damage]
    at = number - 1
    entries = [
        *tokens[:at],
        replace(tokens[at], fields=spoil(tokens[at], tokens)),
        *tokens[number:],
    ]
    # When the stream is captioned, then exactly that chunk has an error, which says why
    events = uninterrupted(model, entries)
    kinds = ["caption", "caption", "caption", "gap", "caption", "caption", "gap"]
    kinds[at] = "error"
    assert [e.event for e in events] == kinds
    assert reason in (events[at].reason or "")
    assert f"job {JOB} tokens entry {number}" in (events[at].reason or "")
    assert all(a.t0 <= b.t0 and a.t1 <= b.t1 for a, b in pairwise(events))
    # And a new worker that has to find its way past it says the same
    for cut_after in (number, number + 1):
        queue = FragileQueue("events", cut_after)
        fill(queue, a_job(), entries)
        with pytest.raises(PowerCut):
            run(captioner_of(model, queue))
        run(captioner_of(model, queue))
        assert timeless(said(queue)) == timeless(events), cut_after


def test_a_group_whose_i_chunk_is_broken_is_not_mixed_into_the_one_before(
    model: VideoModel, tokens: list[Entry]
) -> None:
    spoilt = [*tokens[:4], replace(tokens[4], fields=_torn(tokens[4], tokens)), *tokens[5:]]
    queue = MemoryQueue()
    fill(queue, a_job(), spoilt)
    worker = captioner_of(model, queue)
    session = taken(worker).session
    run(worker)
    alone = Session(model)
    alone.restart(8.0)
    alone.append(decode(tokens[5].fields))
    assert session.length == alone.length
    for ours, theirs in zip(session.layers, alone.layers, strict=True):
        assert torch.equal(ours.keys, theirs.keys)


def test_two_rivals_say_every_chunk_once(model: VideoModel, tokens: list[Entry]) -> None:
    # Given a worker whose every write comes after a piece of work of a rival
    queue = MeddledQueue("events")
    fill(queue, a_job(), tokens)
    worker, rival = captioner_of(model, queue), captioner_of(model, queue)
    rival.take(placed(a_job()))
    queue.meddle = rival.work
    run(worker)
    assert timeless(said(queue)) == timeless(uninterrupted(model, tokens))
    assert read_status(queue.job(JOB) or {}).state == "ended"


@pytest.mark.parametrize("upto", [5, 7], ids=["not_through", "through"])
def test_a_worker_that_was_overtaken_takes_the_stream_up_again(
    model: VideoModel, tokens: list[Entry], upto: int
) -> None:
    # Given a worker that slept while another went ahead and the beginning was trimmed
    queue, clock = MemoryQueue(), ManualClock()
    fill(queue, a_job(), tokens)
    sleeper, other = captioner_of(model, queue, clock), captioner_of(model, queue)
    taken(sleeper)
    ahead = taken(other)
    work_until(other, lambda: ahead.said == upto)
    queue.trim(JOB, "events", before=3)
    # When it wakes up, then it notices, and lets go
    work_until(sleeper, lambda: not sleeper.runs)
    assert [e.chunk for e in said(queue)] == list(range(3, upto + 1))
    # And goes on a moment later from where the stream is now
    sleeper.take(placed(a_job()))
    assert sleeper.runs == {}
    clock.advance(RETRY_S)
    run(sleeper)
    assert timeless(said(queue)) == timeless(uninterrupted(model, tokens))[2:]
    assert read_status(queue.job(JOB) or {}).state == "ended"


@pytest.mark.parametrize(("error", "state"), [(None, "ended"), ("it broke", "failed")])
def test_the_job_ends_when_the_last_chunk_was_said(
    model: VideoModel, tokens: list[Entry], error: str | None, state: str
) -> None:
    # Given a job whose token stream is complete
    queue, clock = MemoryQueue(), ManualClock()
    fill(queue, a_job(), tokens, error=error)
    worker = captioner_of(model, queue, clock)
    job = taken(worker)
    while job.said < 7:
        assert worker.work()
        assert read_status(queue.job(JOB) or {}).state == "queued"
        assert queue.active() == {JOB: "local"}
    # When there is no more to say
    clock.advance(9.0)
    assert not worker.work()
    # Then it is over, and that is written with the time
    assert worker.runs == {}
    status = read_status(queue.job(JOB) or {})
    assert (status.state, status.error) == (state, error)
    assert status.ended_at == pytest.approx(clock.now(), abs=1e-3)
    assert queue.active() == {}
    # And it is not taken up again
    worker.take(placed(a_job()))
    assert worker.runs == {}


def test_a_job_without_a_chunk_fails_with_its_error(model: VideoModel) -> None:
    queue = MemoryQueue()
    fill(queue, a_job(), [], error="no such file")
    run(captioner_of(model, queue))
    assert read_status(queue.job(JOB) or {}).state == "failed"
    assert said(queue) == []


def test_a_stream_that_pauses_is_waited_for(model: VideoModel, tokens: list[Entry]) -> None:
    queue = MemoryQueue()
    queue.create_job(JOB, a_job().record())
    worker = captioner_of(model, queue)
    job = taken(worker)
    for entry in tokens[:2]:
        assert not worker.work()
        queue.append(JOB, "tokens", entry.number, entry.fields)
        assert worker.work()
        work_until(worker, lambda number=entry.number: job.said == number)  # type: ignore[misc]  # mypy cannot infer it
    queue.update_job(JOB, {"last_chunk": "3"})
    assert not worker.work()
    assert JOB in worker.runs
    queue.append(JOB, "tokens", 3, tokens[2].fields)
    run(worker)
    assert job.said == 3


def test_a_deleted_job_stops_its_writer(model: VideoModel, tokens: list[Entry]) -> None:
    queue = MeddledQueue("events")
    fill(queue, a_job(), tokens)
    worker = captioner_of(model, queue)
    taken(worker)
    queue.meddle = lambda: queue.delete_job(JOB)
    work_until(worker, lambda: not worker.runs)
    assert queue.jobs() == []
    worker.take(placed(a_job()))
    assert worker.runs == {}


class _Ticking(ManualClock):
    """Each look at the clock takes a while; the machine's own time may be set back by it."""

    def __init__(self, tick_s: float) -> None:
        super().__init__()
        self.tick_s = tick_s
        self.looked = 0

    def now(self) -> float:
        self.looked += 1
        return super().now() + self.looked * self.tick_s

    def monotonic(self) -> float:
        self.advance(0.25)
        return super().monotonic()


@pytest.mark.parametrize("tick_s", [0.25, -50.0], ids=["forward", "set_back"])
def test_latencies_are_told_and_never_negative(
    model: VideoModel, tokens: list[Entry], tick_s: float
) -> None:
    queue = MemoryQueue()
    fill(queue, a_job(), [_timed(tokens[0], decode_ms=7.0, tokenize_ms=11.0)])
    run(captioner_of(model, queue, _Ticking(tick_s)))
    [event] = said(queue)
    assert (event.decode_latency_ms, event.tokenize_latency_ms) == (7.0, 11.0)
    assert event.queue_time_ms is not None
    assert event.vlm_latency_ms is not None
    assert event.queue_time_ms >= 0
    assert event.vlm_latency_ms > 0
    total = 7.0 + 11.0 + event.queue_time_ms + event.vlm_latency_ms
    assert event.chunk_latency_ms == pytest.approx(total)


def test_the_time_in_the_queue_is_that_since_it_was_written(
    model: VideoModel, tokens: list[Entry]
) -> None:
    queue, clock = MemoryQueue(), ManualClock()
    fill(queue, a_job(), [_timed(tokens[0], written_at=clock.now() - 3.0)])
    run(captioner_of(model, queue, clock))
    assert said(queue)[0].queue_time_ms == pytest.approx(3000.0)


def _timed(entry: Entry, **times: float) -> Entry:
    chunk: TokenChunk = decode(entry.fields)
    return replace(entry, fields=encode(replace(chunk, head=replace(chunk.head, **times))))  # type: ignore[arg-type]


def test_a_still_picture_costs_no_tokens(model: VideoModel) -> None:
    still = np.repeat(moving_square(1), 8, axis=0)
    events = uninterrupted(model, token_entries(model, a_job(), FakeDecoder(chunks_of(still))))
    assert [(e.input_tokens, e.dense_tokens) for e in events] == [(20, 40), (0, 40)]


def test_questions_leave_the_session_as_it_was(model: VideoModel, tokens: list[Entry]) -> None:
    """The trunk is a function of the tokens alone, not of how much was asked."""
    trunks = []
    for prompts in (("One?",), ("One?", "And the other?")):
        queue = MemoryQueue()
        fill(queue, a_job(*prompts), tokens)
        worker = captioner_of(model, queue)
        session = taken(worker).session
        run(worker)
        trunks.append([layer.keys for layer in session.layers])
    assert all(torch.equal(a, b) for a, b in zip(*trunks, strict=True))


# Totals


def totals_of(queue: Queue) -> list[Totals]:
    return [decode_totals(entry) for entry in queue.read(JOB, "events", after=0)]


def test_totals_are_exact(model: VideoModel, tokens: list[Entry]) -> None:
    # Given a stream of which one entry is broken, and two questions
    spoilt = [*tokens[:1], replace(tokens[1], fields=_torn(tokens[1], tokens)), *tokens[2:]]
    queue = MemoryQueue()
    fill(queue, a_job("What?", "How many?"), spoilt)
    # When it is captioned
    run(captioner_of(model, queue))
    # Then each entry counts all up to itself
    heads = [decode(entry.fields).head for entry in tokens]
    for number, totals in enumerate(totals_of(queue), start=1):
        captioned = [h for h in heads[:number] if h.has_body and h.number != 2]
        events = [e for e in said(queue) if e.chunk <= number]
        assert totals == Totals(
            chunks=number,
            captions=2 * len(captioned),
            asked=2 * len(captioned),
            gaps=sum(h.kind == "gap" for h in heads[:number]),
            errors=int(number >= 2),
            t1=heads[number - 1].t1,
            patches=sum(h.dense for h in captioned) * 4,
            patches_kept=sum(h.patches_kept for h in captioned),
            tokens_dense=sum(h.dense for h in captioned),
            tokens=sum(h.tokens for h in captioned),
            output_tokens=sum(e.output_tokens or 0 for e in events),
        )
    assert 0 < totals.tokens < totals.tokens_dense
    assert 0 < totals.patches_kept < totals.patches


@pytest.mark.parametrize("cut_after", range(1, 8))
def test_totals_survive_the_captioner(
    model: VideoModel, tokens: list[Entry], cut_after: int
) -> None:
    whole = MemoryQueue()
    fill(whole, a_job(), tokens)
    run(captioner_of(model, whole))
    queue = FragileQueue("events", cut_after)
    fill(queue, a_job(), tokens)
    with pytest.raises(PowerCut):
        run(captioner_of(model, queue))
    run(captioner_of(model, queue))
    assert totals_of(queue) == totals_of(whole)


# Many jobs


def of(entries: list[Entry], job: str) -> list[Entry]:
    """The same token stream as that of another job."""
    renamed = []
    for entry in entries:
        chunk = decode(entry.fields)
        changed = encode(replace(chunk, head=replace(chunk.head, job=job)))
        renamed.append(replace(entry, fields=changed))
    return renamed


def many(queue: Queue, tokens: list[Entry], *ids: str, **prompts: str) -> list[Job]:
    """Jobs with the same complete token stream, and questions of their own."""
    jobs = [a_job(prompts.get(id, "Describe what happens."), id=id) for id in ids]
    for job in jobs:
        fill(queue, job, of(tokens, job.id))
    return jobs


def as_of(job: str, events: list[Event]) -> list[Event]:
    return [replace(event, job=job) for event in timeless(events)]


class FailingDecoding(Decoding[tuple[str, int]]):
    """Remembers how many answers are in the making at a time, and fails where it is told to."""

    def __init__(
        self, model: VideoModel, fails: Callable[[Mapping[tuple[str, int], Ask]], Exception | None]
    ) -> None:
        super().__init__(model, max_new_tokens=5)
        self.fails = fails
        self.asks: dict[tuple[str, int], Ask] = {}
        self.together: list[int] = []

    def begin(self, asks: Mapping[tuple[str, int], Ask]) -> None:
        present = {row.key for row in self.rows}
        self.asks = {key: ask for key, ask in self.asks.items() if key in present} | dict(asks)
        if asks:
            self.together.append(len(self.asks))
        if error := self.fails(self.asks):
            raise error
        super().begin(asks)


def test_chunks_of_several_jobs_are_captioned_together(
    model: VideoModel, tokens: list[Entry]
) -> None:
    # Given three jobs, one with a question of its own, and a worker that may take them at once
    queue = MemoryQueue()
    jobs = many(queue, tokens, "a", "b", "c", c="How many?")
    worker = captioner_of(model, queue, _Ticking(0.0), batch=8)
    # When they are captioned
    worker.take(placed(*jobs))
    side_by_side: set[tuple[str, ...]] = set()
    while worker.runs:
        worker.work()
        side_by_side.add(tuple(sorted(key[0] for key in (row.key for row in worker.decoding.rows))))
    # Then all three were in the making at the same time
    assert ("a", "b", "c") in side_by_side
    assert worker.meter.chunks == 15  # a gap is told, not asked about
    assert (worker.answering, worker.backlog) == ({}, 0)
    # And each job has what it would have had alone
    default, other = uninterrupted(model, tokens), uninterrupted(model, tokens, "How many?")
    for job in jobs:
        expected = other if job.id == "c" else default
        assert timeless(said(queue, job.id)) == as_of(job.id, expected)
        assert read_status(queue.job(job.id) or {}).state == "ended"


def test_jobs_of_different_pipelines_are_captioned_together(
    model: VideoModel, tokens: list[Entry]
) -> None:
    # Given jobs with operators inside the LLM, and one without
    pipelines = {
        "plain": (),
        "first": ({"name": "fastv", "layer": 1, "drop": 0.9},),
        "second": ({"name": "fastv", "layer": 2, "drop": 0.5},),
    }
    jobs = [a_job(id=id, pipeline=pipeline) for id, pipeline in pipelines.items()]

    def captioned(*jobs: Job) -> list[list[Event]]:
        queue = MemoryQueue()
        for job in jobs:
            fill(queue, job, of(tokens, job.id))
        work_off(captioner_of(model, queue), *jobs)
        return [timeless(said(queue, job.id)) for job in jobs]

    # When they are captioned together
    together = captioned(*jobs)
    # Then each has what it has alone, and the operators make a difference
    assert together == [events for job in jobs for events in captioned(job)]
    assert len({tuple(e.text for e in events) for events in together}) == 3


def test_an_operator_that_the_model_has_no_layer_for_fails_its_job_alone(
    model: VideoModel, tokens: list[Entry]
) -> None:
    queue = MemoryQueue()
    [good] = many(queue, tokens, "good")
    bad = a_job(id="bad", pipeline=({"name": "fastv", "layer": 3},))
    fill(queue, bad, of(tokens, "bad"))
    work_off(captioner_of(model, queue), good, bad)
    assert read_status(queue.job("good") or {}).state == "ended"
    status = read_status(queue.job("bad") or {})
    assert (status.state, status.error) == (
        "failed",
        "pipeline: fastv reduces before layer 3, this model's are 0 to 2; give one from 1 to 2",
    )


def test_a_batch_is_no_larger_than_it_may_be(model: VideoModel, tokens: list[Entry]) -> None:
    queue = MemoryQueue()
    jobs = many(queue, tokens[:2], *"abcde")
    worker = captioner_of(model, queue, _Ticking(0.0), batch=2)
    worker.take(placed(*jobs))
    worker.work()
    assert worker.backlog == 3  # those who could be captioned, and wait
    most = 0
    while worker.runs:
        worker.work()
        most = max(most, len(worker.answering))
    assert most == 2
    assert all(len(said(queue, job.id)) == 2 for job in jobs)


def test_what_comes_while_answers_are_made_is_captioned_once(
    model: VideoModel, tokens: list[Entry]
) -> None:
    """The queue is looked at again before the present chunk has its events."""
    # Given a job whose chunks come one at a time, while the one before is being captioned
    queue, clock = MemoryQueue(), _Ticking(0.0)
    queue.create_job(JOB, a_job().record())
    worker = captioner_of(model, queue, clock)
    job = taken(worker)
    for entry in tokens:
        queue.append(JOB, "tokens", entry.number, entry.fields)
        work_until(worker, lambda: bool(worker.answering) or job.said == job.received)
        worker.work()
    queue.update_job(JOB, {"last_chunk": "7"})
    run(worker)
    # Then each is captioned once
    assert timeless(said(queue)) == timeless(uninterrupted(model, tokens))
    assert totals_of(queue)[-1].chunks == 7


def test_tenants_take_turns(model: VideoModel, tokens: list[Entry]) -> None:
    # Given twelve jobs of one tenant and one of another, whose chunks are all there
    queue = MemoryQueue()
    crowd = [a_job(id=f"a{n:02}", tenant="crowd") for n in range(12)]
    single = a_job(id="b", tenant="single")
    for job in (*crowd, single):
        fill(queue, job, of(tokens[:3], job.id))
    worker = captioner_of(model, queue, _Ticking(0.0), batch=4)
    worker.take(placed(*crowd, single))
    # When the single one is through
    work_until(worker, lambda: queue.last("b", "events") == 3)
    # Then the crowd had about as many turns as it
    assert sum(queue.last(job.id, "events") for job in crowd) <= 4


def test_a_broken_entry_hurts_no_other_job_of_its_batch(
    model: VideoModel, tokens: list[Entry]
) -> None:
    # Given two jobs, one of them with an entry that cannot be read
    queue = MemoryQueue()
    [whole] = many(queue, tokens, "whole")
    broken = a_job(id="broken")
    entries = of(tokens, "broken")
    entries[1] = replace(entries[1], fields=_torn(entries[1], entries))
    fill(queue, broken, entries)
    # When they are captioned together
    work_off(captioner_of(model, queue), broken, whole)
    # Then the one has an error, and the other nothing
    kinds = [e.event for e in said(queue, "broken")]
    assert kinds == ["caption", "error", "caption", "gap", "caption", "caption", "gap"]
    assert timeless(said(queue, "whole")) == as_of("whole", uninterrupted(model, tokens))


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ValueError("unheard of")])
def test_what_cannot_be_captioned_together_is_captioned_singly(
    model: VideoModel, tokens: list[Entry], error: Exception
) -> None:
    # Given a machine on which more than one at a time fails
    queue, clock = MemoryQueue(), ManualClock()
    jobs = many(queue, tokens[:5], "a", "b")
    worker = captioner_of(model, queue, clock)
    worker.decoding = failing = FailingDecoding(
        model, lambda asks: error if len(asks) > 1 else None
    )
    # When two jobs are captioned
    for _ in range(12):
        worker.take(placed(*jobs))
        worker.work()
        clock.advance(1.0)
    # Then they are captioned one at a time from then on
    assert failing.together[0] == 2
    assert set(failing.together[1:]) == {1}
    # And after a while it is tried again
    clock.advance(CAREFUL_S)
    while queue.active():
        worker.take(placed(*jobs))
        worker.work()
        clock.advance(1.0)
    assert failing.together.count(2) == 2
    # And each has what it would have had anyhow
    for job in jobs:
        assert timeless(said(queue, job.id)) == as_of(job.id, uninterrupted(model, tokens)[:5])


def test_a_job_that_can_never_be_captioned_fails_alone(
    model: VideoModel, tokens: list[Entry]
) -> None:
    # Given two jobs, one of which breaks every batch it is in from its second chunk on
    queue, clock = MemoryQueue(), ManualClock()
    jobs = many(queue, tokens, "good", "bad", bad="poison")
    lengths: list[int] = []

    def fails(asks: Mapping[tuple[str, int], Ask]) -> Exception | None:
        here = [ask.session.length for ask in asks.values() if ask.prompt == "poison"]
        lengths.extend(here)
        return RuntimeError("no kernel") if here and here[0] > lengths[0] else None

    worker = captioner_of(model, queue, clock)
    worker.decoding = FailingDecoding(model, fails)
    # When they are captioned, for as long as it takes
    for _ in range(200):
        worker.take(placed(*jobs))
        worker.work()
        clock.advance(RETRY_S / 2)
    # Then the one fails with a sentence, and the other has all it should
    status = read_status(queue.job("bad") or {})
    assert (status.state, status.error) == ("failed", "an internal error at chunk 2: no kernel")
    assert status.ended_at is not None
    assert queue.active() == {}
    assert len(said(queue, "bad")) == 1
    assert timeless(said(queue, "good")) == as_of("good", uninterrupted(model, tokens))
    assert read_status(queue.job("good") or {}).state == "ended"


def test_a_queue_lost_at_one_job_leaves_nobody_behind(
    model: VideoModel, tokens: list[Entry]
) -> None:
    """Of the jobs that begin together, one has a gap to tell, and the queue is away."""

    class Lost(MemoryQueue):
        times = 1

        def append(
            self, job_id: str, stream: Stream, number: int, fields: Mapping[str, bytes]
        ) -> Written:
            if (job_id, stream) == ("gap", "events") and self.times:
                self.times -= 1
                raise QueueError("Redis could not be reached")
            return super().append(job_id, stream, number, fields)

    queue = Lost()
    [first] = many(queue, tokens, "first")
    gap = a_job(id="gap")
    head = ChunkHead(job="gap", number=1, kind="gap", t0=0.0, t1=3.5, reason="the camera was off")
    fill(queue, gap, [Entry(1, encode_head(head))])
    worker = captioner_of(model, queue)
    worker.take(placed(first, gap))
    with pytest.raises(QueueError):
        worker.work()
    # Then both go on when it is back
    work_off(worker, first, gap)
    assert timeless(said(queue, "first")) == as_of("first", uninterrupted(model, tokens))
    assert [e.event for e in said(queue, "gap")] == ["gap"]


def test_questions_that_change_apply_from_the_next_chunk(
    model: VideoModel, tokens: list[Entry]
) -> None:
    # Given a job of which a chunk was captioned, and whose next one is pending
    queue = MemoryQueue()
    fill(queue, a_job("What?"), tokens)
    worker = captioner_of(model, queue)
    job = taken(worker, a_job("What?"))
    work_until(worker, lambda: job.said == 1)
    assert job.pending
    # When a question is added and the first one goes
    first, second = Question(id="q0", prompt="What?"), Question(id="new", prompt="How many?")
    queue.update_job(JOB, {"questions": encode_questions((first, second))})
    work_until(worker, lambda: job.said == 2)
    queue.update_job(JOB, {"questions": encode_questions((second,))})
    run(worker)
    # Then every chunk has the questions of its time
    asked = [[e.question for e in said(queue) if e.chunk == n] for n in range(1, 8)]
    assert asked == [["q0"], ["q0", "new"], ["new"], [None], ["new"], ["new"], [None]]
    # And the answers are what they are for those who ask from the beginning
    how_many = uninterrupted(model, tokens, "How many?")
    texts = [e.text for e in said(queue) if e.question == "new"]
    assert texts == [e.text for e in how_many if e.event == "caption"][1:]


def test_a_job_that_was_ended_by_others_is_let_go(model: VideoModel, tokens: list[Entry]) -> None:
    queue = MemoryQueue()
    fill(queue, a_job(), tokens[:1])
    queue.update_job(JOB, {"last_chunk": ""})
    worker = captioner_of(model, queue)
    job = taken(worker)
    work_until(worker, lambda: job.said == 1)
    queue.finish_job(JOB, {"state": "failed", "error": "5 workers were lost"})
    run(worker)
    assert read_status(queue.job(JOB) or {}).error == "5 workers were lost"


def test_a_record_that_cannot_be_read_fails_its_job_alone(
    model: VideoModel, tokens: list[Entry]
) -> None:
    queue, clock = MemoryQueue(), ManualClock()
    jobs = many(queue, tokens[:1], "good", "bad", "worse")
    queue.update_job("bad", {"spec": "{"})
    worker = captioner_of(model, queue, clock)
    worker.take(placed(*jobs))
    assert worker.runs.keys() == {"good", "worse"}
    queue.update_job("worse", {"last_chunk": "seven"})
    work_off(worker, *jobs)
    states = {job.id: (queue.job(job.id) or {})["state"] for job in jobs}
    assert states == {"good": "ended", "bad": "failed", "worse": "failed"}
    assert "record of job bad is malformed" in (queue.job("bad") or {})["error"]
    assert "last_chunk 'seven' is not a number" in (queue.job("worse") or {})["error"]


def test_a_worker_without_jobs_rests(model: VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.actors.caption.BLOCK_S", 0.2)
    clock = ManualClock()
    worker = captioner_of(model, MemoryQueue(), clock)
    assert not worker.work()
    assert clock.monotonic() == pytest.approx(0.2)


# When to speak


def visits() -> list[FrameChunk]:
    """A still picture into which something comes twice, and a gap: 13 entries."""
    scene = moving_square(1)[0].copy()
    scene[20:36, 0:16] = scene[44:60, 0:16]
    frames = np.stack([scene] * 52)
    for t in range(14, 18):
        frames[t, 8:40, 16 * (t - 14) : 16 * (t - 14) + 32] = 255
    frames[30:34, 24:56, 10:60] = 0
    chunks = chunks_of(frames)
    return [*chunks[:10], *chunks[11:13]]


@pytest.fixture(scope="module")
def visited(model: VideoModel) -> list[Entry]:
    return token_entries(model, a_job(), FakeDecoder(visits()))


def asking(*questions: Question) -> Job:
    return replace(a_job(), questions=questions)


ON_CHANGE = Question(id="q0", prompt="Describe what happens.", when="on_change")
EVERY = Question(id="q1", prompt="Describe what happens.")


def told(model: VideoModel, entries: list[Entry], *questions: Question) -> MemoryQueue:
    queue = MemoryQueue()
    fill(queue, asking(*questions), entries)
    run(captioner_of(model, queue))
    return queue


def test_only_what_changes_is_asked_about(model: VideoModel, visited: list[Entry]) -> None:
    # Given one question that is asked about changes, and the same about every chunk
    queue = told(model, visited, ON_CHANGE, EVERY)
    events = said(queue)
    mine = [e for e in events if e.question == "q0"]
    always = [e for e in events if e.question == "q1"]
    # Then the one is answered where something came or went, and always after a gap
    assert {e.event for e in always} == {"caption"}
    spoke = [e.chunk for e in mine if e.event == "caption"]
    assert 1 in spoke
    assert 12 in spoke  # 11 is the gap
    assert {e.event for e in mine} == {"caption", "unchanged"}
    assert len(spoke) < len(mine) / 2 + 2
    # And what it says is what the other does, though less was read at a time
    at = {e.chunk: e.text for e in always}
    assert all(e.text == at[e.chunk] for e in mine if e.event == "caption")
    # And it says nothing twice in a row
    texts = [e.text for e in mine if e.event == "caption"]
    assert all(a != b for a, b in pairwise(texts))
    totals = totals_of(queue)[-1]
    assert totals.unchanged == sum(e.event == "unchanged" for e in events)
    assert totals.asked < 2 * len(always)
    assert totals.asked >= totals.captions == sum(e.event == "caption" for e in events)
    assert totals.gaps == 1


def test_a_caption_that_was_said_last_is_unchanged(model: VideoModel) -> None:
    # Given a camera that shows after a gap what it showed before
    still = chunks_of(moving_square(1).repeat(12, axis=0))
    entries = token_entries(model, a_job(), FakeDecoder([still[0], still[2]]))
    queue = told(model, entries, ON_CHANGE, EVERY)
    events = said(queue)
    # Then it is asked what it shows, and that is no news; to who asks always it is told
    assert [(e.id, e.event) for e in events] == [
        ("1-0", "caption"),
        ("1-1", "caption"),
        ("2-0", "gap"),
        ("3-0", "unchanged"),
        ("3-1", "caption"),
    ]
    assert events[0].text == events[4].text
    assert events[3].vlm_latency_ms is not None
    # And its tokens count, though nobody sees them
    seen = [e.output_tokens or 0 for e in events]
    assert totals_of(queue)[-1].output_tokens == sum(seen) + seen[4]


def test_unchanged_costs_no_run_of_the_llm(
    model: VideoModel, visited: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job with a question about changes
    queue = MemoryQueue()
    fill(queue, asking(ON_CHANGE), visited)
    worker = captioner_of(model, queue)
    job = taken(worker, asking(ON_CHANGE))
    runs: list[int] = []
    layer = model.model.model.language_model.layers[0]
    hook = layer.register_forward_pre_hook(lambda *_: runs.append(job.said + 1))
    # When it is captioned
    try:
        run(worker)
    finally:
        hook.remove()
    # Then the LLM ran at chunks that were asked about alone
    unchanged = {e.chunk for e in said(queue) if e.event == "unchanged" and not e.vlm_latency_ms}
    assert len(unchanged) >= 5
    assert runs
    assert not unchanged & set(runs)
    # And the event says what the chunk holds and how late it is, and no word
    event = next(e for e in said(queue) if e.chunk == min(unchanged))
    assert (event.text, event.output_tokens, event.vlm_latency_ms) == (None, None, None)
    assert event.dense_tokens == 40
    assert event.input_tokens is not None
    assert event.chunk_latency_ms is not None
    assert worker.meter.chunks == 12  # all but the gap


def test_a_job_without_questions_says_what_was_seen(
    model: VideoModel, visited: list[Entry]
) -> None:
    queue = told(model, visited)
    events = said(queue)
    assert [e.event for e in events] == [*["seen"] * 10, "gap", "seen", "seen"]
    heads = [decode(entry.fields).head for entry in visited]
    assert [e.input_tokens for e in events if e.event == "seen"] == [
        h.tokens for h in heads if h.has_body
    ]
    assert all(e.chunk_latency_ms is not None for e in events if e.event == "seen")
    totals = totals_of(queue)[-1]
    assert (totals.asked, totals.captions, totals.chunks) == (0, 0, 13)
    assert totals.tokens == sum(h.tokens for h in heads)


@pytest.mark.parametrize("cut_after", range(1, 14))
def test_a_captioner_that_dies_speaks_where_it_would_have(
    model: VideoModel, visited: list[Entry], cut_after: int
) -> None:
    questions = (ON_CHANGE, replace(EVERY, prompt="How many?"))
    whole = told(model, visited, *questions)
    queue = FragileQueue("events", cut_after)
    fill(queue, asking(*questions), visited)
    with pytest.raises(PowerCut):
        run(captioner_of(model, queue))
    run(captioner_of(model, queue))
    assert timeless(said(queue)) == timeless(said(whole))
    kept = [queue.read(JOB, "events", after=0), whole.read(JOB, "events", after=0)]
    assert [e.fields["speech"] for e in kept[0]] == [e.fields["speech"] for e in kept[1]]
    assert totals_of(queue) == totals_of(whole)


def test_a_question_that_comes_later_is_answered_at_once(
    model: VideoModel, visited: list[Entry]
) -> None:
    # Given a job in which nothing changes any more
    queue = MemoryQueue()
    still = visited[:3]
    fill(queue, asking(ON_CHANGE), still)
    worker = captioner_of(model, queue)
    job = taken(worker, asking(ON_CHANGE))
    work_until(worker, lambda: job.said == 1)
    # When another question about changes is added
    late = Question(id="late", prompt="How many?", when="on_change")
    queue.update_job(JOB, {"questions": encode_questions((ON_CHANGE, late))})
    run(worker)
    # Then it is answered about what is there, once
    kinds = {e.id: (e.question, e.event) for e in said(queue)}
    assert kinds["2-0"] == ("q0", "unchanged")
    assert kinds["2-1"] == ("late", "caption")
    assert kinds["3-1"] == ("late", "unchanged")


def test_another_prompt_under_the_same_id_is_answered_at_once(
    model: VideoModel, visited: list[Entry]
) -> None:
    # Given a job in which nothing changes any more
    queue = MemoryQueue()
    fill(queue, asking(ON_CHANGE), visited[:3])
    worker = captioner_of(model, queue)
    job = taken(worker, asking(ON_CHANGE))
    work_until(worker, lambda: job.said == 1)
    # When its question is removed, and added again with another prompt
    other = replace(ON_CHANGE, prompt="How many?")
    queue.update_job(JOB, {"questions": encode_questions((other,))})
    run(worker)
    # Then that is answered about what is there, once
    assert [e.event for e in said(queue)] == ["caption", "caption", "unchanged"]


def test_after_a_broken_entry_the_next_chunk_speaks(
    model: VideoModel, visited: list[Entry]
) -> None:
    spoilt = [visited[0], replace(visited[1], fields=_torn(visited[1], visited)), visited[2]]
    for entries, expected in ((visited[:3], [2, 3, 4]), (spoilt, [2, 2, 4])):
        asked = [totals.asked for totals in totals_of(told(model, entries, ON_CHANGE, EVERY))]
        assert asked == expected


# Live jobs


def live(entry: Entry, **change: object) -> Entry:
    """As of a camera that was switched on at noon."""
    chunk = decode(entry.fields)
    noon = 1764158400.0 - 30.0
    head = replace(chunk.head, wall0=noon + chunk.head.t0, wall1=noon + chunk.head.t1)
    head = replace(head, **change)  # type: ignore[arg-type]
    if not head.has_body:
        return replace(entry, fields=encode_head(head))
    return replace(entry, fields=encode(replace(chunk, head=head)))


def test_events_of_a_live_job_tell_the_time_of_day(model: VideoModel, tokens: list[Entry]) -> None:
    events = uninterrupted(model, [live(entry) for entry in tokens])
    assert [(e.t0, e.wall0, e.wall1) for e in events[2:5]] == [
        (4.0, "2025-11-26T11:59:34.000Z", "2025-11-26T11:59:36.000Z"),
        (6.0, "2025-11-26T11:59:36.000Z", "2025-11-26T11:59:38.000Z"),
        (8.0, "2025-11-26T11:59:38.000Z", "2025-11-26T11:59:40.000Z"),
    ]
    assert events[3].event == "gap"
    assert all(e.wall0 and e.wall1 for e in events)
    assert all(e.wall0 is None is e.wall1 for e in uninterrupted(model, tokens))


@pytest.mark.parametrize("cut_after", [None, 1, 2, 3, 5])
def test_a_level_is_told_once_when_it_changes(
    model: VideoModel, tokens: list[Entry], cut_after: int | None
) -> None:
    # Given a live job that falls behind, and catches up
    levels = {2: 1, 3: 2, 5: 1, 6: 0}
    entries = [
        live(entry, level=levels.get(entry.number, 0), behind_s=4.2 if n < 5 else 0.1)
        for n, entry in enumerate(tokens)
    ]
    # When it is captioned, perhaps by one who dies and another
    queue = FragileQueue("events", cut_after or 1000)
    fill(queue, a_job(), entries)
    if cut_after:
        with pytest.raises(PowerCut):
            run(captioner_of(model, queue))
    run(captioner_of(model, queue))
    # Then each change is told once, after the answers
    events = said(queue)
    assert [(e.id, e.level, e.reason) for e in events if e.event == "level"] == [
        ("2-1", 1, "4.2 s behind: the change threshold is doubled"),
        (
            "3-1",
            2,
            "4.2 s behind: the change threshold is doubled, and every second picture is left out",
        ),
        (
            "5-1",
            1,
            "4.2 s behind: no picture is left out any more, "
            "and the change threshold is still doubled",
        ),
        ("6-1", 0, "caught up: nothing is thinned out any more"),
    ]
    assert all(e.wall0 for e in events if e.event == "level")
    assert [e.event for e in events if e.event != "level"] == [
        *("caption", "caption", "caption", "gap", "caption", "caption", "gap")
    ]
    assert totals_of(queue)[-1].levels == 4


def test_entries_that_are_gone_are_told_as_one(model: VideoModel, tokens: list[Entry]) -> None:
    # Given a job whose stream was trimmed ahead of its captioner
    queue = MemoryQueue()
    fill(queue, a_job(), tokens)
    worker = captioner_of(model, queue)
    job = taken(worker)
    job.pending.clear()
    queue.trim(JOB, "tokens", before=5)
    # When it is captioned, then what is gone is one event, and the rest as ever
    run(worker)
    events = said(queue)
    whole = uninterrupted(model, tokens)
    assert (events[0].id, events[0].event, events[0].reason) == ("4-0", "skipped", "trimmed")
    assert (events[0].t0, events[0].t1) == (0.0, 8.0)
    assert timeless(events[1:]) == timeless(whole[4:])
    assert totals_of(queue)[-1].skipped == 1


def test_a_job_whose_last_chunks_are_gone_ends(model: VideoModel, tokens: list[Entry]) -> None:
    # Given a job whose stream was trimmed to its end, which was not captioned
    queue = MemoryQueue()
    queue.create_job(JOB, a_job().record())
    for entry in tokens[:3]:
        queue.append(JOB, "tokens", entry.number, entry.fields)
    worker = captioner_of(model, queue)
    job = taken(worker)
    work_until(worker, lambda: job.said == 3)
    for entry in tokens[3:]:
        queue.append(JOB, "tokens", entry.number, entry.fields)
    queue.trim(JOB, "tokens", before=8)
    queue.update_job(JOB, {"last_chunk": "7"})
    # Then what is gone is one event, and the job is over
    run(worker)
    *others, last = said(queue)
    assert timeless(others) == timeless(uninterrupted(model, tokens))[:3]
    assert (last.id, last.event, last.reason) == ("7-0", "skipped", "trimmed")
    assert (last.t0, last.t1) == (6.0, 6.0)
    assert totals_of(queue)[-1].skipped == 1
    assert read_status(queue.job(JOB) or {}).state == "ended"


# The desk


class FakeDesk:
    """Asks that are there already; remembers what it is told."""

    def __init__(self, asks: dict[str, Ask]) -> None:
        self.asks = asks
        self.rooms: list[int] = []
        self.so_far: dict[str, list[str]] = {}
        self.heard: dict[str, Answer] = {}
        self.failed: dict[str, str] = {}
        self.busy = False

    def take(self, *, room: int) -> Mapping[str, Ask]:
        self.rooms.append(room)
        return {key: self.asks.pop(key) for key in list(self.asks)[:room]}

    def told(self, key: str, text: str) -> None:
        self.so_far.setdefault(key, []).append(text)

    def hear(self, key: str, answer: Answer) -> None:
        self.heard[key] = answer

    def fail(self, key: str, reason: str) -> None:
        self.failed[key] = reason


def session_about(model: VideoModel, *entries: Entry) -> Session:
    session = Session(model)
    for entry in entries:
        session.append(decode(entry.fields))
    return session


def with_desk(
    model: VideoModel, queue: Queue, desk: FakeDesk, *, batch: int = 4
) -> tuple[CaptionWorker, ManualClock]:
    clock = _Ticking(0.0)
    worker = CaptionWorker(model, queue, clock, batch=batch, max_new_tokens=5, desk=desk)
    return worker, clock


@pytest.mark.parametrize("batch", [1, 4])
def test_asks_are_answered_among_captions(
    model: VideoModel, tokens: list[Entry], batch: int
) -> None:
    # Given jobs, one of which is called as an ask is, and more asks than may be answered at a time
    queue = MemoryQueue()
    jobs = many(queue, tokens, "a", "b", "ask0")
    asks = {
        f"ask{n}": Ask(
            session=session_about(model, *tokens[: n + 1]), prompt="How many?", max_new_tokens=9 - n
        )
        for n in range(3)
    }
    alone = {key: answer(model, [ask], max_new_tokens=5)[0] for key, ask in asks.items()}
    desk = FakeDesk(dict(asks))
    worker, _ = with_desk(model, queue, desk, batch=batch)
    # When all is done
    worker.take(placed(*jobs))
    together: set[frozenset[bool]] = set()
    most = most_rows = 0
    while worker.runs or worker.asks or desk.asks:
        worker.work()
        kinds = [row.key[1] == -1 for row in worker.decoding.rows]
        together.add(frozenset(kinds))
        most, most_rows = max(most, sum(kinds)), max(most_rows, len(kinds))
    # Then each ask has what it has alone, and was told on its way
    assert desk.heard == alone
    assert not desk.failed
    for key, texts in desk.so_far.items():
        assert all(alone[key].text.startswith(text) for text in texts)
        assert len(texts) > 1
    # And so has each job
    for job in jobs:
        assert timeless(said(queue, job.id)) == as_of(job.id, uninterrupted(model, tokens))
    # And they shared the batch, of which asks had at most half
    assert most == max(1, batch // 2)
    assert most_rows <= batch
    assert (frozenset({True, False}) in together) == (batch > 1)


def test_to_read_for_an_ask_is_work_and_to_look_for_one_is_none(model: VideoModel) -> None:
    measured: list[float] = []

    class Watched(FakeDesk):
        def take(self, *, room: int) -> Mapping[str, Ask]:
            measured.append(worker.meter.step_s)
            return super().take(room=room)

    desk = Watched({})
    worker, _ = with_desk(model, MemoryQueue(), desk)
    worker.work()
    assert worker.meter.busy_s == 0.0
    desk.busy = True
    worker.work()
    assert worker.meter.busy_s > 0.0
    assert measured[0] == 0.0 < measured[1]
    assert worker.meter.steps == 0


def test_an_ask_that_fails_harms_no_job(model: VideoModel, tokens: list[Entry]) -> None:
    queue = MemoryQueue()
    jobs = many(queue, tokens, "a", "b")
    good = Ask(session=session_about(model, tokens[0]), prompt="How many?")
    alone = answer(model, [good], max_new_tokens=5)[0]
    desk = FakeDesk({"bad": replace(good, prompt="poison"), "good": good})
    worker, _ = with_desk(model, queue, desk)
    worker.decoding = FailingDecoding(
        model,
        lambda asks: (
            RuntimeError("out of memory")
            if any(ask.prompt == "poison" for ask in asks.values())
            else None
        ),
    )
    work_off(worker, *jobs)
    assert desk.failed == {"bad": "an internal error: out of memory"}
    assert desk.heard == {"good": alone}
    for job in jobs:
        assert timeless(said(queue, job.id)) == as_of(job.id, uninterrupted(model, tokens))


class TooMany(FailingDecoding):
    """Fails in the middle of answers, where there are several of them."""

    def step(self) -> dict[tuple[str, int], Answer]:
        if len(self.rows) > 1 and any(len(row.said) == 2 for row in self.rows):
            raise RuntimeError("out of memory")
        return super().step()


def test_an_ask_in_a_batch_that_fails_is_answered_singly(
    model: VideoModel, tokens: list[Entry]
) -> None:
    # Given a machine on which jobs and asks fail together, and not one by one
    queue = MemoryQueue()
    jobs = many(queue, tokens, "a", "b")
    asks = {
        f"ask{n}": Ask(session=session_about(model, tokens[0]), prompt="How many?")
        for n in range(3)
    }
    alone = answer(model, [asks["ask0"]], max_new_tokens=5)[0]
    desk = FakeDesk(dict(asks))
    worker, clock = with_desk(model, queue, desk)
    worker.decoding = TooMany(model, lambda _: None)
    # When all is done
    for _ in range(2000):
        if not (queue.active() or worker.asks or desk.asks):
            break
        worker.take(placed(*jobs))
        worker.work()
        clock.advance(0.2)
    # Then nobody was harmed
    assert desk.heard == dict.fromkeys(asks, alone)
    assert not desk.failed
    for job in jobs:
        assert timeless(said(queue, job.id)) == as_of(job.id, uninterrupted(model, tokens))


def test_the_batch_is_measured_in_rows(model: VideoModel, tokens: list[Entry]) -> None:
    queue = MemoryQueue()
    fill(queue, a_job("What?", "How many?", "Which way?"), tokens[:1])
    worker = captioner_of(model, queue)
    run(worker)
    assert worker.meter.steps
    assert 1 < worker.meter.sizes / worker.meter.steps <= 3
    assert worker.meter.sizes == sum(e.output_tokens or 0 for e in said(queue)) + sum(
        (e.output_tokens or 0) < 5 for e in said(queue)
    )
