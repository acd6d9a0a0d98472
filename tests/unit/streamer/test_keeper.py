"""The keeper: a controller that lives, and workers with the present settings."""

from __future__ import annotations

from typing import Any

from streamer.actors.keeper import STEP_S, Keeper
from streamer.adapters.clock import ManualClock
from streamer.adapters.memory_roster import MemoryRoster
from streamer.config import Settings
from streamer.workers import CONTROLLER, WorkerReport
from tests.unit.streamer.fakes import FakeFleet

WORKERS = ("caption-1", "decode-1", "tokenize-1")


class World:
    """A service that runs, kept by one keeper after another."""

    def __init__(self, *names: str, **settings: Any) -> None:
        self.clock = ManualClock()
        self.roster = MemoryRoster()
        self.fleet = FakeFleet(*names)
        self.boot, self.beat = 1, 0
        self.silent = False
        self.keeper = self.begin(**settings)

    def begin(self, **settings: Any) -> Keeper:
        """A keeper takes over."""
        self.keeper = Keeper(Settings(**settings), self.roster, self.fleet, self.clock)
        self.keeper.begin()
        return self.keeper

    def report(self) -> None:
        self.beat += 1
        self.roster.report(
            WorkerReport(name=CONTROLLER, kind=CONTROLLER, boot=f"{self.boot}", beat=self.beat)
        )

    def pass_time(self, seconds: float) -> None:
        """The controller gives a sign of life every second, unless it is silent."""
        for _ in range(round(seconds / STEP_S)):
            self.clock.advance(STEP_S)
            if not self.silent:
                self.report()
            self.keeper.step()


def test_the_controller_is_started() -> None:
    world = World()
    assert world.fleet.started == [CONTROLLER]
    world.pass_time(300)
    assert (world.fleet.started, world.fleet.restarted) == ([CONTROLLER], [])


def test_a_controller_that_is_gone_is_started_again() -> None:
    world = World()
    world.pass_time(10)
    world.fleet.living.discard(CONTROLLER)
    world.pass_time(1)
    assert world.fleet.started == [CONTROLLER, CONTROLLER]


def test_a_silent_controller_is_restarted() -> None:
    # Given a controller that says nothing any more
    world = World(workers={"silent_s": 5, "starting_s": 30})
    world.pass_time(10)
    world.silent = True
    # Then it is given up after its time
    world.pass_time(5)
    assert world.fleet.restarted == []
    world.pass_time(1)
    assert world.fleet.restarted == [CONTROLLER]
    # And has time to start again
    world.pass_time(30)
    assert world.fleet.restarted == [CONTROLLER]
    world.pass_time(1)
    assert world.fleet.restarted == [CONTROLLER, CONTROLLER]
    # When it is heard of, all is well
    world.boot, world.silent = 2, False
    world.pass_time(100)
    assert world.fleet.restarted == [CONTROLLER, CONTROLLER]


def test_what_redis_could_not_tell_is_no_silence() -> None:
    # Given a controller that is well
    world = World(workers={"silent_s": 5})
    world.pass_time(10)
    # When Redis is away for longer than a controller may be silent
    world.clock.advance(20)
    world.silent = True
    world.pass_time(5)
    # Then it is not given up for that
    assert world.fleet.restarted == []
    # But for what it does not say afterwards
    world.pass_time(2)
    assert world.fleet.restarted == [CONTROLLER]


def test_a_controller_that_never_speaks_is_restarted() -> None:
    world = World(workers={"silent_s": 5, "starting_s": 30})
    world.silent = True
    world.pass_time(30)
    assert world.fleet.restarted == []
    world.pass_time(1)
    assert world.fleet.restarted == [CONTROLLER]


def test_a_word_of_an_earlier_controller_is_no_sign_of_life() -> None:
    world = World(workers={"silent_s": 5, "starting_s": 30})
    world.pass_time(10)
    # Given a keeper that comes later, and a controller that died meanwhile
    world.silent = True
    world.begin(workers={"silent_s": 5, "starting_s": 30})
    world.pass_time(30)
    assert world.fleet.restarted == []
    world.pass_time(1)
    assert world.fleet.restarted == [CONTROLLER]


def test_a_new_keeper_leaves_a_service_with_its_settings_alone() -> None:
    world = World(*WORKERS, CONTROLLER)
    world.fleet.living |= {*WORKERS, CONTROLLER}
    world.pass_time(5)
    world.fleet.stopped.clear()
    started = list(world.fleet.started)
    # When a keeper with the same settings takes over, but for what the HTTP side alone must know
    world.begin(api={"port": 9999})
    world.pass_time(30)
    assert (world.fleet.stopped, world.fleet.started, world.fleet.restarted) == ([], started, [])


def test_other_settings_replace_everything() -> None:
    # Given a service that runs
    world = World()
    world.fleet.living |= {*WORKERS}
    world.pass_time(5)
    # When a keeper with other settings takes over
    world.begin(model={"batch": 3})
    # Then the controller goes first, so that it cannot start again what is stopped
    assert world.fleet.stopped == [CONTROLLER, *WORKERS]
    # And a new one is started
    assert world.fleet.living == {CONTROLLER}
    # And once is enough
    world.begin(model={"batch": 3})
    assert len(world.fleet.stopped) == 4


def test_what_was_left_by_an_unknown_keeper_is_replaced() -> None:
    world = World(*WORKERS)
    assert world.fleet.stopped == [*WORKERS]
    assert world.fleet.living == {CONTROLLER}
