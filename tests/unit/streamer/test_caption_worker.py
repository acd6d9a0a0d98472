"""The event stream's writer: one entry per chunk, whatever becomes of the writer or the chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from streamer.actors.caption import CaptionWorker
from streamer.actors.decode import End
from streamer.adapters.clock import Clock, ManualClock
from streamer.adapters.memory_queue import MemoryQueue
from streamer.adapters.queue import Entry, Queue
from streamer.errors import StreamGone, WriterReplaced
from streamer.events import Event, decode_chunk_events
from streamer.jobs import read_status
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
    fill,
    token_entries,
)
from tests.unit.streamer.tiny import chunks_of, moving_square, tiny_model

WORDS = {"max_new_tokens": 5}


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


def run(worker: CaptionWorker) -> None:
    while worker.step():
        pass


def captioner(
    model: VideoModel, queue: Queue, *prompts: str, clock: Clock | None = None
) -> CaptionWorker:
    return CaptionWorker(a_job(*prompts, model=WORDS), model, queue, clock or ManualClock())


def said(queue: Queue) -> list[Event]:
    return [e for entry in queue.read(JOB, "events", after=0) for e in decode_chunk_events(entry)]


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
    fill(queue, a_job(), tokens)
    run(captioner(model, queue, *prompts))
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
    run(captioner(model, queue))
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
        run(captioner(model, queue))
    assert queue.last(JOB, "events") == cut_after
    # When another takes its place
    run(captioner(model, queue))
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
        run(captioner(model, queue))
    queue.trim(JOB, "tokens", before=5)
    run(captioner(model, queue))
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
            run(captioner(model, queue))
        run(captioner(model, queue))
        assert timeless(said(queue)) == timeless(events), cut_after


def test_a_group_whose_i_chunk_is_broken_is_not_mixed_into_the_one_before(
    model: VideoModel, tokens: list[Entry]
) -> None:
    spoilt = [*tokens[:4], replace(tokens[4], fields=_torn(tokens[4], tokens)), *tokens[5:]]
    queue = MemoryQueue()
    fill(queue, a_job(), spoilt)
    worker = captioner(model, queue)
    run(worker)
    alone = Session(model)
    alone.restart(8.0)
    alone.append(decode(tokens[5].fields))
    assert worker.session.length == alone.length
    for ours, theirs in zip(worker.session.cache.layers, alone.cache.layers, strict=True):
        assert torch.equal(ours.keys, theirs.keys)


def test_two_rivals_say_every_chunk_once(model: VideoModel, tokens: list[Entry]) -> None:
    # Given a worker whose every write comes after a step of a rival
    queue = MeddledQueue("events")
    fill(queue, a_job(), tokens)
    worker, rival = captioner(model, queue), captioner(model, queue)
    queue.meddle = rival.step
    run(worker)
    assert timeless(said(queue)) == timeless(uninterrupted(model, tokens))
    assert (worker.said, rival.said) == (7, 7)


def test_a_worker_that_was_overtaken_stops(model: VideoModel, tokens: list[Entry]) -> None:
    # Given a worker that slept while another said all and the beginning was trimmed
    queue = MemoryQueue()
    fill(queue, a_job(), tokens)
    sleeper = captioner(model, queue)
    run(captioner(model, queue))
    queue.trim(JOB, "events", before=3)
    with pytest.raises(WriterReplaced, match="entry 1 was refused, the stream is at 7"):
        sleeper.step()
    assert [e.chunk for e in said(queue)] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize(("error", "state"), [(None, "ended"), ("it broke", "failed")])
def test_the_job_ends_when_the_last_chunk_was_said(
    model: VideoModel, tokens: list[Entry], error: str | None, state: str
) -> None:
    queue = MemoryQueue()
    fill(queue, a_job(), tokens, error=error)
    worker = captioner(model, queue)
    while worker.said < 7:
        assert worker.step()
        assert read_status(queue.job(JOB) or {}).state == "running"
    assert not worker.step()
    status = read_status(queue.job(JOB) or {})
    assert (status.state, status.error) == (state, error)


def test_a_job_without_a_chunk_fails_with_its_error(model: VideoModel) -> None:
    queue = MemoryQueue()
    fill(queue, a_job(), [], error="no such file")
    run(captioner(model, queue))
    assert read_status(queue.job(JOB) or {}).state == "failed"
    assert said(queue) == []


def test_a_stream_that_pauses_is_waited_for(
    model: VideoModel, tokens: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.actors.caption.BLOCK_S", 0.0)
    queue = MemoryQueue()
    queue.create_job(JOB, a_job().record())
    worker = captioner(model, queue)
    for entry in tokens[:2]:
        assert worker.step()
        queue.append(JOB, "tokens", entry.number, entry.fields)
        assert worker.step()
        assert worker.said == entry.number
    queue.update_job(JOB, {"last_chunk": "3"})
    assert worker.step()
    queue.append(JOB, "tokens", 3, tokens[2].fields)
    assert worker.step()
    assert not worker.step()


def test_a_deleted_job_stops_its_writer(model: VideoModel, tokens: list[Entry]) -> None:
    queue = MeddledQueue("events")
    fill(queue, a_job(), tokens)
    worker = captioner(model, queue)
    queue.meddle = lambda: queue.delete_job(JOB)
    with pytest.raises(StreamGone):
        worker.step()
    assert queue.jobs() == []
    with pytest.raises(StreamGone):
        worker.step()


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
    run(captioner(model, queue, clock=_Ticking(tick_s)))
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
    run(captioner(model, queue, clock=clock))
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
        fill(queue, a_job(), tokens)
        worker = captioner(model, queue, *prompts)
        run(worker)
        trunks.append([layer.keys for layer in worker.session.cache.layers])
    assert all(torch.equal(a, b) for a, b in zip(*trunks, strict=True))
