"""Finding one's place in a token stream: the group to start from, the entry of a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from streamer.adapters.queue import Entry, Queue
from streamer.errors import WireError
from streamer.wire import ChunkHead, decode_head

PAGE = 4


def last_group(queue: Queue, job_id: str, *, upto: int | None = None) -> list[Entry]:
    """Entries from the last I-chunk at or before number `upto` (None: the end), oldest first.

    An entry that cannot be read is no I-chunk, and stays in its place for the caller to judge.
    """
    found: list[Entry] = []
    before = None if upto is None else upto + 1
    while entries := queue.read_back(job_id, "tokens", before=before, count=PAGE):
        for entry in entries:
            found.append(entry)
            if starts_a_group(entry, job_id):
                return found[::-1]
        before = entries[-1].number
    return found[::-1]


def entry_at(queue: Queue, job_id: str, seconds: float) -> int | None:
    """Number of the first kept entry that ends after a media time; None when all end before.

    Media time never goes back, so few entries are looked at. One that cannot be read has no time.
    """
    low, high = queue.first(job_id, "tokens"), queue.last(job_id, "tokens")
    found: int | None = None
    while 0 < low <= high:
        middle = (low + high) // 2
        seen = next(heads(queue, job_id, after=middle - 1), None)
        if seen is not None and seen.t1 <= seconds:
            low = seen.number + 1
        else:
            found = found if seen is None else seen.number
            high = middle - 1
    return found


def head_of(entry: Entry, job_id: str) -> ChunkHead:
    """What an entry of a token stream is. Raises WireError; also if it belongs elsewhere."""
    head = decode_head(entry.fields, where=entry.where)
    if head.job != job_id:
        raise WireError(f"{entry.where}: head.job: {head.job!r}, must be {job_id!r}")
    if head.number != entry.number:
        raise WireError(f"{entry.where}: head.number: {head.number}, must be {entry.number}")
    return head


def starts_a_group(entry: Entry, job_id: str) -> bool:
    """Whether an entry is an I-chunk; one that cannot be read is none."""
    try:
        return head_of(entry, job_id).kind == "I"
    except WireError:
        return False


def heads(queue: Queue, job_id: str, *, after: int, count: int = 1) -> Iterator[ChunkHead]:
    """What the entries beyond a number are, without their tokens; those that can be read.

    count: how many are looked at together.
    """
    while outlines := queue.outlines(job_id, "tokens", "head", after=after, count=count):
        for outline in outlines:
            with suppress(WireError):
                yield head_of(outline.entry, job_id)
        after = outlines[-1].entry.number
