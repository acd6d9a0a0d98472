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
from streamer.language.decoding import Ask, Decoding
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
