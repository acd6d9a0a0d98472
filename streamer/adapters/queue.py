"""The queue: jobs, and for each job two streams of entries numbered by their writer.

One rule gives exactly-once: an entry is written at its own number, numbers only rise, and a
refused write is read back. There: done. Not there: this writer was replaced, and stops. Streams are
made with their job, and a write never makes one, so that no late writer revives a deleted job.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from streamer.errors import NoRoom, QueueError

Stream = Literal["tokens", "events"]
Written = Literal["written", "already"]

MAX_BLOCK_S = 10.0
"""The longest that one `read` waits; the Redis socket timeout lies above it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a stream, as stored."""

    number: int
    fields: dict[str, bytes] = field(repr=False)
    stream: str = "stream"
    """The name of the stream it came from, for messages."""

    @property
    def where(self) -> str:
        """For messages, e.g. `job cam tokens entry 12`."""
        return f"{self.stream} entry {self.number}"


@dataclass(frozen=True, slots=True)
class Outline:
    """An entry without what is large in it."""

    entry: Entry
    """With the one field that was asked for, if it has it."""
    size: int
    """Bytes of all its fields, names and values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How many unfinished jobs there may be; None is no bound."""

    jobs: int | None = None
    """In all."""
    of_tenant: int | None = None
    """Of the new job's tenant."""

    def left(self, active: Mapping[str, str], tenant: str) -> int | None:
        """How many more fit beside the active ones (job id → tenant), never below 0."""
        bounds = []
        if self.jobs is not None:
            bounds.append(self.jobs - len(active))
        if self.of_tenant is not None:
            bounds.append(self.of_tenant - sum(owner == tenant for owner in active.values()))
        return max(0, min(bounds)) if bounds else None


class Queue(Protocol):
    """What the service needs of its queue. Any method may raise QueueError."""

    def create_job(
        self,
        job_id: str,
        record: Mapping[str, str],
        *,
        tenant: str = "local",
        room: Room | None = None,
    ) -> bool:
        """Makes the job, active, and its two empty streams at once; False when it is there already.

        After a lost connection False may also mean that this very call made it. Raises NoRoom, and
        makes nothing, when that would be one more than `room` allows.
        """
        ...

    def job(self, job_id: str) -> dict[str, str] | None: ...

    def records(self, job_ids: Iterable[str]) -> dict[str, dict[str, str]]:
        """The records of many jobs at once; those that do not exist are left out."""
        ...

    def update_job(self, job_id: str, fields: Mapping[str, str]) -> bool:
        """Sets fields of the record, and removes those given as ""; False when there is no such
        job (it is not revived)."""
        ...

    def change_job(
        self, job_id: str, change: Callable[[dict[str, str]], Mapping[str, str]]
    ) -> bool:
        """As update_job, with the fields that `change` makes of the record as it is now.

        `change` is called again where the record was changed meanwhile; what it raises is passed
        on, and nothing is written.
        """
        ...

    def finish_job(self, job_id: str, fields: Mapping[str, str]) -> bool:
        """As update_job, and the job is not active any more."""
        ...

    def active(self) -> dict[str, str]:
        """The unfinished jobs: id → tenant."""
        ...

    def delete_job(self, job_id: str) -> None:
        """Removes the job and its streams; nothing happens when it is gone already."""
        ...

    def jobs(self) -> list[str]:
        """Ids of all jobs, sorted."""
        ...

    def append(
        self, job_id: str, stream: Stream, number: int, fields: Mapping[str, bytes]
    ) -> Written:
        """Writes entry `number`; "already" when it is in the stream. Safe to repeat.

        Raises StreamGone when the job was deleted, WriterReplaced when the stream has gone past
        `number` without it.
        """
        ...

    def read(
        self, job_id: str, stream: Stream, *, after: int, count: int = 100, block_s: float = 0.0
    ) -> list[Entry]:
        """Up to `count` entries with a number over `after`, oldest first.

        Waits up to `block_s` (at most MAX_BLOCK_S) for the first. StreamGone when the job was
        deleted, at the latest when the wait ends.
        """
        ...

    def read_any(
        self, stream: Stream, after: Mapping[str, int], *, count: int = 1, block_s: float = 0.0
    ) -> dict[str, list[Entry]]:
        """`read` of many jobs (id → number) in one call: up to `count` entries of each with any.

        Waits up to `block_s` for the first entry of any. A deleted job has none.
        """
        ...

    def read_back(
        self, job_id: str, stream: Stream, *, before: int | None = None, count: int = 100
    ) -> list[Entry]:
        """Up to `count` entries with a number under `before` (None: from the end), newest first."""
        ...

    def entry(self, job_id: str, stream: Stream, number: int) -> Entry | None: ...

    def outlines(
        self, job_id: str, stream: Stream, field: str, *, after: int, count: int = 64
    ) -> list[Outline]:
        """As `read`, with one field of each entry: the others stay where they are.

        Fewer than `count` where entries are large, but none only where there are no more.
        """
        ...

    def first(self, job_id: str, stream: Stream) -> int:
        """The oldest number still kept; 0 when none is."""
        ...

    def last(self, job_id: str, stream: Stream) -> int:
        """The highest number ever written, kept or trimmed; 0 when none was."""
        ...

    def length(self, job_id: str, stream: Stream) -> int:
        """How many entries are kept."""
        ...

    def trim(self, job_id: str, stream: Stream, *, before: int) -> int:
        """Drops the entries with a number under `before`; how many went. `last` stays."""
        ...


def check_job_id(job_id: str) -> str:
    """Job ids become parts of keys and URLs."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", job_id):
        raise QueueError(
            f"job id {job_id[:140]!r}: must be 1 to 128 of A-Z a-z 0-9 . _ - "
            "and start with a letter or digit"
        )
    return job_id


def check_append(number: int, fields: Mapping[str, bytes]) -> None:
    if not 1 <= number < 2**53 or not fields:
        raise ValueError(f"an entry needs a number from 1 to 2**53 and fields, got {number}")


def check_read(count: int, block_s: float = 0.0) -> None:
    if count < 1 or not 0 <= block_s <= MAX_BLOCK_S:
        raise ValueError(
            f"count {count} must be at least 1, block_s {block_s} from 0 to {MAX_BLOCK_S}"
        )


def check_record(fields: Mapping[str, str]) -> None:
    if not fields:
        raise ValueError("a job's record needs at least one field")


def check_room(room: Room | None, active: Mapping[str, str], tenant: str) -> None:
    """Raises NoRoom when no further job of `tenant` fits beside the active ones."""
    if room is not None and room.left(active, tenant) == 0:
        raise NoRoom(f"{len(active)} jobs are running, and no more fit; wait for one to end")
