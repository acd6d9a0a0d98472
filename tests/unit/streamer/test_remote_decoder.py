"""Decode workers as tokenizers see them: who is asked again, who is replaced, who fails a job."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError, RayActorError

from streamer.actors.decode import End, Failure, NotYet, Reading
from streamer.actors.remote_decoder import (
    ATTEMPTS,
    LIVE_TIMEOUT_S,
    RETRY_MAX_S,
    TIMEOUT_S,
    RemoteDecoder,
)
from streamer.adapters.clock import ManualClock
from tests.unit.streamer.tiny import chunks_of, moving_square

CHUNKS = chunks_of(moving_square(16))
LIVE = [replace(chunk, wall0=1e9 + chunk.t0, wall1=1e9 + chunk.t1) for chunk in CHUNKS]


class FakeActors:
    """Actors that answer when the test does; each is asked for its handle once."""

    def __init__(self, *names: str) -> None:
        self.living = set(names)
        self.found: list[str] = []
        self.killed: list[str] = []
        self.closed: list[str] = []
        self.asked: list[tuple[str, float, float | None]] = []
        self.answers: list[Future[Any]] = []

    def find(self, name: str) -> Any:
        self.found.append(name)
        if name not in self.living:
            raise ValueError(name)
        return _Handle(self, name)

    def kill(self, name: str) -> None:
        self.killed.append(name)

    def answer(self, read: object) -> None:
        """To the last question."""
        if isinstance(read, Exception):
            self.answers[-1].set_exception(read)
        else:
            self.answers[-1].set_result(read)


class _Handle:
    def __init__(self, actors: FakeActors, name: str) -> None:
        self.read = _Method(lambda *asked: self._read(*asked))
        self.close = _Method(lambda job: actors.closed.append(name))
        self.actors, self.name = actors, name

    def _read(self, reading: Reading, start_s: float, wall_s: float | None) -> Any:
        self.actors.asked.append((self.name, start_s, wall_s))
        self.actors.answers.append(Future())
        return _Ref(self.actors.answers[-1])


class _Method:
    def __init__(self, call: Any) -> None:
        self.remote = call


class _Ref:
    def __init__(self, answer: Future[Any]) -> None:
        self._answer = answer

    def future(self) -> Future[Any]:
        return self._answer


class Stage:
    """A decoder of one job, its actors and the time."""

    def __init__(self, *, live: bool | None = None) -> None:
        self.clock = ManualClock()
        self.actors = FakeActors("decode-1", "decode-2")
        reading = Reading(job="cam", url="rtsp://cam/", fps=2, chunk_s=2, live=live)
        self.decoder = RemoteDecoder(reading, self.clock, self.actors)
        self.decoder.use("decode-1")

    def read(self, start_s: float, answer: object, wall_s: float | None = None) -> Any:
        """Asks, and has this answer."""
        assert not self.decoder.ready(start_s, wall_s)
        self.actors.answer(answer)
        assert self.decoder.ready(start_s, wall_s)
        return self.decoder.read(start_s, wall_s)


def test_the_next_chunk_is_asked_for_before_anyone_wants_it() -> None:
    stage = Stage()
    assert stage.read(0.0, CHUNKS[0]) is CHUNKS[0]
    assert stage.actors.asked == [("decode-1", 0.0, None), ("decode-1", 2.0, None)]
    stage.actors.answer(CHUNKS[1])
    assert stage.decoder.ready(2.0)
    assert stage.decoder.read(2.0) is CHUNKS[1]
    # and the actor was looked up once
    assert stage.actors.found == ["decode-1"]


def test_of_a_live_source_the_wall_clock_is_told_too() -> None:
    stage = Stage()
    stage.read(0.0, LIVE[0])
    stage.actors.answer(NotYet())
    assert not stage.decoder.ready(2.0, 1e9 + 2)
    assert stage.actors.asked == [
        ("decode-1", 0.0, None),
        ("decode-1", 2.0, 1e9 + 2),
        ("decode-1", 2.0, 1e9 + 2),
    ]


def test_not_yet_is_an_answer() -> None:
    """A camera that is silent for an hour is no decoder that hangs."""
    stage = Stage()
    assert not stage.decoder.ready(0.0)
    for _ in range(3600):
        stage.clock.advance(1.0)
        stage.actors.answer(NotYet())
        assert not stage.decoder.ready(0.0)
    assert stage.actors.killed == []
    stage.actors.answer(LIVE[0])
    assert stage.decoder.ready(0.0)
    assert stage.decoder.read(0.0) is LIVE[0]


@pytest.mark.parametrize("times", [1, 20])
def test_a_live_sources_decoder_that_hangs_is_replaced_for_ever(times: int) -> None:
    # Given a source that is read an hour after it began
    stage = Stage(live=True)
    for n in range(times):
        assert not stage.decoder.ready(3600.0, 1e9)
        stage.clock.advance(LIVE_TIMEOUT_S)
        assert not stage.decoder.ready(3600.0, 1e9)
        assert len(stage.actors.killed) == n
        stage.clock.advance(1.0)
        # Then who gives no answer is killed, and asked again
        assert not stage.decoder.ready(3600.0, 1e9)
        assert len(stage.actors.killed) == n + 1
    assert stage.read(3600.0, LIVE[0], 1e9) is LIVE[0]


@pytest.mark.parametrize("known", ["setting", "chunk", "wall", "not yet"])
def test_a_live_sources_decoder_may_die_for_ever(known: str) -> None:
    # Given a job that is known to be live, from whatever
    stage = Stage(live=True if known == "setting" else None)
    start_s, wall_s = 0.0, 1e9 if known == "wall" else None
    if known == "chunk":
        stage.read(0.0, LIVE[0])
        start_s, wall_s = 2.0, 1e9 + 2
    elif known == "not yet":
        assert not stage.decoder.ready(0.0)
        stage.actors.answer(NotYet())
    # When its decoder dies again and again
    for _ in range(10 * ATTEMPTS):
        assert not stage.decoder.ready(start_s, wall_s)
        stage.actors.answer(RayActorError())
        assert not stage.decoder.ready(start_s, wall_s)
        # Then there is a pause, and it is looked up and asked again
        assert stage.decoder.pending is None
        stage.clock.advance(RETRY_MAX_S)
    assert stage.read(start_s, LIVE[1], wall_s) is LIVE[1]


def test_a_file_that_kills_its_decoders_fails() -> None:
    stage = Stage()
    for _ in range(ATTEMPTS):
        assert not stage.decoder.ready(4.0)
        stage.actors.answer(RayActorError())
        stage.decoder.ready(4.0)
        stage.clock.advance(RETRY_MAX_S)
    assert stage.decoder.read(4.0) == Failure(reason="5 decoders in a row died on it at 4 s")


def test_a_file_whose_decoder_is_out_of_reach_waits() -> None:
    stage = Stage()
    for _ in range(2 * ATTEMPTS):
        assert not stage.decoder.ready(4.0)
        stage.actors.answer(ActorUnavailableError("not now", None))
        assert not stage.decoder.ready(4.0)
        stage.clock.advance(RETRY_MAX_S)
    assert stage.read(4.0, CHUNKS[2]) is CHUNKS[2]


def test_a_file_that_hangs_twice_fails() -> None:
    stage = Stage()
    for _ in range(2):
        assert not stage.decoder.ready(0.0)
        stage.clock.advance(TIMEOUT_S + 1)
        stage.decoder.ready(0.0)
    assert stage.actors.killed == ["decode-1", "decode-1"]
    assert stage.decoder.read(0.0) == Failure(
        reason="no picture within 90 s, twice; it hangs at 0 s"
    )


def test_losses_at_one_place_do_not_count_at_another() -> None:
    stage = Stage()
    for start_s, chunk in ((0.0, CHUNKS[0]), (2.0, CHUNKS[1])):
        for _ in range(ATTEMPTS - 1):
            assert not stage.decoder.ready(start_s)
            stage.actors.answer(RayActorError())
            assert not stage.decoder.ready(start_s)
            stage.clock.advance(RETRY_MAX_S)
        assert stage.read(start_s, chunk) is chunk


def test_a_worker_that_is_not_there_yet_is_looked_for_again() -> None:
    stage = Stage()
    stage.decoder.use("decode-3")
    assert not stage.decoder.ready(0.0)
    assert not stage.decoder.ready(0.0)
    assert stage.actors.found.count("decode-3") == 1
    stage.actors.living.add("decode-3")
    stage.clock.advance(1.0)
    assert stage.read(0.0, End()) == End()
    assert stage.actors.asked == [("decode-3", 0.0, None)]


def test_a_moved_job_is_let_go_where_it_was() -> None:
    stage = Stage()
    assert not stage.decoder.ready(0.0)
    stage.decoder.use("decode-2")
    assert stage.actors.closed == ["decode-1"]
    # whatever the first one says now
    stage.actors.answers[0].set_result(CHUNKS[0])
    assert stage.read(0.0, CHUNKS[1]) is CHUNKS[1]
    assert [name for name, *_ in stage.actors.asked] == ["decode-1", "decode-2", "decode-2"]
