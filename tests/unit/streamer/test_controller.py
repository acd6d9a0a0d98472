"""The controller: pools at their size, workers replaced, every job with its workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from streamer.actors.controller import FORGET_S, RETIRE_S, STEP_S, Controller
from streamer.adapters.clock import ManualClock
from streamer.adapters.memory_queue import MemoryQueue
from streamer.adapters.memory_roster import MemoryRoster
from streamer.config import Settings
from streamer.core.scaling import DOWN_S, UP_S
from streamer.jobs import JobStatus, read_status
from streamer.workers import (
    CONTROLLER,
    KINDS,
    Placement,
    Progress,
    Size,
    WorkerKind,
    WorkerReport,
    kind_of,
)
from tests.unit.streamer.fakes import FakeFleet, a_job


@dataclass(kw_only=True)
class _Worker:
    """A process as its reports show it; a test may change anything about it."""

    boot: int = 1
    beat: int = 0
    state: Literal["starting", "ready"] = "ready"
    silent: bool = False
    backlog: int = 0
    busy: float = 0.0
    """Share of its time in work."""
    busy_s: float = 0.0
    step_s: float = 0.0
    lets_go: bool = True
    """Whether it lets go of jobs that it has no more."""
    jobs: tuple[str, ...] = ()


class World:
    """A controller, and what it looks after. Workers report once a second."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.queue = MemoryQueue()
        self.roster = MemoryRoster()
        self.fleet = FakeFleet()
        self.clock = ManualClock()
        self.workers: dict[str, _Worker] = {}
        self.new_workers: dict[str, Any] = {}
        """What is different about workers that are started from now on."""
        self.controller = self.new_controller()
        self.steps = 0

    def new_controller(self) -> Controller:
        """One that knows only what lies in roster and queue."""
        return Controller(self.settings, self.queue, self.roster, self.fleet, self.clock)

    def pass_time(self, seconds: float) -> None:
        """The workers live on, and the controller does its steps."""
        for _ in range(round(seconds / STEP_S)):
            if self.steps % round(1 / STEP_S) == 0:
                self.beat()
            self.controller.step()
            self.clock.advance(STEP_S)
            self.steps += 1

    def beat(self) -> None:
        """Every worker takes its jobs and gives a sign of life."""
        placed = self.roster.placements()
        living = self.fleet.names()
        self.workers = {name: w for name, w in self.workers.items() if name in living}
        for name in sorted(living):
            worker = self.workers.setdefault(name, _Worker(**self.new_workers))
            kind = kind_of(name)
            if worker.silent or kind is None:
                continue
            given = {job for job, p in placed.items() if p.on(kind) == name}
            kept = () if worker.lets_go else worker.jobs
            worker.jobs = tuple(sorted({*given, *kept})) if worker.state == "ready" else ()
            worker.beat += 1
            worker.busy_s += worker.busy
            self.roster.report(
                WorkerReport(
                    name=name,
                    kind=kind,
                    boot=f"boot-{worker.boot}",
                    beat=worker.beat,
                    state=worker.state,
                    backlog=worker.backlog,
                    busy_s=worker.busy_s,
                    step_s=worker.step_s,
                    jobs={job: Progress(chunk=1, t1=2.0) for job in worker.jobs},
                )
            )

    def die(self, name: str, state: Literal["starting", "ready"] = "starting") -> None:
        """The worker's process is another one from now on."""
        before = self.workers[name]
        self.workers[name] = _Worker(boot=before.boot + 1, state=state)

    def work(self, kind: WorkerKind, **changes: Any) -> None:
        """Changes what the workers of a kind report of their work."""
        for name, worker in self.workers.items():
            if kind_of(name) == kind:
                for field, value in changes.items():
                    setattr(worker, field, value)

    def add_job(self, id: str, tenant: str = "local", **record: str) -> str:
        job = a_job(id=id, tenant=tenant)
        self.queue.create_job(id, job.record() | record, tenant=tenant)
        return id

    def add_jobs(self, number: int) -> list[str]:
        return [self.add_job(f"job-{n:02}") for n in range(number)]

    def status(self, job: str) -> JobStatus:
        return read_status(self.queue.job(job) or {})

    def on(self, kind: WorkerKind) -> dict[str, str | None]:
        """Job → its worker."""
        return {job: placed.on(kind) for job, placed in self.roster.placements().items()}

    def pool(self, kind: WorkerKind) -> list[str]:
        return sorted(name for name in self.fleet.names() if kind_of(name) == kind)

    def caption(self, job: str, upto: int) -> None:
        for number in range(self.queue.last(job, "events") + 1, upto + 1):
            self.queue.append(job, "events", number, {"events": b"said"})


def a_world(jobs: int = 0, **settings: Any) -> World:
    """A world whose pools stand, with so many jobs in them."""
    world = World(**settings)
    world.pass_time(2)
    world.add_jobs(jobs)
    world.pass_time(2)
    return world


def pools(**of_caption: int) -> dict[str, Any]:
    """Settings with a caption pool of its own kind."""
    return {"pools": {"caption": of_caption}}


# Pools


def test_pools_are_filled_to_their_least_and_their_spares() -> None:
    # Given a service with nothing running
    world = World(
        pools={"decode": {"min": 2, "max": 3}, "caption": {"min": 1, "max": 4, "spares": 2}}
    )
    # When the controller looks once
    world.controller.step()
    # Then it starts what is missing, once
    started = [
        *("decode-1", "decode-2", "tokenize-1", "caption-1", "caption-2", "caption-3"),
    ]
    assert world.fleet.started == started
    world.pass_time(30)
    assert world.fleet.started == started
    assert (world.fleet.restarted, world.fleet.stopped) == ([], [])


def test_a_worker_that_vanished_is_started_again_and_forgotten_meanwhile() -> None:
    world = a_world(**pools(min=2, max=2))
    world.fleet.living.discard("caption-1")
    world.controller.step()
    assert world.fleet.started[-1] == "caption-1"
    assert "caption-1" not in world.roster.reports()


def test_what_is_no_pools_worker_is_left_alone() -> None:
    world = World()
    world.fleet.living |= {CONTROLLER, "somebody-else"}
    world.roster.report(WorkerReport(name=CONTROLLER, kind=CONTROLLER, boot="b", beat=1))
    world.pass_time(200)
    assert (world.fleet.restarted, world.fleet.stopped) == ([], [])
    assert CONTROLLER in world.roster.reports()


def test_the_capacity_is_published() -> None:
    world = a_world(pools={"decode": {"max": 3, "jobs": 8}, "caption": {"max": 2, "jobs": 10}})
    assert world.roster.published("capacity") == "16"  # one tokenizer of 16
    world.roster.resize({"tokenize": Size(min=1, max=9)})
    world.controller.step()
    assert world.roster.published("capacity") == "20"


# Jobs


def test_a_queued_job_is_placed_and_runs() -> None:
    # Given workers that are still starting
    world = World()
    world.new_workers = {"state": "starting"}
    job = world.add_job("cam", tenant="ann")
    world.pass_time(5)
    # Then the job waits
    assert world.roster.placements() == {"cam": Placement(tenant="ann")}
    assert world.status(job).state == "queued"
    # When all but one are ready, then it waits still
    for name in ("decode-1", "tokenize-1"):
        world.workers[name].state = "ready"
    world.pass_time(2)
    assert world.status(job).state == "queued"
    # When the last one is, then it runs
    world.workers["caption-1"].state = "ready"
    world.pass_time(2)
    assert world.roster.placements() == {
        "cam": Placement(
            tenant="ann", decode="decode-1", tokenize="tokenize-1", caption="caption-1"
        )
    }
    assert world.status(job).state == "running"


def test_a_job_is_running_before_a_worker_can_end_it() -> None:
    """Or a job of a moment would be said to run after it has ended."""

    class Quick(MemoryRoster):
        def place(self, changes: Mapping[str, Placement | None]) -> None:
            super().place(changes)
            for job, placement in changes.items():
                if placement and placement.caption:
                    world.queue.finish_job(job, {"state": "ended"})

    world = World()
    world.pass_time(2)
    world.roster = world.controller.roster = Quick()
    world.beat()
    job = world.add_job("cam")
    world.pass_time(1)
    assert world.status(job).state == "ended"


def test_a_pause_reaches_the_placement() -> None:
    world = a_world(1)
    for paused in ("1", ""):
        world.queue.update_job("job-00", {"paused": paused})
        world.controller.step()
        assert world.roster.placements()["job-00"].paused is bool(paused)


@pytest.mark.parametrize("gone", ["deleted", "ended"])
def test_a_job_that_is_gone_is_placed_no_more(gone: str) -> None:
    world = a_world(2)
    if gone == "deleted":
        world.queue.delete_job("job-00")
    else:
        world.queue.finish_job("job-00", {"state": "ended"})
    world.controller.step()
    assert world.roster.placements().keys() == {"job-01"}


def test_the_oldest_jobs_find_room_first() -> None:
    world = World(**pools(jobs=2))
    world.pass_time(2)
    for job, born in {"a": "30.0", "b": "10.0", "c": "20.0", "d": "not a time"}.items():
        world.add_job(job, created_at=born)
    world.pass_time(1)
    # the malformed one is some worker's to refuse; it stops nothing
    assert {job for job, name in world.on("caption").items() if name} == {"b", "d"}
    # When one ends, the next one has its place
    world.queue.finish_job("b", {"state": "ended"})
    world.pass_time(1)
    assert {job for job, name in world.on("caption").items() if name} == {"c", "d"}


def test_jobs_are_spread_over_the_workers() -> None:
    world = a_world(6, **pools(min=3, max=3))
    assert Counter(world.on("caption").values()) == {f"caption-{n}": 2 for n in (1, 2, 3)}


# Losses


def test_a_silent_worker_is_restarted() -> None:
    # Given a worker that says nothing any more
    world = a_world(1, workers={"silent_s": 5})
    world.workers["caption-1"].silent = True
    # Then it is given up after its time, once
    world.pass_time(4)
    assert world.fleet.restarted == []
    world.pass_time(3)
    assert world.fleet.restarted == ["caption-1"]
    world.pass_time(60)  # it is starting
    assert world.fleet.restarted == ["caption-1"]


def test_what_redis_could_not_tell_is_no_silence() -> None:
    # Given workers that are well, and one that is not
    world = a_world(1, workers={"silent_s": 5})
    world.workers["caption-1"].silent = True
    # When Redis is away for longer than a worker may be silent
    world.clock.advance(20)
    world.pass_time(4)
    # Then nobody is given up for that
    assert world.fleet.restarted == []
    # But for what it does not say afterwards
    world.pass_time(3)
    assert world.fleet.restarted == ["caption-1"]


def test_a_worker_that_does_not_come_up_is_restarted() -> None:
    world = World(workers={"starting_s": 20, "silent_s": 5})
    world.new_workers = {"silent": True}
    world.pass_time(19)
    assert world.fleet.restarted == []
    world.pass_time(2)
    assert sorted(world.fleet.restarted) == ["caption-1", "decode-1", "tokenize-1"]
    world.pass_time(20)
    assert len(world.fleet.restarted) == 6


def test_a_worker_that_says_it_is_starting_is_left_alone() -> None:
    """A model may take long to load, and cannot be had at all for a while."""
    world = World(workers={"starting_s": 20, "silent_s": 5})
    world.new_workers = {"state": "starting"}
    world.pass_time(300)
    assert world.fleet.restarted == []


def test_a_worker_that_hangs_in_a_chunk_is_restarted() -> None:
    # Given a worker that gives signs of life, and comes to no end
    world = a_world(1, workers={"step_s": 30})
    hung = world.workers["tokenize-1"]
    for _ in range(30):
        hung.step_s += 1.0
        world.pass_time(1)
    assert world.fleet.restarted == []
    # Then it is given up, once
    hung.step_s += 1.0
    world.pass_time(1)
    assert world.fleet.restarted == ["tokenize-1"]
    world.workers["tokenize-1"].silent = True
    world.pass_time(20)
    assert world.fleet.restarted == ["tokenize-1"]


def test_the_jobs_of_a_lost_worker_move_to_a_spare() -> None:
    # Given two workers with two jobs each, and a spare
    world = a_world(4, **pools(min=2, max=2, spares=1))
    before = world.on("caption")
    assert Counter(before.values()) == {"caption-1": 2, "caption-2": 2}
    # When one is killed, and its successor is loading a model
    world.die("caption-1")
    world.pass_time(1)
    # Then the spare has its jobs at once, and the others stayed
    after = world.on("caption")
    assert Counter(after.values()) == {"caption-3": 2, "caption-2": 2}
    assert all(after[job] == name for job, name in before.items() if name == "caption-2")
    # When it is back, then it is the spare: nothing moves again
    world.workers["caption-1"].state = "ready"
    world.pass_time(30)
    assert world.on("caption") == after
    assert (world.fleet.restarted, world.fleet.stopped) == ([], [])


def test_the_jobs_of_a_lost_worker_move_to_others_with_room() -> None:
    world = a_world(4, **pools(min=2, max=2, jobs=3))
    world.die("caption-1")
    world.pass_time(1)
    # one has room at the other, the second one waits
    assert Counter(world.on("caption").values()) == {"caption-2": 3, "caption-1": 1}
    # When it is back, then the loads are evened
    world.workers["caption-1"].state = "ready"
    world.pass_time(2)
    assert Counter(world.on("caption").values()) == {"caption-2": 2, "caption-1": 2}


def test_jobs_wait_for_the_only_worker() -> None:
    world = a_world(3)
    before = world.roster.placements()
    world.die("caption-1")
    world.pass_time(30)
    assert world.on("caption") == dict.fromkeys(before, "caption-1")
    assert world.status("job-00").state == "running"


def test_the_jobs_of_a_silent_worker_move_when_it_is_given_up() -> None:
    world = a_world(2, workers={"silent_s": 5}, **pools(min=1, max=1, spares=1))
    world.workers["caption-1"].silent = True
    world.pass_time(4)
    assert set(world.on("caption").values()) == {"caption-1"}
    world.pass_time(3)
    assert set(world.on("caption").values()) == {"caption-2"}


# Strikes


def lose(world: World, name: str) -> None:
    """The worker dies, and is back soon."""
    world.die(name)
    world.pass_time(1)
    world.workers[name].state = "ready"
    world.pass_time(2)


def test_a_job_that_kills_its_workers_fails() -> None:
    # Given a job whose chunk 4 kills whoever captions it
    world = a_world(1, workers={"strikes": 3})
    world.caption("job-00", upto=3)
    for strikes in (1, 2):
        lose(world, "caption-1")
        assert world.roster.placements()["job-00"].strikes == strikes
        assert world.status("job-00").state == "running"
    # When it did so once too often
    lose(world, "caption-1")
    # Then it fails and leaves
    status = world.status("job-00")
    assert status.state == "failed"
    assert status.error == "3 workers were lost at chunk 4, one after the other"
    assert status.ended_at == pytest.approx(world.clock.now(), abs=5)
    assert world.queue.active() == {}
    assert world.roster.placements() == {}


def test_a_job_that_comes_further_is_not_to_blame() -> None:
    world = a_world(1, workers={"strikes": 3})
    for chunk in range(1, 8):
        lose(world, "tokenize-1")
        world.caption("job-00", upto=chunk)
        assert world.roster.placements()["job-00"].strikes == 1
    assert world.status("job-00").state == "running"


def test_losses_of_any_kind_of_worker_count() -> None:
    world = a_world(1, workers={"strikes": 3})
    for name in ("decode-1", "tokenize-1", "caption-1"):
        lose(world, name)
    assert world.status("job-00").state == "failed"


def test_a_job_that_hangs_its_workers_fails_though_it_moves() -> None:
    # Given a job on which every worker hangs, and a spare that takes it each time
    world = a_world(1, workers={"strikes": 3, "step_s": 10}, **pools(min=1, max=1, spares=1))
    for _ in range(3):
        name = world.on("caption")["job-00"]
        assert name is not None
        world.workers[name].step_s = 11.0
        world.pass_time(2)  # noticed, and moved
        world.die(name, "ready")
        world.pass_time(2)
    assert sorted(world.fleet.restarted) == ["caption-1", "caption-1", "caption-2"]
    assert world.status("job-00").state == "failed"


def test_a_worker_that_is_restarted_counts_once() -> None:
    world = a_world(1, workers={"silent_s": 5})
    world.workers["caption-1"].silent = True
    world.pass_time(7)
    assert world.roster.placements()["job-00"].strikes == 1
    world.die("caption-1")
    world.pass_time(7)
    assert world.roster.placements()["job-00"].strikes == 1


def test_jobs_of_other_workers_are_not_struck() -> None:
    world = a_world(2, workers={"strikes": 1}, **pools(min=2, max=2))
    [struck] = [job for job, name in world.on("caption").items() if name == "caption-1"]
    lose(world, "caption-1")
    states = {job: world.status(job).state for job in ("job-00", "job-01")}
    assert states.pop(struck) == "failed"
    assert set(states.values()) == {"running"}


def test_a_live_job_is_not_to_blame_for_its_decode_workers() -> None:
    """Its source is read for ever, whatever becomes of who reads it."""
    world = a_world(1, workers={"strikes": 3})
    world.queue.update_job("job-00", {"live": "1"})
    for _ in range(5):
        lose(world, "decode-1")
    assert world.roster.placements()["job-00"].strikes == 0
    assert world.status("job-00").state == "running"
    # But it is for those that work on its pictures
    for _ in range(3):
        lose(world, "tokenize-1")
    assert world.status("job-00").state == "failed"


def test_what_a_silent_live_job_lost_long_ago_is_forgotten() -> None:
    """While its source is away it cannot come further."""
    world = a_world(1, workers={"strikes": 3})
    world.queue.update_job("job-00", {"live": "1"})
    for _ in range(2):
        lose(world, "tokenize-1")
        lose(world, "caption-1")
        assert world.roster.placements()["job-00"].strikes == 2
        world.pass_time(FORGET_S)
        assert world.roster.placements()["job-00"].strikes == 0
    # A file's are not: it could have come further
    world.queue.update_job("job-00", {"live": ""})
    lose(world, "tokenize-1")
    world.pass_time(FORGET_S)
    assert world.roster.placements()["job-00"].strikes == 1


@pytest.mark.parametrize(("said", "count"), [("3", 3), ("many", 0), ("", 0)])
def test_i_chunks_that_are_asked_for_reach_the_workers(said: str, count: int) -> None:
    world = a_world(1)
    assert world.roster.placements()["job-00"].keyframes == 0
    world.queue.update_job("job-00", {"keyframes": said})
    world.pass_time(1)
    assert world.roster.placements()["job-00"].keyframes == count


def test_a_job_deleted_while_its_worker_dies_is_no_trouble() -> None:
    class Late(MemoryQueue):
        """Tells of a job that is deleted right afterwards."""

        def active(self) -> dict[str, str]:
            found = super().active()
            self.delete_job("job-00")
            return found | {"job-00": "local"}

        def records(self, job_ids: Any) -> dict[str, dict[str, str]]:
            return super().records(job_ids) | {"job-00": a_job().record()}

    world = a_world(2)
    late = Late()
    for job in ("job-00", "job-01"):
        late.create_job(job, a_job(id=job).record())
    world.queue = world.controller.queue = late
    lose(world, "caption-1")
    assert world.roster.placements()["job-01"].strikes == 1


# Sizes


def test_a_pool_that_is_made_larger_gets_its_workers_and_they_get_jobs() -> None:
    world = a_world(6)
    world.roster.resize({"caption": Size(min=3, max=3)})
    world.pass_time(5)
    assert world.pool("caption") == ["caption-1", "caption-2", "caption-3"]
    assert Counter(world.on("caption").values()) == {f"caption-{n}": 2 for n in (1, 2, 3)}
    assert world.pool("decode") == ["decode-1"]


def test_jobs_move_off_before_a_worker_is_stopped() -> None:
    # Given three workers with two jobs each
    world = a_world(6, **pools(min=3, max=3))
    at_the_end: list[tuple[str, set[str | None], tuple[str, ...]]] = []

    class Watching(FakeFleet):
        def stop(self, name: str) -> None:
            placed = set(world.on("caption").values())
            at_the_end.append((name, placed, world.workers[name].jobs))
            super().stop(name)

    world.fleet = world.controller.fleet = Watching(*world.fleet.names())
    # When one is enough
    world.roster.resize({"caption": Size(min=1, max=1)})
    world.controller.step()
    # Then its jobs move at once, and the others stop when they have let go of theirs
    assert set(world.on("caption").values()) == {"caption-1"}
    assert world.fleet.stopped == []
    world.pass_time(2)
    assert at_the_end == [("caption-2", {"caption-1"}, ()), ("caption-3", {"caption-1"}, ())]
    assert world.pool("caption") == ["caption-1"]
    assert world.roster.reports().keys() == {"caption-1", "decode-1", "tokenize-1"}
    # And that is that
    world.pass_time(30)
    assert len(at_the_end) == 2
    assert world.fleet.started == []


def test_a_worker_that_does_not_let_go_is_stopped_all_the_same() -> None:
    world = a_world(2, **pools(min=2, max=2))
    world.workers["caption-2"].lets_go = False
    world.roster.resize({"caption": Size(min=1, max=1)})
    world.pass_time(RETIRE_S - 1)
    assert world.fleet.stopped == []
    world.pass_time(2)
    assert world.fleet.stopped == ["caption-2"]


def test_a_worker_that_is_wanted_again_stays() -> None:
    world = a_world(2, **pools(min=2, max=2))
    world.workers["caption-2"].lets_go = False
    world.roster.resize({"caption": Size(min=1, max=1)})
    world.pass_time(2)
    world.roster.resize({"caption": Size(min=2, max=2)})
    world.workers["caption-2"].lets_go = True
    world.pass_time(20)
    assert world.fleet.stopped == []
    assert Counter(world.on("caption").values()) == {"caption-1": 1, "caption-2": 1}


def test_a_pool_that_is_too_small_keeps_as_many_as_fit() -> None:
    world = a_world(4, **pools(min=2, max=2, jobs=2))
    world.roster.resize({"caption": Size(min=1, max=1)})
    world.pass_time(5)
    assert Counter(world.on("caption").values()) == {"caption-1": 2, None: 2}
    # When there is room again, then all go on
    world.roster.resize({"caption": Size(min=1, max=2)})
    world.pass_time(5)
    assert Counter(world.on("caption").values()) == {"caption-1": 2, "caption-2": 2}


def test_jobs_beyond_a_workers_room_bring_another() -> None:
    world = a_world(3, **pools(min=1, max=4, jobs=2))
    world.pass_time(5)
    assert world.pool("caption") == ["caption-1", "caption-2"]
    assert None not in world.on("caption").values()


def test_a_backlog_brings_workers_and_its_end_takes_them() -> None:
    # Given a pool that may grow to three, and more jobs than one can do
    world = a_world(9, **pools(min=1, max=3))

    world.work("caption", backlog=8, busy=1.0)
    # When chunks wait for ten seconds, then there is a second worker, and later a third
    world.pass_time(UP_S - 2)
    assert len(world.pool("caption")) == 1
    world.pass_time(4)
    assert len(world.pool("caption")) == 2
    for _ in range(round(3 * UP_S)):
        world.work("caption", backlog=8, busy=1.0)
        world.pass_time(1)
    # And no more than it may
    assert len(world.pool("caption")) == 3
    assert Counter(world.on("caption").values()) == {f"caption-{n}": 3 for n in (1, 2, 3)}
    # When each is only a little busy, then they leave one by one, and their jobs move
    world.work("caption", backlog=0, busy=0.15)
    world.pass_time(DOWN_S - 5)
    assert len(world.pool("caption")) == 3
    world.pass_time(10)
    assert len(world.pool("caption")) == 2
    world.pass_time(DOWN_S + 5)
    assert world.pool("caption") == ["caption-1"]
    world.pass_time(2 * DOWN_S)
    assert world.pool("caption") == ["caption-1"]
    assert set(world.on("caption").values()) == {"caption-1"}
    assert world.fleet.restarted == []


def test_workers_that_are_busy_stay() -> None:
    world = a_world(4, **pools(min=1, max=2))
    world.workers["caption-1"].backlog = 3
    world.pass_time(UP_S + 5)
    assert len(world.pool("caption")) == 2
    # Given two that are half busy each: one would be too few
    world.work("caption", backlog=0, busy=0.5)
    world.pass_time(3 * DOWN_S)
    assert len(world.pool("caption")) == 2


def test_a_worker_in_a_long_piece_of_work_is_busy() -> None:
    """Its time in work grows only when that ends."""
    world = a_world(4, **pools(min=1, max=2), workers={"step_s": 1000})
    world.workers["caption-1"].backlog = 3
    world.pass_time(UP_S + 5)
    for step_s in range(round(2 * DOWN_S)):
        world.work("caption", backlog=0, step_s=step_s)
        world.pass_time(1)
    assert len(world.pool("caption")) == 2


def test_spares_do_not_hide_a_backlog() -> None:
    world = a_world(4, **pools(min=1, max=2, spares=2))
    world.workers["caption-1"].backlog = 3
    world.pass_time(UP_S + 5)
    assert len(world.pool("caption")) == 4
    assert Counter(world.on("caption").values()) == {"caption-1": 2, "caption-2": 2}


# A new controller


def undisturbed(world: World) -> None:
    """A new controller takes over, and nothing changes."""
    placed, names = world.roster.placements(), world.fleet.names()
    done = (list(world.fleet.started), list(world.fleet.stopped), list(world.fleet.restarted))
    world.controller = world.new_controller()
    world.controller.step()
    assert world.roster.placements() == placed
    world.pass_time(30)
    assert world.roster.placements() == placed
    assert world.fleet.names() == names
    assert (world.fleet.started, world.fleet.stopped, world.fleet.restarted) == done


def test_a_new_controller_changes_nothing() -> None:
    world = a_world(7, **pools(min=2, max=3, spares=1))
    undisturbed(world)


def test_a_new_controller_keeps_a_pool_that_had_grown() -> None:
    # Given a pool that grew by its backlog
    world = a_world(6, **pools(min=1, max=3))
    for _ in range(round(3 * UP_S)):
        world.work("caption", backlog=5, busy=1.0)
        world.pass_time(1)
    assert len(world.pool("caption")) == 3
    # Then a new controller does not begin with the least
    world.work("caption", backlog=0, busy=1.0)
    undisturbed(world)


def test_a_new_controller_goes_on_with_jobs_on_a_spare() -> None:
    world = a_world(3, **pools(min=1, max=1, spares=1))
    lose(world, "caption-1")
    assert set(world.on("caption").values()) == {"caption-2"}
    undisturbed(world)


def test_a_new_controller_finds_a_dead_worker() -> None:
    world = a_world(1, workers={"silent_s": 5})
    world.workers["caption-1"].silent = True
    world.controller = world.new_controller()
    world.pass_time(7)
    assert world.fleet.restarted == ["caption-1"]


def test_all_kinds_are_looked_after() -> None:
    world = a_world(1, workers={"silent_s": 5})
    for kind in KINDS:
        world.workers[f"{kind}-1"].silent = True
    world.pass_time(7)
    assert sorted(world.fleet.restarted) == sorted(f"{kind}-1" for kind in KINDS)
