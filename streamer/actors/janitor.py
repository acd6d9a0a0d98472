"""The janitor: takes out of Redis what was kept long enough, into the archive if there is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from threading import Event, Thread
from typing import Protocol, get_args

import structlog

from streamer.adapters.clock import Clock
from streamer.adapters.queue import Entry, Outline, Queue, Stream
from streamer.adapters.roster import Roster
from streamer.archive import Archive, archived_as
from streamer.config import RetentionSettings
from streamer.core.retention import Bounds, Shelf, Stretch
from streamer.errors import ArchiveError, QueueError, StreamGone, WireError
from streamer.events import decode_totals
from streamer.groups import head_of
from streamer.jobs import read_status

STEP_S = 5.0
STREAMS: tuple[Stream, ...] = get_args(Stream)
BLOCK = 128
"""Chunks whose events leave together."""
PAGES = 16
"""Most looks at a stream in one step, so that one that is new to the janitor holds up no other."""
READ = 4
"""Entries on their way into the archive at a time."""
ARCHIVE_SHARE = 0.75
"""Of a bound in bytes, from which on an archive is given what is beyond. The rest is time for it:
only at the bound itself is dropped what it does not take."""
LATE = 2.0
"""So many times events_s after its end a job goes, whether or not the archive takes it."""
FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 60.0
"""Before an archive that failed is tried again."""
WRITE_S = 60.0
"""Most time for a file of the archive: one that hangs must not hold up the janitor."""

log = structlog.get_logger(__name__)


class Keeps(Protocol):
    """Takes what leaves, as streamer.archive.Archive does. May raise ArchiveError and OSError.

    A job has the name that archived_as gives it. Called from a thread of its own.
    """

    def write_group(self, job: str, group: Stretch, entries: Iterator[Entry], /) -> int: ...

    def write_events(self, job: str, block: Stretch, entries: Iterator[Entry], /) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tidied:
    """What a janitor has done since it was made."""

    trimmed: int = 0
    """Entries that left Redis."""
    archived: int = 0
    """Of these, entries that are in the archive."""
    archived_bytes: int = 0
    archive_failures: int = 0
    """Files that could not be written when they were to be; each is tried again."""
    lost: int = 0
    """Entries that were dropped because the archive did not take them in time."""
    deleted: int = 0
    """Jobs whose time was up."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class _TakenAway(Exception):
    """Another janitor was first."""


class _Writing:
    """Files on their way into the archive, one at a time, each waited for at most WRITE_S.

    One that takes longer is left to itself; until it ends no other is begun.
    """

    def __init__(self) -> None:
        self._last: Future[int] | None = None

    def __call__(self, write: Callable[[], int]) -> int:
        """What `write` returns or raises; ArchiveError where that takes too long."""
        if self._last is not None and not self._last.done():
            raise ArchiveError("an earlier file is still being written")
        future: Future[int] = Future()

        def run() -> None:
            try:
                future.set_result(write())
            except BaseException as exc:  # noqa: BLE001  # raised again by who waits
                future.set_exception(exc)

        # no executor: its thread would be waited for when the process ends
        Thread(target=run, name="archive", daemon=True).start()
        self._last = future
        wait([future], timeout=WRITE_S)
        if not future.done():
            raise ArchiveError(f"a file was not written within {WRITE_S:g} s")
        return future.result()


@dataclass(slots=True)
class _Kept:
    """What is known of a job."""

    created_at: str
    archive: str = ""
    """Its name in the archive."""
    tokens: Shelf = field(default_factory=Shelf)
    events: Shelf = field(default_factory=Shelf)
    settled: bool = False
    """It has ended, and nothing leaves before its time is up."""
    emptied: bool = False
    """It has ended, and has no tokens any more."""
    passing: bool = False
    """It is to be deleted at a given time; nothing of it goes into the archive."""
    malformed: bool = False

    def shelf(self, stream: Stream) -> Shelf:
        return self.tokens if stream == "tokens" else self.events


class Janitor:
    """One step after another. What it knows it reads again when it is started anew.

    Two at a time do no harm: they take the same entries away, after writing the same files.
    """

    def __init__(
        self,
        retention: RetentionSettings,
        queue: Queue,
        clock: Clock,
        archive: Keeps | None = None,
        *,
        report: Callable[[Tidied], None] = lambda done: None,
    ) -> None:
        """report: is told what was done, when that was something."""
        self.retention = retention
        self.queue = queue
        self.clock = clock
        self.archive = archive
        self.report = report
        self.writing = _Writing()
        self.done = self.reported = Tidied()
        self.kept: dict[str, _Kept] = {}
        self.delay_s = 0.0
        self.retry_at = 0.0

    def run(self, ended: Event) -> None:
        """Steps until that is set; the life of a thread."""
        while not ended.wait(STEP_S):
            try:
                self.step()
            except QueueError as exc:
                if not ended.is_set():
                    log.warning("queue_lost", worker="janitor", reason=str(exc))

    def step(self) -> None:
        """Looks after every job once."""
        records = self.queue.records(self.queue.jobs())
        self.kept = {job: kept for job, kept in self.kept.items() if job in records}
        for job_id, record in records.items():
            kept = self.kept.get(job_id)
            if kept is None or kept.created_at != record.get("created_at", ""):
                kept = self.kept[job_id] = _Kept(record.get("created_at", ""))
            try:
                self._look_after(job_id, record, kept)
            except StreamGone:  # deleted meanwhile
                continue
            except QueueError:
                raise
            except Exception as exc:  # one job must not stop all from being tidied
                log.error("job_crashed", job=job_id, worker="janitor", exc_info=exc)
        if self.done != self.reported:
            self.report(self.done)
            self.reported = self.done

    def _look_after(self, job_id: str, record: Mapping[str, str], kept: _Kept) -> None:
        now = self.clock.now()
        try:
            delete_at, status = _delete_at(record), read_status(record)
            kept.archive = _archived_as(job_id, record)
        except WireError as exc:
            if not kept.malformed:
                log.warning("record_malformed", job=job_id, reason=str(exc))
            kept.malformed = True
            return
        kept.passing = delete_at is not None
        if delete_at is not None and now >= delete_at:
            self._delete(job_id, "it was to be kept for so long")
            return
        ended_s = now - (status.ended_at or now) if status.finished else None
        if ended_s is not None and ended_s > self.retention.events_s:
            late = ended_s > LATE * self.retention.events_s
            gone = [self._empty(job_id, stream, kept, late=late) for stream in STREAMS]
            if all(gone):
                self._delete(job_id, "it ended long ago")
        elif ended_s is not None and ended_s > self.retention.tokens_s:
            kept.emptied = kept.emptied or self._empty(job_id, "tokens", kept)
        elif not kept.settled:
            kept.settled = self._trim(job_id, kept) and status.finished

    def _trim(self, job_id: str, kept: _Kept) -> bool:
        """Lets go what is beyond the bounds; whether that is all that there is at present."""
        limits = self.retention
        said = self.queue.last(job_id, "events")
        whole = [self._scan(job_id, stream, kept.shelf(stream)) for stream in STREAMS]
        tokens = Bounds(seconds=limits.tokens_s, size=limits.tokens_bytes)
        events = Bounds(seconds=limits.events_s, size=limits.events_bytes)
        # the captioner would be rebuilt from here
        done = [
            self._let_go(job_id, "tokens", kept, tokens, before=kept.tokens.start_of(said)),
            self._let_go(job_id, "events", kept, events, before=min(said, kept.events.seen)),
        ]
        return all(whole + done)

    def _scan(self, job_id: str, stream: Stream, shelf: Shelf) -> bool:
        """Looks at the entries that are new; whether it came to the end."""
        wanted, shelve = (
            ("head", _shelve_chunk) if stream == "tokens" else ("totals", _shelve_events)
        )
        for _ in range(PAGES):
            outlines = self.queue.outlines(job_id, stream, wanted, after=shelf.seen)
            for outline in outlines:
                shelve(shelf, outline, job_id)
            if not outlines:
                return True
        return False

    def _let_go(
        self, job_id: str, stream: Stream, kept: _Kept, bounds: Bounds, *, before: int
    ) -> bool:
        """Trims what is beyond the bounds; whether nothing that should leave is left."""
        shelf = kept.shelf(stream)
        if self.archive is None or kept.passing:
            if due := shelf.due(bounds, before=before):
                self._drop(job_id, stream, shelf, before=due[-1].last + 1)
            return True
        early = replace(bounds, size=int(bounds.size * ARCHIVE_SHARE))
        full = replace(bounds, seconds=float("inf"))
        must = len(shelf.due(full, before=before))
        return self._take_away(job_id, stream, shelf, shelf.due(early, before=before), must=must)

    def _empty(self, job_id: str, stream: Stream, kept: _Kept, *, late: bool = False) -> bool:
        """Trims all of a stream. late: also what the archive does not take."""
        shelf = kept.shelf(stream)
        if self.archive is None or kept.passing:
            self._drop(job_id, stream, shelf, before=self.queue.last(job_id, stream) + 1)
            return True
        whole = self._scan(job_id, stream, shelf)
        due = list(shelf.stretches) if whole else list(shelf.stretches)[:-1]  # which may grow
        must = len(due) if late else 0
        return self._take_away(job_id, stream, shelf, due, must=must) and whole

    def _take_away(
        self, job_id: str, stream: Stream, shelf: Shelf, due: list[Stretch], *, must: int
    ) -> bool:
        """Takes stretches out of Redis, each when the archive has it; whether all are gone.

        The first `must` go in any case.
        """
        for n, stretch in enumerate(due):
            try:
                taken = self._archive(job_id, stream, stretch)
            except _TakenAway:
                shelf.drop(before=stretch.last + 1)
                continue
            if not taken and n >= must:
                return False
            if not taken:
                lost = stretch.entries
                log.error(
                    "archive_failed", job=job_id, stream=stream, lost=lost, chunk=stretch.last
                )
                self.done = replace(self.done, lost=self.done.lost + lost)
            self._drop(job_id, stream, shelf, before=stretch.last + 1)
        return True

    def _drop(self, job_id: str, stream: Stream, shelf: Shelf, *, before: int) -> None:
        trimmed = self.queue.trim(job_id, stream, before=before)
        shelf.drop(before=before)
        self.done = replace(self.done, trimmed=self.done.trimmed + trimmed)

    def _archive(self, job_id: str, stream: Stream, stretch: Stretch) -> bool:
        """Whether the archive has it now."""
        assert self.archive is not None
        if self.clock.monotonic() < self.retry_at:
            return False
        write = self.archive.write_group if stream == "tokens" else self.archive.write_events
        name, entries = self.kept[job_id].archive, self._entries(job_id, stream, stretch)
        try:
            size = self.writing(lambda: write(name, stretch, entries))
        except (ArchiveError, OSError) as exc:  # a full /tmp, e.g.
            self.delay_s = min(max(FIRST_DELAY_S, 2 * self.delay_s), LONGEST_DELAY_S)
            self.retry_at = self.clock.monotonic() + self.delay_s
            failures = self.done.archive_failures + 1
            self.done = replace(self.done, archive_failures=failures)
            log.warning("archive_failed", job=job_id, reason=str(exc), retry_s=self.delay_s)
            return False
        self.delay_s = 0.0
        self.done = replace(
            self.done,
            archived=self.done.archived + stretch.entries,
            archived_bytes=self.done.archived_bytes + size,
        )
        return True

    def _entries(self, job_id: str, stream: Stream, stretch: Stretch) -> Iterator[Entry]:
        """All of a stretch, or _TakenAway: half a file would take a whole one's place."""
        after, left = stretch.first - 1, stretch.entries
        while left:
            page = self.queue.read(job_id, stream, after=after, count=min(READ, left))
            if not page or page[-1].number > stretch.last:
                raise _TakenAway
            yield from page
            after, left = page[-1].number, left - len(page)

    def _delete(self, job_id: str, reason: str) -> None:
        self.queue.delete_job(job_id)
        del self.kept[job_id]
        self.done = replace(self.done, deleted=self.done.deleted + 1)
        log.info("job_deleted", job=job_id, reason=reason)


def janitor_for(
    retention: RetentionSettings, queue: Queue, roster: Roster, clock: Clock
) -> Janitor:
    """A janitor with the archive of the settings; the roster learns what it does.

    Raises ConfigError where there can be no such archive.
    """
    archive = Archive(retention.archive) if retention.archive else None
    return Janitor(
        retention,
        queue,
        clock,
        archive,
        report=lambda done: roster.publish("retention", done.to_json()),
    )


def _shelve_chunk(shelf: Shelf, outline: Outline, job_id: str) -> None:
    number, t0, t1, starts = outline.entry.number, shelf.t1, shelf.t1, False
    with suppress(WireError):  # said to be broken by who captions it; here it is but bytes
        head = head_of(outline.entry, job_id)
        t0, t1, starts = head.t0, head.t1, head.kind == "I"
    shelf.add(number, t0=t0, t1=t1, size=outline.size, starts=starts)


def _shelve_events(shelf: Shelf, outline: Outline, job_id: str) -> None:
    number, t0 = outline.entry.number, shelf.t1
    t1 = t0
    with suppress(WireError):
        t1 = max(t0, decode_totals(outline.entry).t1)
    starts = (number - 1) // BLOCK != (shelf.seen - 1) // BLOCK
    shelf.add(number, t0=t0, t1=t1, size=outline.size, starts=starts)


def _archived_as(job_id: str, record: Mapping[str, str]) -> str:
    """A job's name in the archive."""
    text = record.get("created_at", "0")
    try:
        return archived_as(job_id, float(text))
    except (OverflowError, ValueError) as exc:
        raise WireError(f"a job's record is malformed: created_at {text!r}") from exc


def _delete_at(record: Mapping[str, str]) -> float | None:
    """When a job is to be deleted, in Unix seconds."""
    text = record.get("delete_at")
    try:
        return float(text) if text else None
    except ValueError as exc:
        raise WireError(f"a job's record is malformed: delete_at {text!r}") from exc
