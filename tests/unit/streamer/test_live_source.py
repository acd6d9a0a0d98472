"""A live source is held on to: what its processes do, and when another one is started."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from streamer.adapters.clock import Clock, ManualClock
from streamer.sources import TRUSTING, FetchPolicy, Limits
from streamer.sources.live import LiveOptions, LiveSource, is_live
from streamer.sources.live.backoff import Backoff
from streamer.sources.live.messages import Kind, Message
from streamer.sources.live.process import DecodingProcess, scrubbed
from streamer.sources.live.task import Task
from streamer.sources.live.timeline import Anchor
from tests.processes import eventually

OPTIONS = LiveOptions(
    stall_s=10, retry_s=1, retry_max_s=8, recycle_s=100, recycle_bytes=1 << 20, buffer_bytes=1 << 20
)

Take = Callable[[DecodingProcess, Message | None], None]


class FakeProcess:
    """What a test makes a process say."""

    def __init__(self, number: int, task: Task, clock: Clock, take: Take) -> None:
        self.task, self.clock = task, clock
        self.pid, self.rss_bytes = number, 1000
        self.started_at = clock.monotonic()
        self.seen_at: float | None = None
        self.began_at: float | None = self.started_at
        self.end: str | None = None
        self.killed = False
        self._take = take

    def kill(self) -> None:
        self.killed = True

    close = kill

    def picture(self, slot: int, *, epoch: float = 0.0, place: str | None = None) -> None:
        now = self.clock.monotonic()
        self.seen_at = now
        anchor = Anchor(t=slot / 2, arrival=now, epoch=epoch, steady=epoch)
        image = np.full((2, 2, 3), slot % 256, np.uint8)
        self._take(
            self,  # type: ignore[arg-type]
            Message(kind="picture", slot=slot, count=1, picture=image, anchor=anchor, place=place),
        )

    def say(self, kind: Kind, reason: str = "") -> None:
        self._take(self, Message(kind=kind, reason=reason))  # type: ignore[arg-type]

    def die(self) -> None:
        self.end = "its decoding process ended (signal 9)"
        self._take(self, None)  # type: ignore[arg-type]


class World:
    """A source with processes that a test plays."""

    def __init__(self, url: str, **more: float) -> None:
        self.clock = ManualClock()
        self.processes: list[FakeProcess] = []
        self.exhausted = False
        self.source = LiveSource(
            url,
            fps=2,
            chunk_s=1,
            behind_s=30,
            limits=Limits(),
            policy=TRUSTING,
            options=OPTIONS,
            clock=self.clock,
            start=self.start,  # type: ignore[arg-type]
            **more,
        )

    def start(self, task: Task, clock: Clock, take: Take) -> FakeProcess:
        if self.exhausted:
            raise OSError("no more processes")
        self.processes.append(FakeProcess(len(self.processes) + 1, task, clock, take))
        return self.processes[-1]

    def process(self, number: int) -> FakeProcess:
        """The one that was started as such, after a while."""
        assert eventually(lambda: len(self.processes) >= number, within_s=5)
        assert eventually(
            lambda: self.source._current is not None or self.source._next is not None, within_s=5
        )
        return self.processes[number - 1]

    def killed(self) -> list[int]:
        return [process.pid for process in self.processes if process.killed]

    def facts(self, start_s: float) -> tuple[float, float, str | None] | None:
        chunk = self.source.chunk(start_s, wait_s=0)
        if chunk is None:
            return None
        return chunk.t0, chunk.t1, None if chunk.hole is None else chunk.hole.reason


@contextmanager
def world(url: str = "rtsp://me:hush@camera/live", **more: float) -> Iterator[World]:
    made = World(url, **more)
    try:
        yield made
    finally:
        made.source.close()
    assert all(process.killed for process in made.processes)


def test_pictures_become_chunks_with_clock_times() -> None:
    with world() as w:
        first = w.process(1)
        assert w.source.state.reason == "rtsp://camera/live: not connected yet"
        w.clock.advance(50)
        first.picture(0, epoch=50)
        assert w.source.chunk(0, wait_s=0) is None
        first.picture(1, epoch=50)
        first.picture(2, epoch=50)
        chunk = w.source.chunk(0, wait_s=0)
        assert chunk is not None
        assert (chunk.t0, chunk.t1, chunk.newest_s) == (0, 1, 1.5)
        assert (chunk.wall0, chunk.wall1) == (w.clock.now(), w.clock.now() + 1)
        state = w.source.state
        assert (state.connected, state.pid, state.reconnects, state.reason) == (True, 1, 0, None)


def test_a_lost_connection_is_made_again_after_longer_and_longer_pauses() -> None:
    with world() as w:
        w.process(1).picture(0)
        w.processes[0].say("lost", "the server left")
        assert not w.source.state.connected
        assert w.source.state.reason == "the server left"
        for number, pause_s in ((2, 1), (3, 2), (4, 4), (5, 8), (6, 8)):
            w.clock.advance(0.49 * pause_s)
            w.source.chunk(0, wait_s=0.25)
            assert len(w.processes) == number - 1, "too early"
            w.clock.advance(0.52 * pause_s)
            w.process(number).say("lost", "still not there")
        w.clock.advance(8.1)
        w.process(7).picture(60)
        assert w.source.state.reconnects == 1
        w.processes[6].picture(61)
        assert w.facts(0) == (0, 0.5, None)
        assert w.facts(0.5) == (30, 31, "the server left")


def test_a_connection_that_held_starts_the_pauses_anew() -> None:
    with world() as w:
        for number in (1, 2, 3):
            process = w.process(number)
            process.picture(number * 100)
            w.clock.advance(6)
            process.die()
            assert "signal 9" in (w.source.state.reason or "")
            w.clock.advance(1.01)


def test_without_pictures_a_process_is_killed() -> None:
    with world() as w:
        process = w.process(1)
        process.picture(0)
        w.clock.advance(9)
        w.source.chunk(0, wait_s=0.3)
        assert not process.killed
        w.clock.advance(1.1)
        assert eventually(lambda: process.killed, within_s=2)
        assert w.source.state.reason == "rtsp://camera/live: no picture came for 10 s"
        process.picture(1)
        assert w.source.state.connected is False, "what it still says is not heard"


def test_an_old_process_is_replaced_when_the_next_one_has_a_picture() -> None:
    with world() as w:
        old = w.process(1)
        w.clock.advance(95)
        old.picture(190)
        w.clock.advance(6)
        new = w.process(2)
        assert new.task.anchor is not None
        assert new.task.anchor.t == 95
        old.picture(191)
        assert w.killed() == []
        new.picture(191)
        new.picture(192)
        assert w.killed() == [1]
        old.picture(199)
        new.picture(193)
        assert w.source.state.pid == 2
        assert w.source.state.reconnects == 0
        assert w.facts(0) == (95, 96, "rtsp://camera/live: its reader was replaced")
        assert w.facts(96) == (96, 97, None)


def test_a_large_process_is_replaced() -> None:
    with world() as w:
        w.process(1).rss_bytes = 2 << 20
        w.clock.advance(31)
        w.processes[0].picture(0)
        w.process(2)


def test_a_server_that_takes_one_viewer_gets_one_after_the_other() -> None:
    with world("http://camera/live.m3u8") as w:
        old = w.process(1)
        w.clock.advance(1)
        old.picture(2, place="behind 1")
        w.clock.advance(99)
        old.picture(198, place="behind 7")
        w.clock.advance(2)
        # Given a successor that finds no room, while the old one goes on
        assert w.process(2).task.place == "behind 7"
        w.processes[1].say("lost", "too many viewers")
        old.picture(203, place="behind 8")
        assert w.source.state.connected
        w.source.chunk(0, wait_s=0.3)
        assert len(w.processes) == 2
        # When a while has passed
        for _ in range(4):
            w.clock.advance(8)
            old.picture(204, place="behind 9")
        # Then the next one comes after the old one has gone
        assert w.process(3).task.place == "behind 9"
        assert w.killed() == [1, 2]
        w.processes[2].picture(300)
        assert w.source.state.reconnects == 0


def test_a_machine_without_processes_is_tried_again() -> None:
    with world() as w:
        first = w.process(1)
        first.picture(0)
        w.exhausted = True
        w.clock.advance(101)
        first.picture(202)
        w.source.chunk(0, wait_s=0.3)
        assert w.source.state.pid == 1
        first.die()
        w.clock.advance(1.1)
        assert eventually(
            lambda: "no process can be started" in (w.source.state.reason or ""), within_s=2
        )
        w.exhausted = False
        w.clock.advance(9)
        w.process(2).picture(300)
        assert w.source.state.connected


def test_what_can_never_work_is_a_failure_only_before_it_worked() -> None:
    with world() as w:
        w.process(1).say("never", "holds audio but no video")
        assert w.source.failure == "holds audio but no video"
        assert w.source.chunk(0, wait_s=5) is None
    with world() as w:
        w.process(1).picture(0)
        w.processes[0].say("never", "holds audio but no video")
        assert w.source.failure is None
    with world(start_s=10.0) as w:
        w.process(1).say("never", "holds audio but no video")
        assert w.source.failure is None


def test_what_is_over_gives_the_rest_and_then_nothing() -> None:
    with world() as w:
        w.process(1).picture(0)
        w.processes[0].say("over")
        assert w.source.ended
        assert w.facts(0) == (0, 0.5, None)
        assert w.source.chunk(0.5, wait_s=5) is None


def test_another_reader_goes_on_by_the_clock() -> None:
    made = ManualClock()
    with world(start_s=40.0, start_wall=made.now() - 25) as w:
        anchor = w.process(1).task.anchor
        assert anchor is not None
        assert (anchor.t, anchor.arrival, anchor.epoch) == (40, -25, -65)


def test_pauses_are_capped_and_never_alike() -> None:
    backoff = Backoff(first_s=1, most_s=5, jitter=random.Random(1))
    pauses = [backoff.failed() for _ in range(6)]
    for pause, longest in zip(pauses, (1, 2, 4, 5, 5, 5), strict=True):
        assert longest / 2 <= pause <= longest
    assert len(set(pauses)) == 6
    backoff.succeeded()
    assert backoff.failed() <= 1


def test_the_secrets_of_a_url_are_not_printed() -> None:
    url = "rtsp://me:hu%20sh@camera:8554/live?token=abc"
    text = scrubbed(f"cannot open {url}, as hu sh, rtsp://me:hu%20sh@127.0.0.1/live?token=abc", url)
    assert "sh" not in text.replace("…", "")
    assert "abc" not in text


@pytest.mark.parametrize("url", ["rtsp://h/x", "RTSPS://h/x", "rtmp://h/x", "rtmps://h/x"])
def test_streams_are_live_whatever_is_wanted(url: str) -> None:
    assert is_live(url, False, limits=Limits(), policy=FetchPolicy())


def test_files_are_not_and_http_is_as_wanted() -> None:
    assert not is_live("/srv/x.mp4", None, limits=Limits(), policy=TRUSTING)
    assert is_live("/srv/x.mp4", True, limits=Limits(), policy=TRUSTING)
    assert is_live("http://h/x", True, limits=Limits(), policy=FetchPolicy())
    assert not is_live("http://h/x.m3u8", False, limits=Limits(), policy=FetchPolicy())
