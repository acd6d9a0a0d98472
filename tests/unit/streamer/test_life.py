"""A worker's life: its signs, the jobs it takes, and that it outlives a lost Redis."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise

import pytest

from streamer.actors.life import BEAT_S, TAKE_S, Life
from streamer.actors.meter import Meter
from streamer.actors.worker import JobWorker
from streamer.adapters.clock import ManualClock
from streamer.adapters.memory_queue import MemoryQueue
from streamer.adapters.memory_roster import MemoryRoster
from streamer.errors import QueueError
from streamer.jobs import Job, JobStatus
from streamer.workers import LATENCY_BUCKETS_S, Placement, Progress, WorkerReport
from tests.unit.streamer.fakes import PowerCut, a_job, placed


class OneRun:
    progress = Progress(chunk=7, t1=14.0)

    def close(self) -> None:
        pass


class ShortLivedWorker(JobWorker[OneRun]):
    """Works for as often as it is told to, a tenth of a second each time, and dies."""

    def __init__(self, clock: ManualClock, works: int) -> None:
        super().__init__(MemoryQueue(), clock)
        self.left = works
        self.taken: list[tuple[float, set[str]]] = []
        self.lost_at: set[int] = set()

    def open(self, job: Job) -> OneRun:
        return OneRun()

    def is_over(self, status: JobStatus) -> bool:
        return False

    def fail(self, job_id: str, reason: str) -> None:
        raise NotImplementedError

    def take(self, placements: Mapping[str, Placement]) -> None:
        self.taken.append((self.clock.monotonic(), set(placements)))
        super().take(placements)

    def work(self) -> bool:
        if not self.left:
            raise PowerCut
        self.left -= 1
        if self.left in self.lost_at:
            raise QueueError("Redis could not be reached")
        with self.meter.step(size=2):
            self.clock.sleep(0.1)
            self.meter.chunk(0.1)
        return True


def a_life(clock: ManualClock, roster: MemoryRoster | None = None, name: str = "caption-2") -> Life:
    return Life(name, "caption", roster or MemoryRoster(), clock, node="10.0.0.7")


def live(life: Life, worker: ShortLivedWorker) -> None:
    with pytest.raises(PowerCut):
        life.live("caption", worker)


def test_a_life_begins_with_a_sign() -> None:
    life = a_life(ManualClock())
    report = life.report()
    assert (report.name, report.kind, report.state) == ("caption-2", "caption", "starting")
    assert (report.node, report.pid) == ("10.0.0.7", os.getpid())
    assert report.rss_bytes > 1 << 20
    assert (report.chunks, report.busy_s, report.batch, report.jobs) == (0, 0.0, 0.0, {})


def test_every_sign_is_a_new_one() -> None:
    life, other = a_life(ManualClock()), a_life(ManualClock())
    assert [life.report().beat for _ in range(3)] == [1, 2, 3]
    assert life.report().boot == life.report().boot != other.report().boot


def test_a_worker_that_cannot_start_says_why() -> None:
    life = a_life(ManualClock())
    life.error = "no such checkpoint"
    assert (life.report().state, life.report().error) == ("starting", "no such checkpoint")


def test_a_sign_tells_of_the_work() -> None:
    # Given a worker that captioned three chunks of one job
    clock = ManualClock()
    worker = ShortLivedWorker(clock, 3)
    worker.queue.create_job("cam", a_job().record())
    roster = MemoryRoster()
    roster.place(placed(a_job(), caption="caption-2"))
    life = a_life(clock, roster)
    live(life, worker)
    worker.backlog = 4
    # Then it says so
    report = life.report()
    assert (report.state, report.error) == ("ready", None)
    assert report.jobs == {"cam": Progress(chunk=7, t1=14.0)}
    assert (report.chunks, report.batch, report.backlog) == (3, 2.0, 4)
    assert report.busy_s == pytest.approx(0.3)
    assert report.latency_s == pytest.approx(0.3)
    assert sum(report.latencies) == 3
    assert report.step_s == 0.0
    # And while it works, for how long
    with worker.meter.step():
        clock.advance(5.0)
        assert life.report().step_s == pytest.approx(5.0)


def test_a_worker_that_is_called_says_what_for() -> None:
    clock = ManualClock()

    class Serving:
        progress = {"cam": Progress(chunk=0, t1=4.0)}  # noqa: RUF012  # nobody changes it
        backlog = 3
        meter = Meter(clock)

    Serving.meter.shared(2.0, parts=4)
    life = a_life(clock)
    life.serve(Serving())
    report = life.report()
    assert (report.state, report.backlog, report.chunks, report.busy_s) == ("ready", 3, 1, 0.5)
    assert report.jobs == {"cam": Progress(chunk=0, t1=4.0)}


def test_a_worker_takes_the_jobs_placed_on_it_and_no_others() -> None:
    clock, roster = ManualClock(), MemoryRoster()
    roster.place(
        {
            **placed(a_job(id="mine"), caption="caption-2"),
            **placed(a_job(id="another's"), caption="caption-1", tokenize="caption-2"),
            **placed(a_job(id="nobody's"), caption=None),
        }
    )
    worker = ShortLivedWorker(clock, 1)
    live(a_life(clock, roster), worker)
    assert worker.taken == [(0.0, {"mine"})]


def test_jobs_are_looked_for_now_and_then() -> None:
    clock = ManualClock()
    worker = ShortLivedWorker(clock, 10)
    live(a_life(clock), worker)
    times = [when for when, _ in worker.taken]
    assert all(b - a >= TAKE_S for a, b in pairwise(times))
    assert len(times) == 4


def test_a_lost_queue_is_waited_for() -> None:
    # Given a worker that loses the queue twice
    clock = ManualClock()
    worker = ShortLivedWorker(clock, 4)
    worker.lost_at = {1, 2}
    # Then it lives on, and does not hurry
    live(a_life(clock), worker)
    assert worker.meter.chunks == 2
    assert clock.monotonic() == pytest.approx(2 * BEAT_S + 2 * 0.1)


def test_a_lost_roster_is_waited_for() -> None:
    class Lost(MemoryRoster):
        times = 3

        def placements(self) -> dict[str, Placement]:
            self.times -= 1
            if self.times >= 0:
                raise QueueError("Redis could not be reached")
            return super().placements()

    clock = ManualClock()
    worker = ShortLivedWorker(clock, 1)
    live(a_life(clock, Lost()), worker)
    assert clock.monotonic() == pytest.approx(3 * BEAT_S + 0.1)
    assert len(worker.taken) == 1


class _Ending(ManualClock):
    """Ends the thread that sleeps on it for the n-th time."""

    def __init__(self, sleeps: int) -> None:
        super().__init__()
        self.left = sleeps

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.left -= 1
        if not self.left:
            raise PowerCut


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_signs_are_given_every_second_and_a_lost_one_is_no_harm() -> None:
    class Lost(MemoryRoster):
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[tuple[float, int]] = []

        def report(self, report: WorkerReport) -> None:
            if report.beat == 2:
                raise QueueError("Redis could not be reached")
            super().report(report)
            self.heard.append((clock.monotonic(), report.beat))

    clock, roster = _Ending(4), Lost()
    a_life(clock, roster).start_reporting()
    for thread in threading.enumerate():
        if thread.name == "life":
            thread.join(10)
    assert roster.heard == [(0.0, 1), (2 * BEAT_S, 3), (3 * BEAT_S, 4)]
    assert roster.reports()["caption-2"].beat == 4


# Meter


def test_a_meter_adds_up() -> None:
    clock = ManualClock()
    meter = Meter(clock)
    for seconds in (1.0, 0.5):
        with meter.step(size=3):
            assert meter.step_s == 0.0
            clock.advance(seconds)
            assert meter.step_s == seconds
        assert meter.step_s == 0.0
    clock.advance(9.0)
    assert (meter.busy_s, meter.steps, meter.sizes) == (1.5, 2, 6)


def test_work_that_fails_is_work() -> None:
    clock = ManualClock()
    meter = Meter(clock)
    with suppress(ZeroDivisionError), meter.step():
        clock.advance(2.0)
        raise ZeroDivisionError
    assert (meter.busy_s, meter.step_s) == (2.0, 0.0)


def test_latencies_fall_into_their_buckets() -> None:
    meter = Meter(ManualClock())
    for latency_s in (0.0, 0.05, 0.051, 1.0, 60.0, 61.0, 1e6):
        meter.chunk(latency_s)
    assert len(meter.latencies) == len(LATENCY_BUCKETS_S) + 1
    # a bound belongs to its own bucket, as Prometheus counts
    assert meter.latencies == [2, 1, 0, 0, 1, 0, 0, 0, 0, 1, 2]
    assert meter.chunks == 7
    assert meter.latency_s == pytest.approx(1e6 + 122.101)
