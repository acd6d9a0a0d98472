"""The janitor: what stays in Redis, what goes, and that nothing goes before the archive has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from streamer.actors import janitor as janitor_module
from streamer.actors.janitor import BLOCK, Janitor, Tidied, janitor_for
from streamer.adapters.clock import ManualClock
from streamer.adapters.memory_queue import MemoryQueue
from streamer.adapters.memory_roster import MemoryRoster
from streamer.adapters.queue import Entry, Outline, Queue, Stream
from streamer.archive import Archive, archived_as
from streamer.config import RetentionSettings
from streamer.core.retention import Stretch
from streamer.errors import ArchiveError, QueueError
from tests.unit.streamer.long_stream import RECORD, write_caption, write_chunk

JOB = "cam"
NAME = archived_as(JOB, float(RECORD["created_at"]))
GROUP = 5
"""Chunks of a group, of 2 s each."""


def kept(queue: Queue, stream: Stream, job: str = JOB) -> list[int]:
    found: list[int] = []
    while page := queue.read(job, stream, after=found[-1] if found else 0, count=1000):
        found += [entry.number for entry in page]
    return found


def settings(**given: Any) -> RetentionSettings:
    return RetentionSettings(**given)


def run_on(queue: Queue, upto: int, *, captioned: int | None = None, size: int = 100) -> None:
    """The job's workers come so far."""
    if queue.job(JOB) is None:
        queue.create_job(JOB, RECORD)
    for number in range(queue.last(JOB, "tokens") + 1, upto + 1):
        write_chunk(queue, JOB, number, starts=number % GROUP == 1, size=size)
    said = upto if captioned is None else captioned
    for number in range(queue.last(JOB, "events") + 1, said + 1):
        write_caption(queue, JOB, number)


def end(queue: Queue, clock: ManualClock, state: str = "ended") -> None:
    queue.finish_job(JOB, {"state": state, "ended_at": f"{clock.now():.3f}"})


class FragileArchive:
    """An archive that can be out of reach."""

    def __init__(self, archive: Archive, error: Exception | None = None) -> None:
        self.archive = archive
        self.error = error or ArchiveError("it is not there")
        self.reachable = True
        self.tries = 0

    def write_group(self, job: str, group: Stretch, entries: Iterator[Entry]) -> int:
        self.tries += 1
        if not self.reachable:
            raise self.error
        return self.archive.write_group(job, group, entries)

    def write_events(self, job: str, block: Stretch, entries: Iterator[Entry]) -> int:
        self.tries += 1
        if not self.reachable:
            raise self.error
        return self.archive.write_events(job, block, entries)


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(str(tmp_path))


# While a job runs


def test_groups_that_are_old_go(queue: MemoryQueue, clock: ManualClock) -> None:
    janitor = Janitor(settings(tokens_s=20), queue, clock)
    # Given 10 groups of 10 s, then the two that end 20 s before the newest, or later, stay
    run_on(queue, 50)
    janitor.step()
    assert kept(queue, "tokens") == list(range(36, 51))
    assert kept(queue, "events") == list(range(1, 51))
    # When one more chunk comes, then one more group goes
    run_on(queue, 51)
    janitor.step()
    assert kept(queue, "tokens") == list(range(41, 52))
    assert janitor.done == Tidied(trimmed=40)
    # and nothing more while nothing comes
    janitor.step()
    assert janitor.done == Tidied(trimmed=40)


def test_groups_beyond_the_bytes_go(queue: MemoryQueue, clock: ManualClock) -> None:
    janitor = Janitor(settings(tokens_s=1e6, tokens_bytes=1 << 20), queue, clock)
    run_on(queue, 50, size=60_000)
    janitor.step()
    # 17 entries of 60 kB would fit, 3 whole groups do
    assert kept(queue, "tokens") == list(range(36, 51))


def test_the_group_that_the_captioner_would_be_rebuilt_from_stays(
    queue: MemoryQueue, clock: ManualClock
) -> None:
    janitor = Janitor(settings(tokens_s=0, tokens_bytes=1 << 20), queue, clock)
    for captioned, first in {0: 1, 3: 1, 5: 1, 6: 6, 24: 21, 50: 46}.items():
        run_on(queue, 50, captioned=captioned, size=60_000)
        janitor.step()
        assert (captioned, kept(queue, "tokens")) == (captioned, list(range(first, 51)))


def test_a_new_janitor_goes_on_where_the_last_one_was(
    queue: MemoryQueue, clock: ManualClock
) -> None:
    run_on(queue, 33)
    Janitor(settings(tokens_s=20), queue, clock).step()
    run_on(queue, 51)
    Janitor(settings(tokens_s=20), queue, clock).step()
    assert kept(queue, "tokens") == list(range(41, 52))


def test_broken_chunks_go_with_their_group(queue: MemoryQueue, clock: ManualClock) -> None:
    run_on(queue, 7)
    queue.append(JOB, "tokens", 8, {"head": b"{"})
    queue.append(JOB, "tokens", 9, {"body": b"!"})
    queue.create_job("other", RECORD)
    write_chunk(queue, "other", 10, starts=True)
    queue.append(JOB, "tokens", 10, queue.read("other", "tokens", after=0)[0].fields)
    for number in (8, 9, 10):
        queue.append(JOB, "events", number, {"events": b"said"})
    run_on(queue, 22)
    Janitor(settings(tokens_s=10), queue, clock).step()
    assert kept(queue, "tokens") == list(range(16, 23))


def test_old_events_go_in_blocks_and_the_last_entry_stays(
    queue: MemoryQueue, clock: ManualClock
) -> None:
    janitor = Janitor(settings(events_s=60), queue, clock)
    run_on(queue, 2 * BLOCK + 30)
    janitor.step()  # the second block ends 60 s before the newest
    assert kept(queue, "events") == list(range(BLOCK + 1, 2 * BLOCK + 31))
    run_on(queue, 2 * BLOCK + 31)
    janitor.step()
    assert kept(queue, "events") == list(range(2 * BLOCK + 1, 2 * BLOCK + 32))


def test_the_entry_that_totals_are_read_from_stays(queue: MemoryQueue, clock: ManualClock) -> None:
    janitor = Janitor(settings(events_s=60, events_bytes=1 << 20), queue, clock)
    queue.create_job(JOB, RECORD)
    for number in (1, 200, 400):
        queue.append(JOB, "events", number, {"events": bytes(2 << 20)})
    janitor.step()
    assert kept(queue, "events") == [400]


class CountingQueue(MemoryQueue):
    """Counts what is read of it."""

    def __init__(self) -> None:
        super().__init__()
        self.outlined = self.read_whole = 0

    def outlines(
        self, job_id: str, stream: Stream, field: str, *, after: int, count: int = 64
    ) -> list[Outline]:
        self.outlined += 1
        read = self.read_whole
        found = super().outlines(job_id, stream, field, after=after, count=count)
        self.read_whole = read
        return found

    def read(
        self, job_id: str, stream: Stream, *, after: int, count: int = 100, block_s: float = 0.0
    ) -> list[Entry]:
        self.read_whole += 1
        return super().read(job_id, stream, after=after, count=count, block_s=block_s)


def test_every_entry_is_looked_at_once_however_long_the_stream(clock: ManualClock) -> None:
    queue = CountingQueue()
    janitor = Janitor(settings(tokens_s=100), queue, clock)
    janitor.step()
    for upto in range(10, 510, 10):
        run_on(queue, upto)
        queue.outlined = queue.read_whole = 0
        janitor.step()
        # of each stream once what is new, and once that there is no more
        assert queue.outlined == 4
        assert queue.read_whole == 0


def test_ten_thousand_chunks_stay_within_the_bounds(clock: ManualClock) -> None:
    queue = MemoryQueue()
    janitor = Janitor(
        settings(tokens_s=1e6, tokens_bytes=1 << 20, events_s=3600, events_bytes=1 << 20),
        queue,
        clock,
    )
    most = {"tokens": 0, "events": 0}
    for upto in range(20, 10_001, 20):
        run_on(queue, upto, size=10_000)
        janitor.step()
        for stream, size in sizes(queue).items() if upto % 200 == 0 else ():
            most[stream] = max(most[stream], size)
    assert most["tokens"] <= 1 << 20
    assert most["events"] <= 1 << 20
    assert len(kept(queue, "tokens")) >= 90
    assert janitor.kept[JOB].tokens.size == sizes(queue)["tokens"]
    assert len(janitor.kept[JOB].events.stretches) < 30


def sizes(queue: MemoryQueue) -> dict[str, int]:
    return {
        stream: sum(
            len(name) + len(value)
            for entry in queue.read(JOB, stream, after=0, count=10_000)
            for name, value in entry.fields.items()
        )
        for stream in ("tokens", "events")
    }


# When it has ended


def test_an_ended_job_keeps_its_tokens_for_a_while_then_its_events(
    queue: MemoryQueue, clock: ManualClock
) -> None:
    janitor = Janitor(settings(tokens_s=60, events_s=3600), queue, clock)
    run_on(queue, 12)
    end(queue, clock)
    clock.advance(60)
    janitor.step()
    assert kept(queue, "tokens") == list(range(1, 13))
    clock.advance(0.1)
    janitor.step()
    assert kept(queue, "tokens") == []
    assert queue.last(JOB, "tokens") == 12
    clock.advance(3600 - 60.1)
    janitor.step()
    assert kept(queue, "events") == list(range(1, 13))
    clock.advance(0.1)
    janitor.step()
    assert queue.jobs() == []
    assert janitor.done == Tidied(trimmed=24, deleted=1)


def test_a_job_that_ended_beyond_its_bounds_is_brought_within(
    queue: MemoryQueue, clock: ManualClock
) -> None:
    janitor = Janitor(settings(tokens_s=20), queue, clock)
    run_on(queue, 50)
    end(queue, clock, "failed")
    janitor.step()
    assert kept(queue, "tokens") == list(range(36, 51))


def test_a_job_at_rest_costs_nothing(clock: ManualClock) -> None:
    queue = CountingQueue()
    janitor = Janitor(settings(), queue, clock)
    run_on(queue, 50)
    end(queue, clock)
    janitor.step()
    queue.outlined = 0
    janitor.step()
    assert queue.outlined == 0


@pytest.mark.parametrize("ended", [True, False])
def test_a_job_goes_when_its_record_says_so(
    queue: MemoryQueue, clock: ManualClock, archive: Archive, ended: bool
) -> None:
    janitor = Janitor(settings(tokens_s=5), queue, clock, archive)
    run_on(queue, 30)
    queue.update_job(JOB, {"delete_at": f"{clock.now() + 30:.3f}"})
    if ended:
        end(queue, clock)
    clock.advance(29)
    janitor.step()
    assert queue.jobs() == [JOB]
    clock.advance(1)
    janitor.step()
    assert queue.jobs() == []
    assert queue.active() == {}
    # and nothing of it is in the archive
    assert list(archive.groups(NAME, 0, 99)) == []
    assert list(archive.events(NAME)) == []


def test_a_record_that_cannot_be_read_stops_nobody(queue: MemoryQueue, clock: ManualClock) -> None:
    queue.create_job("a", RECORD | {"delete_at": "soon"})
    queue.create_job("b", RECORD | {"state": "ended", "ended_at": "long ago"})
    queue.create_job("c", RECORD | {"created_at": "today"})
    run_on(queue, 50)
    janitor = Janitor(settings(tokens_s=20), queue, clock)
    janitor.step()
    assert kept(queue, "tokens") == list(range(36, 51))
    assert queue.jobs() == ["a", "b", "c", JOB]


def test_a_job_that_nobody_thought_of_stops_nobody(clock: ManualClock) -> None:
    class Broken(MemoryQueue):
        def outlines(
            self, job_id: str, stream: Stream, field: str, *, after: int, count: int = 64
        ) -> list[Outline]:
            if job_id == "a":
                raise ZeroDivisionError
            return super().outlines(job_id, stream, field, after=after, count=count)

    queue = Broken()
    queue.create_job("a", RECORD)
    run_on(queue, 50)
    Janitor(settings(tokens_s=20), queue, clock).step()
    assert kept(queue, "tokens") == list(range(36, 51))


def test_a_lost_queue_is_told_until_the_end_comes(
    queue: MemoryQueue, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a janitor that lives, and a queue that is lost once
    monkeypatch.setattr(janitor_module, "STEP_S", 0.001)
    ended, lost, run_again = Event(), [True], Event()

    class Flaky(MemoryQueue):
        def jobs(self) -> list[str]:
            if lost:
                lost.clear()
                raise QueueError("Redis is lost")
            run_again.set()
            return super().jobs()

    janitor = Janitor(settings(), Flaky(), clock)
    life = Thread(target=janitor.run, args=(ended,))
    life.start()
    # Then it goes on, and ends when it is told to
    assert run_again.wait(10)
    ended.set()
    life.join(10)
    assert not life.is_alive()


def test_a_job_deleted_meanwhile_stops_nobody(clock: ManualClock) -> None:
    class Deleting(MemoryQueue):
        def last(self, job_id: str, stream: Stream) -> int:
            if job_id == "a":
                self.delete_job("a")
            return super().last(job_id, stream)

    queue = Deleting()
    queue.create_job("a", RECORD)
    run_on(queue, 50)
    janitor = Janitor(settings(tokens_s=20), queue, clock)
    janitor.step()
    assert kept(queue, "tokens") == list(range(36, 51))
    janitor.step()
    assert janitor.kept.keys() == {JOB}


def test_another_job_of_the_same_id_is_another_job(queue: MemoryQueue, clock: ManualClock) -> None:
    janitor = Janitor(settings(tokens_s=20), queue, clock)
    run_on(queue, 50)
    janitor.step()
    queue.delete_job(JOB)
    queue.create_job(JOB, RECORD | {"created_at": "1700000100.000"})
    run_on(queue, 25)
    janitor.step()
    assert kept(queue, "tokens") == list(range(11, 26))


# The archive


def test_what_leaves_is_in_the_archive_and_nothing_else(
    queue: MemoryQueue, clock: ManualClock, archive: Archive
) -> None:
    janitor = Janitor(settings(tokens_s=20, events_s=60), queue, clock, archive)
    run_on(queue, BLOCK + 40)
    written = {
        entry.number: entry.fields for entry in queue.read(JOB, "tokens", after=0, count=999)
    }
    events = {entry.number: entry.fields for entry in queue.read(JOB, "events", after=0, count=999)}
    janitor.step()
    archived = {entry.number: entry.fields for entry in archive.groups(NAME, 0, 1e6)}
    left = kept(queue, "tokens")
    assert list(archived) + left == list(written)
    assert all(written[number] == fields for number, fields in archived.items())
    said = {entry.number: entry.fields for entry in archive.events(NAME)}
    assert said == {number: events[number] for number in range(1, BLOCK + 1)}
    assert list(said) + kept(queue, "events") == list(events)
    assert janitor.done.archived == janitor.done.trimmed == len(archived) + len(said)
    assert janitor.done.archived_bytes > 0


def test_a_block_that_is_only_half_looked_at_stays(
    queue: MemoryQueue, clock: ManualClock, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given events beyond their bytes, and a janitor that is new to them and looks at few at a time
    monkeypatch.setattr(janitor_module, "PAGES", 1)
    queue.create_job(JOB, RECORD)
    for number in range(1, 2 * BLOCK + 10):
        queue.append(JOB, "events", number, {"events": bytes(30_000)})
    janitor = Janitor(settings(events_bytes=1 << 20), queue, clock, archive)
    # Then only whole blocks leave
    left = []
    for _ in range(5):
        janitor.step()
        left.append(kept(queue, "events")[0])
    assert left == [1, 1, BLOCK + 1, BLOCK + 1, 2 * BLOCK + 1]


def test_an_ended_job_is_in_the_archive_whole(
    queue: MemoryQueue, clock: ManualClock, archive: Archive
) -> None:
    janitor = Janitor(settings(tokens_s=20, events_s=60), queue, clock, archive)
    run_on(queue, BLOCK + 42)
    end(queue, clock)
    clock.advance(61)
    janitor.step()
    assert queue.jobs() == []
    everything = list(range(1, BLOCK + 43))
    assert [entry.number for entry in archive.groups(NAME, 0, 1e6)] == everything
    assert [entry.number for entry in archive.events(NAME)] == everything


def test_a_crash_between_write_and_trim_does_no_harm(
    queue: MemoryQueue, clock: ManualClock, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a janitor that dies when the first group is in the archive
    run_on(queue, 50)
    with monkeypatch.context() as patch:

        def die(job_id: str, stream: Stream, *, before: int) -> int:
            raise QueueError("Redis is lost")

        patch.setattr(queue, "trim", die)
        with pytest.raises(QueueError):
            Janitor(settings(tokens_s=20), queue, clock, archive).step()
    assert kept(queue, "tokens") == list(range(1, 51))
    assert [entry.number for entry in archive.groups(NAME, 0, 1e6)] == list(range(1, 6))
    # When another one comes, later, then everything is in the archive once
    run_on(queue, 61)
    Janitor(settings(tokens_s=20), queue, clock, archive).step()
    assert [entry.number for entry in archive.groups(NAME, 0, 1e6)] == list(range(1, 51))
    assert kept(queue, "tokens") == list(range(51, 62))


def test_two_janitors_do_no_harm(queue: MemoryQueue, clock: ManualClock, archive: Archive) -> None:
    one, other = (
        Janitor(settings(tokens_s=20, events_s=60), queue, clock, archive) for _ in range(2)
    )
    for upto in range(7, 4 * BLOCK, 9):
        run_on(queue, upto)
        one.step()
        other.step()
        one, other = other, one
    written = list(range(1, upto + 1))
    assert [e.number for e in archive.groups(NAME, 0, 1e6)] + kept(queue, "tokens") == written
    assert [e.number for e in archive.events(NAME)] + kept(queue, "events") == written
    assert one.done.trimmed + other.done.trimmed == one.done.archived + other.done.archived


def test_a_janitor_that_was_passed_writes_no_half_of_a_file(
    queue: MemoryQueue, clock: ManualClock, tmp_path: Path
) -> None:
    # Given two janitors that both know of the groups, one of which is overtaken while it reads
    class Overtaking(Archive):
        def write_group(self, job: str, group: Stretch, entries: Any) -> int:
            def slow() -> Iterator[Entry]:
                for entry in entries:
                    yield entry
                    if entry.number == group.first:
                        first.step()

            return super().write_group(job, group, slow())

    limits, archive = settings(tokens_s=20), Archive(str(tmp_path))
    first = Janitor(limits, queue, clock, archive)
    second = Janitor(limits, queue, clock, Overtaking(str(tmp_path)))
    run_on(queue, 50)
    # When it reads on, then it finds them taken away, and leaves the files alone
    second.step()
    assert [entry.number for entry in archive.groups(NAME, 0, 1e6)] == list(range(1, 36))
    assert kept(queue, "tokens") == list(range(36, 51))
    assert second.done.archived == 0
    assert second.kept[JOB].tokens.size == first.kept[JOB].tokens.size


def test_an_archive_out_of_reach_is_waited_for(
    queue: MemoryQueue, clock: ManualClock, archive: Archive
) -> None:
    fragile = FragileArchive(archive)
    janitor = Janitor(settings(tokens_s=20), queue, clock, fragile)
    fragile.reachable = False
    run_on(queue, 50)
    for _ in range(60):  # five minutes
        janitor.step()
        clock.advance(5)
    # then nothing is lost, and it was not asked at every step
    assert kept(queue, "tokens") == list(range(1, 51))
    assert fragile.tries == janitor.done.archive_failures == 10
    # When it is back, then all goes there
    fragile.reachable = True
    clock.advance(60)
    janitor.step()
    assert [entry.number for entry in archive.groups(NAME, 0, 1e6)] == list(range(1, 36))
    assert janitor.done.lost == 0


@pytest.mark.parametrize(
    "error", [ArchiveError("it is not there"), OSError(28, "No space left on device")]
)
def test_what_the_archive_does_not_take_is_dropped_at_the_bound(
    queue: MemoryQueue, clock: ManualClock, archive: Archive, error: Exception
) -> None:
    fragile = FragileArchive(archive, error)
    limits = settings(tokens_s=1e6, tokens_bytes=1 << 20)
    janitor = Janitor(limits, queue, clock, fragile)
    # Given an archive in reach, then a group leaves at three quarters of the bound
    run_on(queue, 20, size=50_000)
    janitor.step()
    assert kept(queue, "tokens") == list(range(6, 21))
    # When it is out of reach, then groups stay up to the bound
    fragile.reachable = False
    run_on(queue, 25, size=50_000)
    janitor.step()
    assert kept(queue, "tokens") == list(range(6, 26))
    assert janitor.done.lost == 0
    # and beyond it the oldest are lost, and counted
    run_on(queue, 33, size=50_000)
    janitor.step()
    assert kept(queue, "tokens") == list(range(16, 34))
    assert janitor.done.lost == 10
    assert sizes(queue)["tokens"] <= limits.tokens_bytes


def test_a_file_that_hangs_holds_up_nobody(
    queue: MemoryQueue, clock: ManualClock, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an archive that does not come back
    monkeypatch.setattr(janitor_module, "WRITE_S", 0.05)
    gate = Event()
    tries: list[int] = []

    class Hanging(FragileArchive):
        def write_group(self, job: str, group: Stretch, entries: Iterator[Entry]) -> int:
            tries.append(group.first)
            assert gate.wait(10)
            return super().write_group(job, group, entries)

    janitor = Janitor(settings(tokens_s=1e6, tokens_bytes=1 << 20), queue, clock, Hanging(archive))
    run_on(queue, 20, size=50_000)
    janitor.step()
    assert kept(queue, "tokens") == list(range(1, 21))
    assert janitor.done.archive_failures == 1
    # Then no other file is begun, and the bound holds
    clock.advance(60)
    run_on(queue, 33, size=50_000)
    janitor.step()
    assert kept(queue, "tokens") == list(range(16, 34))
    assert (janitor.done.lost, janitor.done.archive_failures) == (15, 2)
    assert tries == [1]
    # When it comes back, then what is there goes into it again
    gate.set()
    monkeypatch.undo()
    assert janitor.writing._last is not None
    janitor.writing._last.exception(10)  # half of a file, which nobody sees
    clock.advance(60)
    janitor.step()
    assert [entry.number for entry in archive.groups(NAME, 0, 1e6)] == list(range(16, 21))
    assert kept(queue, "tokens") == list(range(21, 34))


def test_a_job_made_anew_has_an_archive_of_its_own(
    queue: MemoryQueue, clock: ManualClock, archive: Archive
) -> None:
    janitor = Janitor(settings(tokens_s=20), queue, clock, archive)
    run_on(queue, 50)
    janitor.step()
    # When the job is deleted, and another one is made under its id
    queue.delete_job(JOB)
    queue.create_job(JOB, RECORD | {"created_at": "1700000100.000"})
    run_on(queue, 25)
    janitor.step()
    # Then nothing of the first one is found in its archive
    other = archived_as(JOB, 1_700_000_100.0)
    assert [entry.number for entry in archive.groups(other, 0, 1e6)] == list(range(1, 11))
    assert [entry.number for entry in archive.groups(NAME, 0, 1e6)] == list(range(1, 36))


def test_an_ended_job_waits_for_the_archive_twice_as_long_as_events_are_kept(
    queue: MemoryQueue, clock: ManualClock, archive: Archive
) -> None:
    fragile = FragileArchive(archive)
    fragile.reachable = False
    janitor = Janitor(settings(tokens_s=20, events_s=3600), queue, clock, fragile)
    run_on(queue, 12)
    end(queue, clock)
    for waited_s in (3601, 3599):
        clock.advance(waited_s)
        janitor.step()
        assert kept(queue, "tokens") == kept(queue, "events") == list(range(1, 13))
    clock.advance(1)
    janitor.step()
    assert queue.jobs() == []
    assert janitor.done.lost == 24


# What it tells


def test_the_roster_learns_what_was_done(
    queue: MemoryQueue, clock: ManualClock, tmp_path: Path
) -> None:
    roster = MemoryRoster()
    janitor = janitor_for(settings(tokens_s=20, archive=str(tmp_path)), queue, roster, clock)
    janitor.step()
    assert roster.published("retention") is None
    run_on(queue, 50)
    janitor.step()
    assert roster.published("retention") == janitor.done.to_json()
    assert janitor.done.archived == 35
