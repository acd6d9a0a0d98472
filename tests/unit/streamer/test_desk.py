"""Asks from their taking to their answers: what is read for them, what is refused, what is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from structlog.testing import capture_logs

from streamer.actors.caption import CaptionWorker
from streamer.actors.desk import LOOK_S, MOST_OPEN, PREFILL, AskDesk
from streamer.adapters.asks import AskRequest, Reply
from streamer.adapters.clock import ManualClock
from streamer.adapters.memory_asks import MemoryAsks
from streamer.adapters.memory_queue import MemoryQueue
from streamer.adapters.queue import Entry
from streamer.archive import archived_as
from streamer.errors import ArchiveError, QueueError
from streamer.groups import last_group
from streamer.language.decoding import Answer, Ask, answer
from streamer.language.session import Session
from streamer.model import VideoModel
from streamer.wire import decode, encode
from tests.unit.streamer.fakes import a_job
from tests.unit.streamer.test_asks import NOW
from tests.unit.streamer.test_spans import CELLS, JOB, chunk_of
from tests.unit.streamer.tiny import tiny_model

PROMPT = "What happens?"


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return tiny_model()


class Room:
    """A desk, and everything around it."""

    def __init__(self, model: VideoModel, kinds: str = "IPPIPP", **given: Any) -> None:
        self.model = model
        self.clock = ManualClock(NOW)
        self.asks = FlakyAsks(self.clock)
        self.queue = MemoryQueue()
        self.job = a_job(id=JOB)
        self.queue.create_job(JOB, self.job.record())
        for number, kind in enumerate(kinds, start=1):
            self.queue.append(JOB, "tokens", number, encode(chunk_of(number, kind)))
        self.desk = AskDesk(
            "caption-1", self.asks, self.queue, model, self.clock, max_new_tokens=5, **given
        )

    def put(self, id: str = "ask-1", **changes: object) -> AskRequest:
        request = AskRequest(id=id, job=JOB, prompt=PROMPT, deadline=NOW + 60.0)
        request = replace(request, **changes)  # type: ignore[arg-type]  # its fields
        self.asks.put(request)
        return request

    def take(self, room: int = 4) -> dict[str, Ask]:
        self.clock.advance(2 * LOOK_S)
        return dict(self.desk.take(room=room))

    def heard(self, id: str = "ask-1") -> list[Reply]:
        return self.asks.hear(id, after=0)

    def refused(self, **changes: Any) -> Reply:
        """The one reply to an ask that is not answered."""
        self.put(**changes)
        assert self.take() == {}
        [reply] = self.heard()
        assert (reply.done, reply.text) == (True, "")
        assert self.asks.wanted(["ask-1"]) == set()
        assert not self.desk.busy
        return reply


class FlakyAsks(MemoryAsks):
    """Loses its connection while `away`."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.away = False
        self.looks = 0
        self.ended: list[str] = []

    def take(self, worker: str, *, count: int) -> list[AskRequest]:
        self.looks += 1
        self._check()
        return super().take(worker, count=count)

    def tell(self, ask_id: str, reply: Reply) -> None:
        self._check()
        super().tell(ask_id, reply)

    def done(self, ask_id: str) -> None:
        self.ended.append(ask_id)
        super().done(ask_id)

    def _check(self) -> None:
        if self.away:
            raise QueueError("Redis could not be reached")


def said(model: VideoModel, ask: Ask) -> Answer:
    return answer(model, [ask], max_new_tokens=5)[0]


def test_about_now_it_says_what_the_captioner_would(model: VideoModel) -> None:
    # Given a question about now
    here = Room(model)
    here.put()
    # When it is taken and answered
    asked = here.take()["ask-1"]
    own = said(model, asked)
    here.desk.told("ask-1", "thing")
    here.clock.advance(0.5)
    here.desk.hear("ask-1", own)
    # Then the answer is that of the captioner's own context, and cites it
    session = Session(model)
    for entry in last_group(here.queue, JOB):
        session.append(decode(entry.fields))
    assert own == said(model, Ask(session=session, prompt=PROMPT))
    first, last = here.heard()
    assert first == Reply(n=1, text="thing")
    assert (last.done, last.error, last.text) == (True, None, own.text)
    assert (last.t0, last.t1, last.chunk0, last.chunk1) == (3.0, 6.0, 4, 6)
    assert (last.visual_tokens, last.dense_tokens) == (11, 36)
    assert (last.input_tokens, last.output_tokens) == (own.input_tokens, own.output_tokens)
    assert own.input_tokens == asked.session.length + len(model.layout.question(PROMPT, 0))
    assert last.latency_ms == 500.0
    assert (last.wall0, last.wall1) == (None, None)
    assert here.asks.wanted(["ask-1"]) == set()


def test_about_a_span_it_reads_the_span_and_one_head(model: VideoModel) -> None:
    here = Room(model)
    here.put(t0=1.0, t1=5.0, max_new_tokens=3)
    asked = here.take()["ask-1"]
    assert asked.max_new_tokens == 3
    here.desk.hear("ask-1", said(model, asked))
    [last] = here.heard()
    assert (last.t0, last.t1, last.chunk0, last.chunk1) == (1.0, 5.0, 2, 5)
    kept = sum(chunk_of(n, "IPPIPP"[n - 1]).head.tokens for n in (2, 3, 4, 5))
    assert last.visual_tokens == kept + CELLS
    assert last.dense_tokens == 4 * 2 * CELLS


def test_an_answer_is_at_most_as_long_as_the_service_allows(model: VideoModel) -> None:
    here = Room(model)
    here.put("long", max_new_tokens=1000)
    here.put("plain")
    assert [ask.max_new_tokens for ask in here.take().values()] == [5, 5]


def test_a_minute_that_ended_five_minutes_ago_is_answered_from_its_tokens(
    model: VideoModel,
) -> None:
    # Given seven minutes of a stream that goes on, in groups of sixteen seconds
    kinds = ("I" + "P" * 15) * 26 + "IPPP"
    here = Room(model, kinds)
    model.model.config.text_config.max_position_embeddings, known = 4096, 1024
    try:
        here.desk = AskDesk("caption-1", here.asks, here.queue, model, here.clock, max_new_tokens=5)
    finally:
        model.model.config.text_config.max_position_embeddings = known
    end = float(len(kinds))
    # When the minute before the last five is asked about: it begins and ends within a group
    t0, t1 = end - 360.0, end - 300.0
    worker = CaptionWorker(model, here.queue, here.clock, batch=2, max_new_tokens=5, desk=here.desk)
    here.put(t0=t0, t1=t1)
    for _ in range(30):
        here.clock.advance(LOOK_S)
        worker.work()
    # Then a captioner, which has no source, answers
    last = here.heard()[-1]
    assert last.done
    assert last.error is None
    assert (last.t0, last.t1, last.chunk0, last.chunk1) == (t0, t1, int(t0) + 1, int(t1))
    # And no more is read than what the span kept and one full tubelet
    span = [decode(e.fields).head for e in here.queue.read(JOB, "tokens", after=int(t0), count=60)]
    kept = sum(head.tokens for head in span)
    assert {head.kind for head in span} == {"I", "P"}
    assert last.visual_tokens == kept + CELLS
    assert last.dense_tokens == 60 * 2 * CELLS
    assert last.visual_tokens is not None
    assert last.visual_tokens < last.dense_tokens / 2


def test_what_cannot_be_answered_is_refused_in_a_sentence(model: VideoModel) -> None:
    reply = Room(model).refused(t0=100.0, t1=160.0)
    assert reply.refused == "nothing_kept"
    assert reply.error == ("job cam has no tokens from 100 to 160 s; it keeps those from 0 to 6 s")
    reply = Room(model, "").refused()
    assert (reply.refused, reply.error) == (
        "nothing_kept",
        "job cam has no tokens yet; wait until it has seen more",
    )
    reply = Room(model, "I" + "P" * 60).refused(t0=0.0, t1=60.0)
    assert reply.refused == "too_long"
    assert reply.error is not None
    assert "60 s are " in reply.error
    reply = Room(model).refused(job="gone")
    assert (reply.refused, reply.error) == ("gone", "job gone was deleted")


def test_tokens_of_another_model_are_refused(model: VideoModel) -> None:
    here = Room(model, "")
    strange = chunk_of(1, "I")
    strange = replace(
        strange, tokens=torch.zeros(7, 48).bfloat16(), deepstack=torch.zeros(2, 7, 48).bfloat16()
    )
    here.queue.append(JOB, "tokens", 1, encode(strange))
    reply = here.refused()
    assert reply.refused == "failed"
    assert reply.error == (
        "job cam chunk 1: body.tokens: 48 wide, this model's are 32; "
        "tokenize and caption with the same model"
    )


def test_ended_and_paused_jobs_are_answered_too(model: VideoModel) -> None:
    here = Room(model)
    here.queue.update_job(JOB, {"paused": "1"})
    here.put("paused")
    here.queue.finish_job(JOB, {"state": "ended", "ended_at": "1"})
    here.put("ended")
    assert set(here.take()) == {"paused", "ended"}


def test_asks_are_looked_for_now_and_then(model: VideoModel) -> None:
    here = Room(model)
    for _ in range(20):
        here.desk.take(room=4)
    assert here.asks.looks == 1
    here.clock.advance(LOOK_S)
    here.desk.take(room=4)
    assert here.asks.looks == 2


def test_only_so_many_contexts_are_held_at_a_time(model: VideoModel) -> None:
    here = Room(model)
    for n in range(MOST_OPEN + 2):
        here.put(f"ask-{n}")
    assert here.take(room=0) == {}
    assert list(here.take(room=1)) == ["ask-0"]
    assert here.take(room=0) == {}
    assert list(here.take(room=9)) == [f"ask-{n}" for n in range(1, MOST_OPEN)]
    assert here.take(room=9) == {}
    here.desk.fail("ask-0", "an internal error: no memory")
    assert here.heard("ask-0") == [
        replace(here.heard("ask-0")[0], error="an internal error: no memory", refused="failed")
    ]
    assert list(here.take(room=9)) == [f"ask-{MOST_OPEN}"]


def test_a_long_context_is_read_in_parts(
    model: VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a context of several parts
    monkeypatch.setattr("streamer.actors.desk.PREFILL", 8)
    assert PREFILL > 8
    here = Room(model, "IPPPPPPPPP")
    here.put()
    # Then captions have their turn between them
    for _ in range(2):  # of 7 tokens and 2, and of four times 2
        assert here.take() == {}
        assert here.desk.busy
    taken = here.take()
    assert not here.desk.busy
    # And the answer is the same
    whole = Room(model, "IPPPPPPPPP")
    whole.put()
    monkeypatch.undo()
    assert said(model, taken["ask-1"]) == said(model, whole.take()["ask-1"])


def test_who_does_not_wait_any_more_is_forgotten(model: VideoModel) -> None:
    here = Room(model)
    here.put()
    asked = here.take()["ask-1"]
    MemoryAsks.done(here.asks, "ask-1")  # as another side does
    here.take()
    here.desk.told("ask-1", "x")
    here.desk.hear("ask-1", said(model, asked))
    assert here.heard() == []
    # and its side of the asks need not remember it either
    assert here.asks.ended == ["ask-1"]


def test_an_answer_is_told_at_most_ten_times_a_second(model: VideoModel) -> None:
    here = Room(model)
    here.put()
    asked = here.take()["ask-1"]
    for n in range(100):
        here.desk.told("ask-1", "x" * n)
        here.clock.advance(0.01)
    here.desk.hear("ask-1", said(model, asked))
    heard = here.heard()
    assert [reply.n for reply in heard[:-1]] == list(range(1, len(heard)))
    assert 9 <= len(heard) - 1 <= 11


@pytest.fixture
def logs() -> Iterator[list[dict[str, object]]]:
    with capture_logs() as found:
        yield cast(list[dict[str, object]], found)


def test_a_lost_queue_stops_no_captions_and_loses_no_answer(
    model: VideoModel, logs: list[dict[str, object]]
) -> None:
    here = Room(model)
    here.put()
    asked = here.take()["ask-1"]
    # When Redis is away while an answer is told
    here.asks.away = True
    here.desk.told("ask-1", "x")
    here.desk.hear("ask-1", said(model, asked))
    assert here.take() == {}
    assert {line["event"] for line in logs} == {"queue_lost"}
    # Then it is told as soon as Redis is back
    here.asks.away = False
    assert here.take() == {}
    [last] = here.heard()
    assert last.done
    assert last.text == said(model, asked).text
    assert here.asks.wanted(["ask-1"]) == set()


def test_what_nobody_foresaw_is_that_asks_own_affair(
    model: VideoModel, logs: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(sessions: object) -> None:
        raise RuntimeError("CUDA out of memory.\nTried to allocate")

    here = Room(model)
    monkeypatch.setattr("streamer.actors.desk.read", no_memory)
    reply = here.refused()
    assert (reply.refused, reply.error) == ("failed", "an internal error: CUDA out of memory")
    assert [line["event"] for line in logs] == ["ask_crashed"]


def test_what_is_fetched_elsewhere_holds_nobody_up(model: VideoModel) -> None:
    # Given an archive that is slow
    gate = threading.Event()
    called: list[tuple[str, float, float]] = []

    def older(job: str, t0: float, t1: float) -> list[Entry]:
        called.append((job, t0, t1))
        assert gate.wait(10)
        return everything

    with ThreadPoolExecutor(1) as executor:
        here = Room(model, "IPPIPP", older=older, executor=executor)
        here.queue.update_job(JOB, {"created_at": "1700000000.123"})
        everything = here.queue.read(JOB, "tokens", after=0)
        here.queue.trim(JOB, "tokens", before=4)
        here.put(t0=0.0, t1=6.0)
        # Then captions go on while it is asked
        assert here.take() == {}
        assert here.take() == {}
        busy = [here.desk.busy]
        # And what it had is read with what the queue has
        gate.set()
    busy.append(here.desk.busy)
    assert busy == [False, True]  # to read it is work
    taken = here.take()
    here.desk.hear("ask-1", said(model, taken["ask-1"]))
    # And it was asked for this job, not for one that had its id before
    assert called == [(archived_as(JOB, 1_700_000_000.123), 0.0, 3.0)]
    assert (here.heard()[-1].chunk0, here.heard()[-1].chunk1) == (1, 6)


@pytest.mark.parametrize("error", [ArchiveError, QueueError])
def test_what_is_away_is_told_to_who_runs_the_service_alone(
    model: VideoModel, logs: list[dict[str, object]], error: type[Exception]
) -> None:
    def away(job: str, t0: float, t1: float) -> list[Entry]:
        raise error("10.0.0.7:/srv/tokens cannot be reached")

    here = Room(model, "", older=away)
    reply = here.refused(t0=0.0, t1=6.0)
    assert (reply.refused, reply.error) == (
        "failed",
        "what is stored cannot be read just now; try again",
    )
    [line] = logs
    assert (line["event"], line["ask"], line["reason"]) == (
        "ask_failed",
        "ask-1",
        "10.0.0.7:/srv/tokens cannot be reached",
    )


def test_two_captioners_and_one_answer(model: VideoModel) -> None:
    # Given a captioner that dies over an answer
    here = Room(model)
    here.put()
    first = here.take()["ask-1"]
    here.desk.told("ask-1", "x")
    # When another one takes it over
    other = AskDesk("caption-2", here.asks, here.queue, model, here.clock, max_new_tokens=5)
    here.clock.advance(10.0)
    second = other.take(room=1)["ask-1"]
    other.hear("ask-1", said(model, second))
    # Then there is one answer, even where the first one was not dead
    here.desk.hear("ask-1", said(model, first))
    replies = here.heard()
    assert [reply.done for reply in replies] == [False, True]
    assert said(model, first) == said(model, second)
