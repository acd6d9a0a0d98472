"""What every queue must do, run here on the one in memory; test_redis_queue.py runs it on Redis."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from streamer.adapters.memory_queue import MemoryQueue
from streamer.adapters.queue import MAX_BLOCK_S, Entry, Queue, Room
from streamer.errors import NoRoom, QueueError, StreamGone, WriterReplaced

RECORD = {"url": "file:a.mp4", "state": "queued"}


def numbered(number: int) -> dict[str, bytes]:
    return {"head": str(number).encode(), "body": b"\x00\xff\r\n"}


def numbers(entries: list[Entry]) -> list[int]:
    assert all(entry.fields == numbered(entry.number) for entry in entries)
    return [entry.number for entry in entries]


class QueueContract:
    """A subclass gives the fixture `queue`: one with no jobs."""

    @pytest.fixture
    def job(self, queue: Queue) -> str:
        assert queue.create_job("cam", RECORD)
        return "cam"

    def test_a_job_is_made_once(self, queue: Queue) -> None:
        assert queue.job("cam") is None
        assert queue.create_job("cam", RECORD)
        assert not queue.create_job("cam", {"state": "other"})
        assert queue.job("cam") == RECORD
        assert queue.create_job("a.b_C-1", {"name": "grün"})
        assert queue.job("a.b_C-1") == {"name": "grün"}
        assert queue.jobs() == ["a.b_C-1", "cam"]

    def test_a_new_job_has_empty_streams(self, queue: Queue, job: str) -> None:
        for stream in ("tokens", "events"):
            assert queue.length(job, stream) == queue.first(job, stream) == 0
            assert queue.last(job, stream) == 0
            assert queue.read(job, stream, after=0) == []
            assert queue.read_back(job, stream) == []
            assert queue.outlines(job, stream, "head", after=0) == []
            assert queue.entry(job, stream, 1) is None
            assert queue.trim(job, stream, before=9) == 0

    def test_an_update_sets_fields(self, queue: Queue, job: str) -> None:
        assert queue.update_job(job, {"state": "running", "lag": "1"})
        assert queue.job(job) == RECORD | {"state": "running", "lag": "1"}

    def test_an_update_removes_what_it_gives_as_nothing(self, queue: Queue, job: str) -> None:
        queue.update_job(job, {"paused": "1", "error": "it broke"})
        assert queue.update_job(job, {"paused": "", "state": "running", "never": ""})
        assert queue.job(job) == RECORD | {"state": "running", "error": "it broke"}
        assert queue.update_job(job, {"error": ""})
        assert queue.job(job) == RECORD | {"state": "running"}

    def test_an_update_removes_nothing_else(self, queue: Queue) -> None:
        queue.create_job("cam", RECORD | {"note": ""})
        queue.update_job("cam", {"state": "running"})
        assert queue.job("cam") == RECORD | {"note": "", "state": "running"}

    def test_a_change_is_made_from_what_is_there(self, queue: Queue, job: str) -> None:
        def swap(record: dict[str, str]) -> dict[str, str]:
            assert record == RECORD
            record["url"] = "a copy"
            return {"state": record["state"] + "!", "url": ""}

        assert queue.change_job(job, swap)
        assert queue.job(job) == {"state": "queued!"}
        assert not queue.change_job("nobody", swap)
        assert queue.job("nobody") is None

    def test_a_change_that_fails_changes_nothing(self, queue: Queue, job: str) -> None:
        def refuse(record: dict[str, str]) -> dict[str, str]:
            raise LookupError("no such question")

        with pytest.raises(LookupError, match="no such question"):
            queue.change_job(job, refuse)
        with pytest.raises(ValueError, match="needs"):
            queue.change_job(job, lambda record: {})
        assert queue.job(job) == RECORD
        assert queue.update_job(job, {"state": "running"})

    def test_changes_of_many_are_all_kept(self, queue: Queue, job: str) -> None:
        def count(record: dict[str, str]) -> dict[str, str]:
            return {"count": str(int(record.get("count", "0")) + 1)}

        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(lambda _: queue.change_job(job, count), range(20)))
        assert all(done)
        assert queue.job(job) == RECORD | {"count": "20"}

    def test_the_records_of_many_are_read_at_once(self, queue: Queue, job: str) -> None:
        queue.create_job("other", {"name": "grün"})
        assert queue.records([]) == {}
        assert queue.records(["other", "nobody", job]) == {"other": {"name": "grün"}, job: RECORD}
        assert queue.records(iter([job])) == {job: RECORD}

    def test_a_job_is_active_until_it_finishes(self, queue: Queue, job: str) -> None:
        assert queue.create_job("b", RECORD, tenant="ann")
        assert queue.active() == {job: "local", "b": "ann"}
        queue.update_job(job, {"state": "ended"})  # which says nothing
        assert queue.active() == {job: "local", "b": "ann"}
        # When it finishes, then its record stays
        assert queue.finish_job(job, {"state": "failed", "error": "it broke", "url": ""})
        assert queue.active() == {"b": "ann"}
        assert queue.job(job) == {"state": "failed", "error": "it broke"}
        assert queue.jobs() == ["b", job]
        # And to finish it again does no harm
        assert queue.finish_job(job, {"state": "ended"})
        assert queue.active() == {"b": "ann"}
        # When it is deleted, then it is not active either
        queue.delete_job("b")
        assert queue.active() == {}
        assert not queue.finish_job("b", {"state": "ended"})
        assert queue.job("b") is None

    def test_no_more_jobs_than_there_is_room_for(self, queue: Queue) -> None:
        room = Room(jobs=2)
        assert queue.create_job("a", RECORD, room=room)
        assert queue.create_job("b", RECORD, tenant="ann", room=room)
        with pytest.raises(NoRoom, match="2 jobs are running, and no more fit"):
            queue.create_job("c", RECORD, room=room)
        # then nothing was made
        assert queue.jobs() == ["a", "b"]
        assert queue.job("c") is None
        with pytest.raises(StreamGone):
            queue.last("c", "tokens")
        # who is there already is there, room or not
        assert not queue.create_job("a", RECORD, room=room)
        # a job without bounds is made
        assert queue.create_job("d", RECORD)
        # When jobs end or go, then there is room again
        queue.finish_job("a", {"state": "ended"})
        with pytest.raises(NoRoom):
            queue.create_job("c", RECORD, room=room)
        queue.delete_job("b")
        assert queue.create_job("c", RECORD, room=room)
        assert queue.active() == {"c": "local", "d": "local"}

    def test_no_more_jobs_of_a_tenant_than_it_may_have(self, queue: Queue) -> None:
        room = Room(jobs=3, of_tenant=2)
        assert queue.create_job("a1", RECORD, tenant="ann", room=room)
        assert queue.create_job("a2", RECORD, tenant="ann", room=room)
        with pytest.raises(NoRoom):
            queue.create_job("a3", RECORD, tenant="ann", room=room)
        assert queue.create_job("b1", RECORD, tenant="bob", room=room)
        with pytest.raises(NoRoom):
            queue.create_job("b2", RECORD, tenant="bob", room=room)
        queue.finish_job("a1", {"state": "ended"})
        assert queue.create_job("b2", RECORD, tenant="bob", room=room)

    def test_where_there_is_no_room_none_is_made(self, queue: Queue) -> None:
        for room in (Room(jobs=0), Room(of_tenant=0)):
            with pytest.raises(NoRoom):
                queue.create_job("a", RECORD, room=room)
        assert queue.jobs() == []

    @pytest.mark.parametrize("room", [Room(jobs=5), Room(of_tenant=5)], ids=["all", "tenant"])
    def test_of_many_that_come_at_once_as_many_get_in_as_there_is_room_for(
        self, queue: Queue, room: Room
    ) -> None:
        def create(n: int) -> bool:
            try:
                return queue.create_job(f"job-{n}", RECORD, room=room)
            except NoRoom:
                return False

        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(create, range(24)))
        assert made.count(True) == 5
        assert len(queue.jobs()) == len(queue.active()) == 5

    def test_a_deleted_job_is_gone_and_stays_gone(self, queue: Queue, job: str) -> None:
        queue.append(job, "tokens", 1, numbered(1))
        queue.delete_job(job)
        queue.delete_job(job)
        assert not queue.update_job(job, {"state": "running"})
        assert not queue.finish_job(job, {"state": "running"})
        assert queue.records([job]) == {}
        for call in (
            lambda: queue.append(job, "tokens", 2, numbered(2)),
            lambda: queue.read(job, "tokens", after=0),
            lambda: queue.read_back(job, "tokens"),
            lambda: queue.entry(job, "tokens", 1),
            lambda: queue.outlines(job, "tokens", "head", after=0),
            lambda: queue.last(job, "tokens"),
            lambda: queue.first(job, "tokens"),
            lambda: queue.length(job, "events"),
            lambda: queue.trim(job, "events", before=2),
        ):
            with pytest.raises(StreamGone, match=r"job cam (tokens|events): .* deleted"):
                call()
        assert queue.job(job) is None
        assert queue.jobs() == []

    def test_a_job_made_anew_starts_empty(self, queue: Queue, job: str) -> None:
        queue.append(job, "tokens", 7, numbered(7))
        queue.delete_job(job)
        assert queue.create_job(job, RECORD)
        assert queue.last(job, "tokens") == queue.length(job, "tokens") == 0
        assert queue.append(job, "tokens", 1, numbered(1)) == "written"

    @pytest.mark.parametrize("job_id", ["", "a}b", "{a}", "a b", "ä", "a\n", "-a", "x" * 129])
    def test_an_impossible_job_id_is_refused(self, queue: Queue, job_id: str) -> None:
        for call in (
            lambda: queue.create_job(job_id, RECORD),
            lambda: queue.job(job_id),
            lambda: queue.update_job(job_id, RECORD),
            lambda: queue.finish_job(job_id, RECORD),
            lambda: queue.change_job(job_id, lambda record: RECORD),
            lambda: queue.records([job_id]),
            lambda: queue.delete_job(job_id),
            lambda: queue.last(job_id, "tokens"),
            lambda: queue.append(job_id, "tokens", 1, numbered(1)),
        ):
            with pytest.raises(QueueError, match="job id"):
                call()
        assert queue.jobs() == []

    def test_a_caller_mistake_is_a_value_error(self, queue: Queue, job: str) -> None:
        for call in (
            lambda: queue.append(job, "tokens", 0, numbered(0)),
            lambda: queue.append(job, "tokens", 1, {}),
            lambda: queue.create_job("other", {}),
            lambda: queue.update_job(job, {}),
            lambda: queue.finish_job(job, {}),
            lambda: queue.read(job, "tokens", after=0, count=0),
            lambda: queue.read(job, "tokens", after=0, block_s=MAX_BLOCK_S + 1),
            lambda: queue.outlines(job, "tokens", "head", after=0, count=0),
            lambda: queue.read_any("tokens", {job: 0}, count=0),
            lambda: queue.read_any("tokens", {job: 0}, block_s=-1.0),
        ):
            with pytest.raises(ValueError, match=r"must be|needs"):
                call()
        assert queue.active() == {job: "local"}

    def test_entries_come_back_in_order(self, queue: Queue, job: str) -> None:
        for number in (1, 2, 5, 9):  # a replaced writer's numbers may be missing
            assert queue.append(job, "tokens", number, numbered(number)) == "written"
        assert numbers(queue.read(job, "tokens", after=0)) == [1, 2, 5, 9]
        assert numbers(queue.read(job, "tokens", after=2, count=1)) == [5]
        assert numbers(queue.read(job, "tokens", after=9)) == []
        assert numbers(queue.read_back(job, "tokens")) == [9, 5, 2, 1]
        assert numbers(queue.read_back(job, "tokens", before=5, count=1)) == [2]
        assert numbers(queue.read_back(job, "tokens", before=1)) == []
        assert numbers(queue.read_back(job, "tokens", before=0)) == []
        assert queue.entry(job, "tokens", 5) == queue.read(job, "tokens", after=2)[0]
        assert queue.entry(job, "tokens", 4) is None
        assert (queue.first(job, "tokens"), queue.last(job, "tokens")) == (1, 9)
        assert queue.length(job, "tokens") == 4
        assert queue.read(job, "tokens", after=5)[0].where == "job cam tokens entry 9"

    def test_an_outline_leaves_out_what_is_large(self, queue: Queue, job: str) -> None:
        # Given entries of different fields
        assert queue.outlines(job, "tokens", "head", after=0) == []
        queue.append(job, "tokens", 2, {"head": b"{}", "body": b"12345"})
        queue.append(job, "tokens", 5, {"body": b"\xff"})
        queue.append(job, "tokens", 6, {"head": b""})
        # When one of them is asked for, then it alone comes, with the size of all
        outlines = queue.outlines(job, "tokens", "head", after=0)
        assert [outline.entry.number for outline in outlines] == [2, 5, 6]
        assert [outline.entry.fields for outline in outlines] == [
            {"head": b"{}"},
            {},
            {"head": b""},
        ]
        assert [outline.size for outline in outlines] == [15, 5, 4]
        assert outlines[0].entry.where == "job cam tokens entry 2"
        assert queue.outlines(job, "tokens", "head", after=2, count=1) == outlines[1:2]
        assert queue.outlines(job, "tokens", "head", after=6) == []
        assert queue.outlines(job, "events", "head", after=0) == []

    def test_streams_are_apart(self, queue: Queue, job: str) -> None:
        assert queue.create_job("other", RECORD)
        queue.append(job, "tokens", 3, numbered(3))
        assert queue.last(job, "events") == queue.last("other", "tokens") == 0
        assert queue.append("other", "tokens", 1, numbered(1)) == "written"

    def test_an_entry_is_written_once(self, queue: Queue, job: str) -> None:
        queue.append(job, "events", 1, numbered(1))
        queue.append(job, "events", 2, numbered(2))
        for number in (2, 1):
            assert queue.append(job, "events", number, {"late": b"!"}) == "already"
        assert numbers(queue.read(job, "events", after=0)) == [1, 2]

    def test_a_replaced_writer_is_told(self, queue: Queue, job: str) -> None:
        queue.append(job, "events", 5, numbered(5))
        with pytest.raises(WriterReplaced, match="job cam events: entry 4 was refused"):
            queue.append(job, "events", 4, numbered(4))

    def test_what_is_trimmed_stays_counted(self, queue: Queue, job: str) -> None:
        for number in range(1, 6):
            queue.append(job, "tokens", number, numbered(number))
        assert queue.trim(job, "tokens", before=4) == 3
        assert queue.trim(job, "tokens", before=4) == 0
        assert numbers(queue.read(job, "tokens", after=0)) == [4, 5]
        assert (queue.first(job, "tokens"), queue.length(job, "tokens")) == (4, 2)
        assert queue.trim(job, "tokens", before=99) == 2
        assert (queue.first(job, "tokens"), queue.last(job, "tokens")) == (0, 5)
        with pytest.raises(WriterReplaced):
            queue.append(job, "tokens", 5, numbered(5))
        assert queue.append(job, "tokens", 6, numbered(6)) == "written"

    def test_a_reader_waits_for_the_next_entry(self, queue: Queue, job: str) -> None:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(queue.read, job, "tokens", after=1, block_s=5.0)
            time.sleep(0.05)  # so that the wait has begun; right in either case
            queue.append(job, "tokens", 1, numbered(1))
            queue.append(job, "tokens", 2, numbered(2))
            assert numbers(answer.result(8)) == [2]

    def test_a_wait_ends(self, queue: Queue, job: str) -> None:
        assert queue.read(job, "tokens", after=0, block_s=0.02) == []

    def test_a_waiting_reader_hears_of_the_deletion(self, queue: Queue, job: str) -> None:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(queue.read, job, "tokens", after=0, block_s=0.5)
            time.sleep(0.05)  # so that the wait has begun; right in either case
            queue.delete_job(job)
            with pytest.raises(StreamGone):
                answer.result(5)

    def test_many_streams_are_read_in_one_call(self, queue: Queue, job: str) -> None:
        # Given three jobs with different streams, and one that was deleted
        for name, last in {"b": 3, "c": 1, "gone": 2}.items():
            queue.create_job(name, RECORD)
            for number in range(1, last + 1):
                queue.append(name, "tokens", number, numbered(number))
        queue.delete_job("gone")
        after = {job: 0, "b": 0, "c": 1, "gone": 0, "nobody": 5}

        def found(count: int = 1, block_s: float = 0.0) -> dict[str, list[int]]:
            entries = queue.read_any("tokens", after, count=count, block_s=block_s)
            return {name: numbers(some) for name, some in entries.items()}

        # Then those with entries are told, each from its own place, and no more than asked for
        assert found() == {"b": [1]}
        assert found(count=2) == {"b": [1, 2]}
        assert found(count=9, block_s=0.5) == {"b": [1, 2, 3]}
        queue.append(job, "tokens", 4, numbered(4))
        after["b"] = 2
        assert found(count=9) == {job: [4], "b": [3]}
        assert queue.read_any("tokens", after)["b"][0].where == "job b tokens entry 3"
        assert queue.read_any("events", after) == {}
        assert queue.read_any("tokens", {}) == {}
        assert queue.read_any("tokens", {"gone": 0}, block_s=0.02) == {}

    def test_a_reader_of_many_waits_for_the_first(self, queue: Queue, job: str) -> None:
        queue.create_job("other", RECORD)
        after = {job: 0, "other": 0}
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(queue.read_any, "tokens", after, block_s=5.0)
            time.sleep(0.05)  # so that the wait has begun; right in either case
            queue.append("other", "tokens", 1, numbered(1))
            found = answer.result(8)
        assert {name: numbers(entries) for name, entries in found.items()} == {"other": [1]}

    def test_a_wait_for_many_ends(self, queue: Queue, job: str) -> None:
        assert queue.read_any("tokens", {job: 0}, block_s=0.02) == {}

    def test_rivals_write_each_entry_once(self, queue: Queue, job: str) -> None:
        def rival(_: int) -> int:
            answers = [queue.append(job, "events", n, numbered(n)) for n in range(1, 101)]
            return answers.count("written")

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(rival, range(4))) == 100
        assert numbers(queue.read(job, "events", after=0, count=200)) == list(range(1, 101))

    def test_one_of_many_makes_the_job(self, queue: Queue) -> None:
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda _: queue.create_job("cam", RECORD), range(8)))
        assert made.count(True) == 1

    def test_updates_of_many_are_all_kept(self, queue: Queue, job: str) -> None:
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(lambda n: queue.update_job(job, {f"n{n}": "1"}), range(20)))
        assert all(done)
        assert queue.job(job) == RECORD | {f"n{n}": "1" for n in range(20)}


@pytest.mark.parametrize(
    ("room", "left"),
    [
        (Room(), None),
        (Room(jobs=5), 2),
        (Room(of_tenant=5), 4),
        (Room(jobs=5, of_tenant=2), 1),
        (Room(jobs=3), 0),
        (Room(jobs=1, of_tenant=9), 0),
    ],
)
def test_room_says_how_many_more_fit(room: Room, left: int | None) -> None:
    assert room.left({"a": "ann", "b": "bob", "c": "bob"}, "ann") == left


class TestMemoryQueue(QueueContract):
    @pytest.fixture
    def queue(self) -> Queue:
        return MemoryQueue()

    def test_what_is_stored_is_a_copy(self) -> None:
        queue = MemoryQueue()
        record, fields = dict(RECORD), numbered(1)
        queue.create_job("cam", record)
        queue.append("cam", "tokens", 1, fields)
        record.clear()
        fields.clear()
        queue.active().clear()
        queue.records(["cam"])["cam"].clear()
        queue.read("cam", "tokens", after=0)[0].fields.clear()
        assert queue.job("cam") == RECORD
        assert numbers(queue.read("cam", "tokens", after=0)) == [1]
        assert queue.active() == {"cam": "local"}
