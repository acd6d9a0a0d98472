"""A worker of many jobs: what goes wrong with one is that one's own affair."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamer.actors.worker import ATTEMPTS, RETRY_S, JobWorker
from streamer.adapters.clock import ManualClock
from streamer.adapters.memory_queue import MemoryQueue
from streamer.errors import (
    ConfigError,
    ModelError,
    QueueError,
    SourceError,
    StreamGone,
    WireError,
    WriterReplaced,
)
from streamer.jobs import Job, JobStatus, read_status
from streamer.workers import Progress
from tests.unit.streamer.fakes import a_job, placed

Trouble = Callable[[int], Exception | None]
"""What goes wrong at a chunk."""


class CountingRun:
    """One job, whose chunks are numbers."""

    def __init__(self, job: Job, chunk: int) -> None:
        self.job = job
        self.chunk = chunk
        self.closed = False

    @property
    def progress(self) -> Progress:
        return Progress(chunk=self.chunk, t1=2.0 * self.chunk)

    def close(self) -> None:
        self.closed = True


class CountingWorker(JobWorker[CountingRun]):
    """Does a chunk of every job at a time, and goes on where it was."""

    def __init__(self) -> None:
        self.memory = MemoryQueue()
        self.manual = ManualClock()
        super().__init__(self.memory, self.manual)
        self.done: dict[str, int] = {}
        self.opened: list[str] = []
        self.trouble: dict[str, Trouble] = {}
        self.trouble_opening: dict[str, list[Exception]] = {}

    def open(self, job: Job) -> CountingRun:
        self.opened.append(job.id)
        if errors := self.trouble_opening.get(job.id):
            raise errors.pop(0)
        return CountingRun(job, self.done.get(job.id, 0))

    def is_over(self, status: JobStatus) -> bool:
        return status.finished

    def fail(self, job_id: str, reason: str) -> None:
        self.queue.last(job_id, "events")  # a deleted job has none
        self.queue.finish_job(job_id, {"state": "failed", "error": reason})

    def work(self) -> bool:
        for job_id in list(self.runs):
            with self.isolated(job_id):
                run = self.runs[job_id]
                trouble = self.trouble.get(job_id)
                if trouble and (error := trouble(run.chunk + 1)):
                    raise error
                run.chunk += 1
                self.done[job_id] = run.chunk
        return bool(self.runs)


GOOD, BAD = a_job(id="good"), a_job(id="bad")


@pytest.fixture
def worker() -> CountingWorker:
    """Two jobs, two chunks of which are done."""
    worker = CountingWorker()
    for job in (GOOD, BAD):
        worker.queue.create_job(job.id, job.record())
    worker.take(placed(GOOD, BAD))
    worker.work()
    worker.work()
    return worker


def again(worker: CountingWorker, after_s: float = RETRY_S) -> None:
    """A moment later it looks after its jobs and works."""
    worker.manual.advance(after_s)
    worker.take(placed(GOOD, BAD))
    worker.work()


def status(worker: CountingWorker, job: str = "bad") -> JobStatus:
    return read_status(worker.queue.job(job) or {})


def at(chunk: int, error: Exception) -> Trouble:
    return lambda now: error if now == chunk else None


# Taking jobs


def test_jobs_are_taken_once_and_let_go(worker: CountingWorker) -> None:
    run = worker.runs["bad"]
    worker.take(placed(GOOD, BAD))
    assert worker.opened == ["good", "bad"]
    assert worker.runs["bad"] is run
    # When one is another worker's, then it is let go
    worker.take(placed(GOOD))
    assert run.closed
    assert worker.progress == {"good": Progress(chunk=2, t1=4.0)}
    # When it is back, then it is opened anew
    worker.take(placed(GOOD, BAD))
    assert worker.opened == ["good", "bad", "bad"]
    assert worker.progress["bad"] == Progress(chunk=2, t1=4.0)


@pytest.mark.parametrize("state", ["ended", "failed", "deleted"])
def test_a_job_that_is_over_is_not_opened(state: str) -> None:
    worker = CountingWorker()
    worker.queue.create_job("good", GOOD.record())
    if state != "deleted":
        worker.queue.create_job("bad", BAD.record() | {"state": state})
    for _ in range(3):
        worker.take(placed(GOOD, BAD))
    assert worker.opened == ["good"]


def test_a_job_that_is_over_may_come_back_later(worker: CountingWorker) -> None:
    worker.over("bad")
    worker.take(placed(GOOD, BAD))
    assert worker.runs.keys() == {"good"}
    worker.take(placed(GOOD))
    worker.take(placed(GOOD, BAD))
    assert worker.runs.keys() == {"good", "bad"}


# Trouble


@pytest.mark.parametrize("error", [SourceError, WireError, ConfigError, ModelError])
def test_what_is_at_fault_ends_its_job_with_a_sentence(
    worker: CountingWorker, error: type[Exception]
) -> None:
    # Given a job whose third chunk cannot be had
    run = worker.runs["bad"]
    worker.trouble["bad"] = at(3, error("clip.mp4: it broke"))
    # When the worker works on
    for _ in range(3):
        again(worker)
    # Then the job failed, once, and is let go
    assert (status(worker).state, status(worker).error) == ("failed", "clip.mp4: it broke")
    assert run.closed
    assert worker.runs.keys() == {"good"}
    assert worker.opened == ["good", "bad"]
    # And the other one did not notice
    assert worker.done["good"] == 5
    assert status(worker, "good").state == "queued"


def test_a_job_that_cannot_be_opened_fails_alone() -> None:
    worker = CountingWorker()
    for job in (BAD, GOOD):
        worker.queue.create_job(job.id, job.record())
    worker.trouble_opening["bad"] = [SourceError("no such file")]
    worker.take(placed(BAD, GOOD))
    assert worker.runs.keys() == {"good"}
    assert status(worker).error == "no such file"


def test_a_malformed_record_fails_its_job_alone() -> None:
    worker = CountingWorker()
    worker.queue.create_job("bad", BAD.record() | {"spec": "{"})
    worker.queue.create_job("good", GOOD.record())
    worker.take(placed(BAD, GOOD))
    assert worker.runs.keys() == {"good"}
    assert (status(worker).error or "").startswith("the record of job bad is malformed: ")


def test_what_nobody_foresaw_is_tried_again_and_given_up(worker: CountingWorker) -> None:
    # Given a job at whose third chunk something happens that nobody thought of
    worker.trouble["bad"] = at(3, ZeroDivisionError("division by\n zero"))
    # When it happens for the first and the second time
    for attempt in (1, 2):
        again(worker)
        # Then it is not tried again at once
        assert worker.runs.keys() == {"good"}
        again(worker, RETRY_S / 4)
        assert len(worker.opened) == 1 + attempt
        assert status(worker).state == "queued"
    # When it happens once more, then the job fails with a sentence
    again(worker)
    assert ATTEMPTS == 3
    assert len(worker.opened) == 2 + 2
    assert status(worker).error == "an internal error at chunk 3: division by zero"
    assert status(worker).state == "failed"
    # And is left alone from then on, unlike the other
    again(worker)
    assert len(worker.opened) == 2 + 2
    assert worker.done["good"] == 2 + 6


def test_an_error_without_words_is_named(worker: CountingWorker) -> None:
    worker.trouble["bad"] = at(3, NotImplementedError())
    for _ in range(ATTEMPTS):
        again(worker)
    assert status(worker).error == "an internal error at chunk 3: NotImplementedError()"


def test_a_long_error_is_cut(worker: CountingWorker) -> None:
    worker.trouble["bad"] = at(3, ValueError("x" * 400))
    for _ in range(ATTEMPTS):
        again(worker)
    assert len(status(worker).error or "") < 300


def test_a_job_that_comes_further_has_all_its_attempts_again(worker: CountingWorker) -> None:
    # Given a job that fails twice at each chunk
    times: dict[int, int] = {}

    def twice(chunk: int) -> Exception | None:
        times[chunk] = times.get(chunk, 0) + 1
        return ZeroDivisionError() if times[chunk] < ATTEMPTS else None

    worker.trouble["bad"] = twice
    # Then it comes through all of them
    for _ in range(4 * ATTEMPTS):
        again(worker)
    assert worker.done["bad"] == 2 + 4
    assert status(worker).state == "queued"


def test_attempts_to_open_count_too(worker: CountingWorker) -> None:
    # Given a job that fails at a chunk, and then every other time when it is opened
    worker.trouble["bad"] = at(3, ZeroDivisionError("at the chunk"))
    worker.trouble_opening["bad"] = [KeyError("at the opening")]
    for _ in range(2 * ATTEMPTS):
        again(worker)
    # Then that is one trouble, not two
    assert status(worker).error == "an internal error at chunk 3: at the chunk"
    assert worker.opened.count("bad") == ATTEMPTS


def test_a_deleted_job_is_let_go(worker: CountingWorker) -> None:
    run = worker.runs["bad"]
    worker.trouble["bad"] = at(3, StreamGone("job bad: deleted"))
    for _ in range(3):
        again(worker)
    assert run.closed
    assert worker.opened == ["good", "bad"]
    assert worker.done["good"] == 5


def test_a_job_deleted_while_it_fails_is_let_go(worker: CountingWorker) -> None:
    worker.trouble["bad"] = at(3, SourceError("no such file"))
    worker.queue.delete_job("bad")
    again(worker)
    assert worker.runs.keys() == {"good"}
    assert worker.queue.jobs() == ["good"]
    again(worker)
    assert worker.done["good"] == 4


def test_a_replaced_writer_starts_anew_a_moment_later(worker: CountingWorker) -> None:
    # Given a rival who is ahead every time
    worker.trouble["bad"] = at(3, WriterReplaced("job bad: entry 3 was refused"))
    for turn in range(2 * ATTEMPTS):
        again(worker)
        assert worker.runs.keys() == {"good"}
        again(worker, RETRY_S / 4)
        assert len(worker.opened) == 2 + turn
    # Then that is never the job's fault
    assert status(worker).state == "queued"
    # When the rival is gone, then it goes on
    del worker.trouble["bad"]
    again(worker)
    assert worker.done["bad"] == 3


def test_a_lost_queue_is_everybodys_affair(worker: CountingWorker) -> None:
    # Given a queue that cannot be reached
    run = worker.runs["bad"]
    worker.trouble["bad"] = at(3, QueueError("Redis could not be reached"))
    # Then the caller is told, and what the job was doing is forgotten
    with pytest.raises(QueueError, match="could not be reached"):
        again(worker)
    assert run.closed
    assert worker.runs.keys() == {"good"}
    # When it is there again, then the job goes on, at once
    del worker.trouble["bad"]
    worker.take(placed(GOOD, BAD))
    assert worker.runs.keys() == {"good", "bad"}
    worker.work()
    assert worker.done["bad"] == 3
    assert status(worker).state == "queued"


def test_a_queue_lost_while_a_job_fails_lets_it_fail_later(worker: CountingWorker) -> None:
    class Lost(MemoryQueue):
        def finish_job(self, job_id: str, fields: object) -> bool:
            raise QueueError("Redis could not be reached")

    whole, lost = worker.queue, Lost()
    lost.create_job("bad", BAD.record())
    lost.create_job("good", GOOD.record())
    worker.trouble["bad"] = at(3, SourceError("no such file"))
    worker.queue = lost
    with pytest.raises(QueueError):
        again(worker)
    worker.queue = whole
    again(worker)
    assert status(worker).error == "no such file"
