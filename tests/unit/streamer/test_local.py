"""One job on this machine: what is said of a live source that is away."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

from streamer.adapters.clock import ManualClock
from streamer.adapters.memory_queue import MemoryQueue
from streamer.adapters.memory_roster import MemoryRoster
from streamer.config import Settings
from streamer.local import AWAY_S, TELL_S, Absence, LocalRun
from streamer.workers import Progress, SourceState, WorkerReport

CAMERA = "rtsp://127.0.0.1:9/cam"
REFUSED = f"{CAMERA}: connection refused"
HERE = SourceState(connected=True)


class Watching:
    """An absence that sees a source's state four times a second."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.told: list[tuple[float, str]] = []
        self.absence = Absence(
            lambda what: self.told.append((self.clock.monotonic(), what)), self.clock
        )

    def see(self, source: SourceState | None, *, for_s: float) -> None:
        for _ in range(round(4 * for_s)):
            self.absence.see(source)
            self.clock.advance(0.25)


def away(reason: str) -> SourceState:
    return SourceState(connected=False, reason=reason)


def test_a_source_that_stays_away_is_told_once() -> None:
    watching = Watching()
    watching.see(away(REFUSED), for_s=600)
    assert watching.told == [(AWAY_S, f"{REFUSED}; connecting again")]


def test_one_that_is_soon_there_is_not_told() -> None:
    watching = Watching()
    for _ in range(5):
        watching.see(away(f"{CAMERA}: not connected yet"), for_s=AWAY_S)
        watching.see(HERE, for_s=1)
    watching.see(None, for_s=60)
    assert watching.told == []


def test_another_reason_is_told_but_not_at_once() -> None:
    watching = Watching()
    watching.see(away(REFUSED), for_s=3)
    watching.see(away("no route"), for_s=60)
    watching.see(away("no picture"), for_s=1)
    assert [what.partition(";")[0] for _, what in watching.told] == [
        *(REFUSED, "no route", "no picture")
    ]
    assert [at for at, _ in watching.told] == [AWAY_S, AWAY_S + TELL_S, 63.0]


def test_a_source_that_was_back_is_told_again_but_not_within_ten_seconds() -> None:
    watching = Watching()
    for _ in range(10):
        watching.see(away(REFUSED), for_s=3)
        watching.see(HERE, for_s=1)
    times = [at for at, _ in watching.told]
    assert len(times) > 2
    assert all(b - a >= TELL_S for a, b in pairwise(times))


def test_a_run_tells_why_its_camera_is_away() -> None:
    told: list[str] = []
    clock = ManualClock()
    run = LocalRun(CAMERA, Settings(), told=told.append)
    run.absence = Absence(told.append, clock)
    run.queue, run.roster = cast("Any", MemoryQueue()), cast("Any", MemoryRoster())
    run.queue.create_job(run.job.id, run.job.record())
    progress = Progress(chunk=0, t1=0.0, source=away(REFUSED))
    run.roster.report(
        WorkerReport(name="decode-1", kind="decode", boot="a", beat=1, jobs={run.job.id: progress})
    )

    def step() -> None:
        clock.advance(AWAY_S)
        if clock.monotonic() > 2 * AWAY_S:
            run.queue.update_job(run.job.id, {"state": "ended"})

    run.controller = cast("Any", SimpleNamespace(step=step))
    assert list(run.events()) == []
    assert told == [f"{REFUSED}; connecting again"]
