"""Following jobs: one thread for all, no wake-up missed, nothing kept of those who leave."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping

import pytest

from streamer.adapters.clock import SYSTEM_CLOCK
from streamer.adapters.memory_queue import MemoryQueue
from streamer.api.tail import Standing, Tail, standing
from streamer.errors import QueueError
from tests.unit.streamer.api_jobs import finish, make_job, write

WAIT_S = 5.0
"""Longer than anything here takes."""


class Shaky(MemoryQueue):
    """A queue that can be away."""

    away: Exception | None = None
    reads = 0

    def records(self, job_ids: Iterable[str]) -> dict[str, dict[str, str]]:
        self.reads += 1
        if self.away is not None:
            raise self.away
        return super().records(job_ids)


def known(queue: MemoryQueue, job_id: str = "cam") -> Standing:
    return standing(queue.job(job_id) or {})


def tail_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "api-tail"]


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def later(queue: MemoryQueue, change: Callable[[], object]) -> None:
    """Makes a change when a follower waits already."""
    await asyncio.sleep(0.05)
    await asyncio.to_thread(change)


def test_a_follower_is_woken_by_what_is_beyond_its_place() -> None:
    queue = MemoryQueue()
    make_job(queue)
    tail = Tail(queue, SYSTEM_CLOCK)

    async def follow() -> None:
        with tail.follow("cam", known(queue)) as follower:
            assert not await follower.news(0, follower.standing, 0.1)
            writing = asyncio.create_task(later(queue, lambda: write(queue, "cam", 1)))
            assert await follower.news(0, follower.standing, WAIT_S)
            await writing
            assert await follower.news(0, follower.standing, WAIT_S)  # it is still there
            assert not await follower.news(1, follower.standing, 0.1)

    asyncio.run(follow())


def test_what_comes_between_a_read_and_the_wait_is_not_missed() -> None:
    queue = MemoryQueue()
    make_job(queue)
    tail = Tail(queue, SYSTEM_CLOCK)

    async def follow() -> None:
        with tail.follow("cam", known(queue)) as follower:
            for chunk in range(1, 30):
                write(queue, "cam", chunk)  # the follower has read up to chunk - 1
                assert await follower.news(chunk - 1, follower.standing, WAIT_S)

    asyncio.run(follow())


def test_followers_stand_at_different_places() -> None:
    queue = MemoryQueue()
    make_job(queue)
    write(queue, "cam", 1, 2, 3)
    tail = Tail(queue, SYSTEM_CLOCK)

    async def follow() -> None:
        job = known(queue)
        with tail.follow("cam", job) as ahead, tail.follow("cam", job) as behind:
            assert not await ahead.news(3, job, 0.05)
            assert await behind.news(1, job, WAIT_S)
            write(queue, "cam", 4)
            assert await ahead.news(3, job, WAIT_S)
            assert tail.followers == 2

    asyncio.run(follow())
    assert tail.followers == 0


def test_a_change_of_state_is_news() -> None:
    queue = MemoryQueue()
    make_job(queue)
    tail = Tail(queue, SYSTEM_CLOCK)

    async def follow() -> list[str]:
        seen = []
        with tail.follow("cam", known(queue)) as follower:
            for change in (
                lambda: queue.update_job("cam", {"state": "running"}),
                lambda: queue.update_job("cam", {"paused": "1"}),
                lambda: queue.update_job("cam", {"paused": "", "error": "why"}),
                lambda: finish(queue, "cam", "failed"),
                lambda: queue.update_job("cam", {"last_chunk": "x"}),
                lambda: queue.delete_job("cam"),
            ):
                before = follower.standing
                change()
                assert await follower.news(0, before, WAIT_S)
                seen.append(f"{follower.standing.state} {follower.standing.error}")
        return seen

    assert asyncio.run(follow()) == [
        "running None",
        "paused None",
        "running why",
        "failed why",
        "failed a job's record is malformed: last_chunk 'x' is not a number",
        "deleted None",
    ]


def test_a_job_made_anew_is_another_job() -> None:
    queue = MemoryQueue()
    make_job(queue)
    tail = Tail(queue, SYSTEM_CLOCK)

    async def follow() -> None:
        with tail.follow("cam", known(queue)) as old:
            queue.delete_job("cam")
            make_job(queue, created_at=1_800_000_000.0)
            with tail.follow("cam", known(queue)) as new:
                write(queue, "cam", 1)
                assert await new.news(0, new.standing, WAIT_S)
                assert await old.news(5, known(queue), WAIT_S)
                assert (old.standing.state, new.standing.state) == ("deleted", "queued")

    asyncio.run(follow())


def test_one_who_comes_while_the_states_are_read_is_not_told_that_the_job_was_deleted() -> None:
    class Slow(MemoryQueue):
        asked = threading.Event()
        go_on = threading.Event()

        def records(self, job_ids: Iterable[str]) -> dict[str, dict[str, str]]:
            found = super().records(job_ids)
            self.asked.set()
            self.go_on.wait(WAIT_S)
            return found

    queue = Slow()
    make_job(queue, "first")
    tail = Tail(queue, SYSTEM_CLOCK)

    async def follow() -> None:
        with tail.follow("first", known(queue, "first")):
            await asyncio.to_thread(queue.asked.wait, WAIT_S)
            make_job(queue, "second")
            with tail.follow("second", known(queue, "second")) as late:
                queue.go_on.set()
                assert not await late.news(0, late.standing, 1.0)
                assert late.standing.state == "queued"

    asyncio.run(follow())


def test_while_redis_is_away_nobody_reads_and_then_everybody_does() -> None:
    queue = Shaky()
    make_job(queue)
    tail = Tail(queue, SYSTEM_CLOCK)

    async def follow() -> None:
        with tail.follow("cam", known(queue)) as follower:
            assert not await follower.news(0, follower.standing, 0.05)
            queue.away = QueueError("gone")
            await asyncio.to_thread(until, lambda: tail.lost_s > 0)
            write(queue, "cam", 1)
            tail.lose()  # as one does that could not read, which changes nothing now
            assert not await follower.news(0, follower.standing, 0.3)
            assert not await follower.news(0, None, 0.1)
            assert tail.lost_s > 0.3
            queue.away = None
            assert await follower.news(1, None, WAIT_S)  # back, though nothing is new
            assert tail.lost_s == 0
            assert await follower.news(0, follower.standing, WAIT_S)

    asyncio.run(follow())


def test_one_thread_lives_as_long_as_somebody_follows() -> None:
    queue = MemoryQueue()
    until(lambda: not tail_threads())  # of the tests before
    tail = Tail(queue, SYSTEM_CLOCK)
    for n in range(50):
        make_job(queue, f"job-{n}")

    async def come_and_go(n: int) -> None:
        with tail.follow(f"job-{n % 50}", known(queue, f"job-{n % 50}")) as follower:
            await follower.news(0, follower.standing, 0.3)
            assert len(tail_threads()) == 1

    async def all_of_them() -> None:
        await asyncio.gather(*(come_and_go(n) for n in range(200)))

    for _ in range(2):  # and again, after all have left
        asyncio.run(all_of_them())
        assert tail.followers == 0
        until(lambda: not tail_threads())


def test_nobody_follows_a_process_that_ends() -> None:
    queue = MemoryQueue()
    make_job(queue)
    tail = Tail(queue, SYSTEM_CLOCK)

    async def follow() -> None:
        with tail.follow("cam", known(queue)) as follower:
            closing = asyncio.create_task(later(queue, tail.close))
            assert await follower.news(0, follower.standing, WAIT_S)
            await closing
            assert follower.cut
        with tail.follow("cam", known(queue)) as late:
            assert late.cut
            assert await late.news(0, late.standing, WAIT_S)

    asyncio.run(follow())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_nobody_foresaw_cuts_the_streams_and_no_later_ones() -> None:
    queue = Shaky()
    make_job(queue)
    tail = Tail(queue, SYSTEM_CLOCK)

    async def follow() -> None:
        with tail.follow("cam", known(queue)) as follower:
            assert not await follower.news(0, follower.standing, 0.05)
            queue.away = ZeroDivisionError()
            assert await follower.news(0, follower.standing, WAIT_S)
            assert follower.cut
        queue.away = None
        with tail.follow("cam", known(queue)) as later:
            write(queue, "cam", 1)
            assert await later.news(0, later.standing, WAIT_S)
            assert not later.cut

    asyncio.run(follow())
    until(lambda: not tail_threads())  # its error is this test's


def test_records_are_standings() -> None:
    def state(record: Mapping[str, str]) -> str:
        return standing(record).state

    assert state({}) == "queued"
    assert state({"state": "running"}) == "running"
    assert state({"state": "running", "paused": "1"}) == "paused"
    assert standing({"state": "ended"}).finished
    assert not standing({"state": "running"}).finished
    assert Standing(born="", state="deleted").finished
