"""A queue inside one process: same contract as Redis, nothing survives the process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile

from streamer.adapters.queue import (
    Entry,
    Outline,
    Room,
    Stream,
    Written,
    check_append,
    check_job_id,
    check_read,
    check_record,
    check_room,
)
from streamer.errors import StreamGone, WriterReplaced


@dataclass(slots=True)
class _Stream:
    last: int = 0
    entries: dict[int, dict[str, bytes]] = field(default_factory=dict)  # by number, rising


@dataclass(slots=True)
class _Job:
    record: dict[str, str]
    streams: dict[Stream, _Stream]


class MemoryQueue:
    """Queue for one process; safe to share between its threads."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._active: dict[str, str] = {}
        self._changed = threading.Condition()

    def create_job(
        self,
        job_id: str,
        record: Mapping[str, str],
        *,
        tenant: str = "local",
        room: Room | None = None,
    ) -> bool:
        check_job_id(job_id)
        check_record(record)
        with self._changed:
            if job_id in self._jobs:
                return False
            check_room(room, self._active, tenant)
            self._active[job_id] = tenant
            self._jobs[job_id] = _Job(dict(record), {"tokens": _Stream(), "events": _Stream()})
            return True

    def job(self, job_id: str) -> dict[str, str] | None:
        check_job_id(job_id)
        with self._changed:
            job = self._jobs.get(job_id)
            return dict(job.record) if job else None

    def records(self, job_ids: Iterable[str]) -> dict[str, dict[str, str]]:
        found = {job_id: self.job(job_id) for job_id in job_ids}
        return {job_id: record for job_id, record in found.items() if record}

    def update_job(self, job_id: str, fields: Mapping[str, str]) -> bool:
        check_job_id(job_id)
        check_record(fields)
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None:
                return False
            kept = {name: value for name, value in job.record.items() if name not in fields}
            job.record = kept | {name: value for name, value in fields.items() if value}
            return True

    def change_job(
        self, job_id: str, change: Callable[[dict[str, str]], Mapping[str, str]]
    ) -> bool:
        with self._changed:
            record = self.job(job_id)
            return record is not None and self.update_job(job_id, change(record))

    def finish_job(self, job_id: str, fields: Mapping[str, str]) -> bool:
        with self._changed:
            found = self.update_job(job_id, fields)
            self._active.pop(job_id, None)
            return found

    def active(self) -> dict[str, str]:
        with self._changed:
            return dict(self._active)

    def delete_job(self, job_id: str) -> None:
        check_job_id(job_id)
        with self._changed:
            self._jobs.pop(job_id, None)
            self._active.pop(job_id, None)
            self._changed.notify_all()

    def jobs(self) -> list[str]:
        with self._changed:
            return sorted(self._jobs)

    def append(
        self, job_id: str, stream: Stream, number: int, fields: Mapping[str, bytes]
    ) -> Written:
        check_append(number, fields)
        with self._changed:
            kept = self._stream(job_id, stream)
            if number > kept.last:
                kept.entries[number] = dict(fields)
                kept.last = number
                self._changed.notify_all()
                return "written"
            if number in kept.entries:
                return "already"
            raise WriterReplaced(
                f"job {job_id} {stream}: entry {number} was refused, the stream is at {kept.last}; "
                "another writer has taken over"
            )

    def read(
        self, job_id: str, stream: Stream, *, after: int, count: int = 100, block_s: float = 0.0
    ) -> list[Entry]:
        check_read(count, block_s)
        with self._changed:
            self._stream(job_id, stream)
            self._changed.wait_for(
                lambda: job_id not in self._jobs or self._after(job_id, stream, after), block_s
            )
            numbers = self._after(job_id, stream, after)[:count]
            return self._entries(job_id, stream, numbers)

    def read_any(
        self, stream: Stream, after: Mapping[str, int], *, count: int = 1, block_s: float = 0.0
    ) -> dict[str, list[Entry]]:
        check_read(count, block_s)

        def found() -> dict[str, list[int]]:
            there = {job_id: n for job_id, n in after.items() if job_id in self._jobs}
            numbers = {job_id: self._after(job_id, stream, n) for job_id, n in there.items()}
            return {job_id: some[:count] for job_id, some in numbers.items() if some}

        with self._changed:
            numbers = self._changed.wait_for(found, block_s)
            return {job: self._entries(job, stream, some) for job, some in numbers.items()}

    def read_back(
        self, job_id: str, stream: Stream, *, before: int | None = None, count: int = 100
    ) -> list[Entry]:
        check_read(count)
        with self._changed:
            kept = self._stream(job_id, stream).entries
            numbers = [n for n in reversed(kept) if before is None or n < before]
            return self._entries(job_id, stream, numbers[:count])

    def entry(self, job_id: str, stream: Stream, number: int) -> Entry | None:
        with self._changed:
            if number not in self._stream(job_id, stream).entries:
                return None
            return self._entries(job_id, stream, [number])[0]

    def outlines(
        self, job_id: str, stream: Stream, field: str, *, after: int, count: int = 64
    ) -> list[Outline]:
        return [
            _outline(entry, field) for entry in self.read(job_id, stream, after=after, count=count)
        ]

    def first(self, job_id: str, stream: Stream) -> int:
        with self._changed:
            return next(iter(self._stream(job_id, stream).entries), 0)

    def last(self, job_id: str, stream: Stream) -> int:
        with self._changed:
            return self._stream(job_id, stream).last

    def length(self, job_id: str, stream: Stream) -> int:
        with self._changed:
            return len(self._stream(job_id, stream).entries)

    def trim(self, job_id: str, stream: Stream, *, before: int) -> int:
        with self._changed:
            kept = self._stream(job_id, stream).entries
            dropped = list(takewhile(lambda n: n < before, kept))
            for n in dropped:
                del kept[n]
            return len(dropped)

    def _stream(self, job_id: str, stream: Stream) -> _Stream:
        job = self._jobs.get(check_job_id(job_id))
        if job is None:
            raise StreamGone(f"job {job_id} {stream}: no such stream; the job was deleted")
        return job.streams[stream]

    def _after(self, job_id: str, stream: Stream, after: int) -> list[int]:
        return [n for n in self._stream(job_id, stream).entries if n > after]

    def _entries(self, job_id: str, stream: Stream, numbers: list[int]) -> list[Entry]:
        kept = self._stream(job_id, stream).entries
        return [Entry(n, dict(kept[n]), f"job {job_id} {stream}") for n in numbers]


def _outline(entry: Entry, field: str) -> Outline:
    kept = {name: value for name, value in entry.fields.items() if name == field}
    size = sum(len(name.encode()) + len(value) for name, value in entry.fields.items())
    return Outline(Entry(entry.number, kept, entry.stream), size)
