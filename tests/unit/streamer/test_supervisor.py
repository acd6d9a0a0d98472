"""The supervisor, on processes that are values and a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from streamer.adapters.clock import ManualClock
from streamer.errors import StreamerError
from streamer.supervisor import (
    LONGEST_DELAY_S,
    LOOK_S,
    SILENT_S,
    STARTING_S,
    Supervisor,
    Watched,
)


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@dataclass
class World:
    """All that happens, with its time."""

    clock: ManualClock = field(default_factory=ManualClock)
    events: list[tuple[float, str, str]] = field(default_factory=list)
    pids: int = 0

    def note(self, name: str, what: str) -> None:
        self.events.append((round(self.clock.monotonic(), 3), name, what))

    def happened(self, what: str, name: str | None = None) -> list[float]:
        return [at for at, who, w in self.events if w == what and name in (None, who)]


class FakeProcess:
    """Ends by itself after `lives_s`, when it is asked to after `ends_s`, and at once if killed."""

    def __init__(
        self,
        world: World,
        name: str,
        *,
        lives_s: float = 1e9,
        code: int = 1,
        ends_s: float = 0.0,
        says: str | None = None,
    ) -> None:
        world.pids += 1
        self.pid = world.pids
        self.world, self.name, self.says, self.ends_s = world, name, says, ends_s
        self.dies_at, self.code = world.clock.monotonic() + lives_s, code
        world.note(name, "started")

    def poll(self) -> int | None:
        return self.code if self.world.clock.monotonic() >= self.dies_at else None

    def terminate(self) -> None:
        self.world.note(self.name, "terminated")
        self._ends(self.ends_s, 0)

    def kill(self) -> None:
        self.world.note(self.name, "killed")
        self._ends(0.0, -9)

    def said(self) -> str | None:
        return self.says

    def _ends(self, in_s: float, code: int) -> None:
        at = self.world.clock.monotonic() + in_s
        if at < self.dies_at:
            self.dies_at, self.code = at, code


def watched(world: World, name: str = "api", **more: Any) -> Watched:
    known = {name: more.pop(name) for name in ("answers", "end_s") if name in more}
    return Watched(name=name, start=lambda: FakeProcess(world, name, **more), **known)


def run(
    world: World, *processes: Watched, for_s: float, hurry: bool = False, each: Any = None
) -> Supervisor:
    """Lets time pass, then stops."""
    supervisor = Supervisor(processes, clock=world.clock)

    def meanwhile() -> None:
        if each:
            each()
        if world.clock.monotonic() >= for_s:
            world.note("", "stopped")
            supervisor.stop()
            if hurry:
                supervisor.stop()

    supervisor.run(meanwhile)
    return supervisor


def gaps(times: list[float]) -> list[float]:
    return [round(b - a, 1) for a, b in pairwise(times)]


def test_what_dies_is_started_again_each_time_later() -> None:
    world = World()
    run(world, watched(world, lives_s=1.0, code=-9), for_s=60)
    waits = [gap - 1.0 for gap in gaps(world.happened("started"))]
    for wait, least in zip(waits, [0.5, 1, 2, 4, 8, 10, 10], strict=False):
        assert least <= wait + 1e-6 <= least + 3 * LOOK_S


def test_a_long_life_is_forgiven() -> None:
    world = World()
    lives = iter([1.0] * 6 + [70.0] + [1.0] * 2)
    one = Watched(
        name="api", start=lambda: FakeProcess(world, "api", lives_s=next(lives, 1e9), code=-11)
    )
    run(world, one, for_s=200)
    first_after = gaps(world.happened("started"))[6] - 70.0
    assert 0.5 <= first_after <= 1.2


def test_others_live_on() -> None:
    world = World()
    run(world, watched(world, "worker"), watched(world, "api", lives_s=1.0, code=-9), for_s=30)
    assert len(world.happened("started", "worker")) == 1
    assert len(world.happened("started", "api")) > 3


def test_what_is_left_of_a_dead_process_is_killed() -> None:
    world = World()
    run(world, watched(world, lives_s=1.0, code=-9), for_s=2.0)
    assert world.happened("killed")[0] == pytest.approx(1.0, abs=2 * LOOK_S)


def test_a_mistake_ends_all_with_its_sentence() -> None:
    world = World()
    wrong = watched(world, "api", lives_s=2.0, code=1, says="api.port: 70000 is not allowed")
    with pytest.raises(StreamerError, match=r"^api\.port: 70000 is not allowed$"):
        run(world, watched(world, "worker"), wrong, for_s=100)
    assert len(world.happened("started", "api")) == 3
    assert world.happened("terminated", "worker")


def test_a_mistake_without_a_sentence_has_one() -> None:
    world = World()
    with pytest.raises(StreamerError, match="api ended 3 times at once"):
        run(world, watched(world, lives_s=0.5), for_s=100)


@pytest.mark.parametrize(
    ("lives_s", "code"),
    [(21.0, 1), (1.0, -9), (1.0, 2), (1.0, 0)],
    ids=["late", "killed", "2", "0"],
)
def test_only_mistakes_end_it(lives_s: float, code: int) -> None:
    world = World()
    run(world, watched(world, lives_s=lives_s, code=code, says="no"), for_s=300)
    assert len(world.happened("started")) > 5


def test_mistakes_count_in_a_row() -> None:
    world = World()
    codes = iter([1, 1, -9, 1, 1, -9, 1, 1])
    one = Watched(
        name="api",
        start=lambda: (
            FakeProcess(world, "api", lives_s=1.0, code=code)
            if (code := next(codes, None)) is not None
            else FakeProcess(world, "api")
        ),
    )
    run(world, one, for_s=120)
    assert len(world.happened("started")) == 9


def test_what_was_well_once_is_started_for_ever() -> None:
    world = World()
    lives = iter([61.0])
    one = Watched(
        name="api", start=lambda: FakeProcess(world, "api", lives_s=next(lives, 1.0), code=1)
    )
    run(world, one, for_s=200)
    assert len(world.happened("started")) > 10


def test_what_cannot_be_started_at_all_ends_it() -> None:
    world = World()

    def start() -> FakeProcess:
        raise StreamerError("port 7001 is taken")

    with pytest.raises(StreamerError, match="port 7001 is taken"):
        run(world, watched(world, "worker"), Watched(name="redis", start=start), for_s=10)
    assert world.happened("terminated", "worker")


def test_what_cannot_be_started_again_is_tried_again() -> None:
    world = World()
    tries = iter([False, True, True, False])

    def start() -> FakeProcess:
        if next(tries, False):
            raise StreamerError("the disk is full")
        return FakeProcess(world, "redis", lives_s=61.0, code=-9)

    run(world, Watched(name="redis", start=start), for_s=90)
    assert len(world.happened("started")) == 2


def answering(world: World, silent: Callable[[float], bool]) -> Callable[[], bool]:
    return lambda: not silent(world.clock.monotonic())


def test_a_process_that_falls_silent_is_killed() -> None:
    world = World()
    run(world, watched(world, answers=answering(world, lambda t: 20 <= t < 36.5)), for_s=60)
    killed = world.happened("killed")[0]
    assert 20 + SILENT_S <= killed <= 20 + SILENT_S + 2
    assert len(world.happened("started")) == 2


def test_a_pause_is_no_silence() -> None:
    world = World()
    run(world, watched(world, answers=answering(world, lambda t: t % 16 >= 2)), for_s=100)
    assert len(world.happened("started")) == 1


def test_one_that_starts_slowly_is_given_time() -> None:
    world = World()
    run(world, watched(world, answers=answering(world, lambda t: t < STARTING_S - 2)), for_s=120)
    assert len(world.happened("started")) == 1
    world = World()
    run(world, watched(world, answers=lambda: False), for_s=STARTING_S + 5)
    assert len(world.happened("started")) == 2


def test_all_end_in_the_opposite_order() -> None:
    world = World()
    run(
        world,
        watched(world, "redis"),
        watched(world, "worker", ends_s=5.0, end_s=20.0),
        watched(world, "api", ends_s=1.0),
        for_s=3.0,
    )
    assert [who for _, who, what in world.events if what == "started"] == ["redis", "worker", "api"]
    [stopped] = world.happened("stopped")
    [api], [worker], [redis] = (
        world.happened("terminated", name) for name in ("api", "worker", "redis")
    )
    assert (api, worker, redis) == pytest.approx(
        (stopped + 0.2, stopped + 1.2, stopped + 6.2), abs=0.3
    )


def test_what_does_not_end_is_killed() -> None:
    world = World()
    run(world, watched(world, "worker", ends_s=1e9, end_s=20.0), for_s=1.0)
    [terminated], [killed] = world.happened("terminated"), world.happened("killed")
    assert killed - terminated == pytest.approx(20.0, abs=0.1)


def test_a_second_signal_does_not_wait() -> None:
    world = World()
    slow = [watched(world, name, ends_s=1e9, end_s=20.0) for name in ("worker", "api")]
    run(world, *slow, for_s=1.0, hurry=True)
    assert world.clock.monotonic() < 2.0
    assert len(world.happened("killed")) == 2


def test_nothing_is_ended_that_is_not_there() -> None:
    world = World()
    run(world, watched(world, lives_s=1.0, code=-9), for_s=1.2)
    assert world.happened("terminated") == []


def test_it_says_what_happens() -> None:
    world = World()
    with capture_logs() as logs:
        run(world, watched(world, lives_s=1.0, code=-9, says="oh"), for_s=3.0)
    kinds = [(entry["event"], entry["child"]) for entry in logs]
    assert kinds[:3] == [
        ("child_started", "api"),
        ("child_ended", "api"),
        ("child_restarted", "api"),
    ]
    assert {**logs[1], "lived_s": 1.0} == {
        "event": "child_ended",
        "log_level": "warning",
        "child": "api",
        "pid": 1,
        "code": -9,
        "lived_s": 1.0,
        "said": "oh",
    }
    assert logs[-1]["event"] == "child_ended"


def test_the_longest_delay_is_bounded() -> None:
    world = World()
    run(world, watched(world, lives_s=0.1, code=-9), for_s=300)
    assert max(gaps(world.happened("started"))) <= LONGEST_DELAY_S + 1.0
