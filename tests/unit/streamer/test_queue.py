"""What every queue must do, run here on the one in memory; test_redis_queue.py runs it on Redis."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from streamer.adapters.memory_queue import MemoryQueue
from streamer.adapters.queue import MAX_BLOCK_S, Entry, Queue
from streamer.errors import QueueError, StreamGone, WriterReplaced

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
            assert queue.entry(job, stream, 1) is None
            assert queue.trim(job, stream, before=9) == 0

    def test_an_update_sets_fields(self, queue: Queue, job: str) -> None:
        assert queue.update_job(job, {"state": "running", "lag": "1"})
        assert queue.job(job) == RECORD | {"state": "running", "lag": "1"}

    def test_a_deleted_job_is_gone_and_stays_gone(self, queue: Queue, job: str) -> None:
        queue.append(job, "tokens", 1, numbered(1))
        queue.delete_job(job)
        queue.delete_job(job)
        assert not queue.update_job(job, {"state": "running"})
        for call in (
            lambda: queue.append(job, "tokens", 2, numbered(2)),
            lambda: queue.read(job, "tokens", after=0),
            lambda: queue.read_back(job, "tokens"),
            lambda: queue.entry(job, "tokens", 1),
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
            lambda: queue.read(job, "tokens", after=0, count=0),
            lambda: queue.read(job, "tokens", after=0, block_s=MAX_BLOCK_S + 1),
        ):
            with pytest.raises(ValueError, match=r"must be|needs"):
                call()

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
        queue.read("cam", "tokens", after=0)[0].fields.clear()
        assert queue.job("cam") == RECORD
        assert numbers(queue.read("cam", "tokens", after=0)) == [1]
