"""Finding the group that a reader of a token stream must start from."""

from __future__ import annotations

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
            if _starts_a_group(entry, job_id):
                return found[::-1]
        before = entries[-1].number
    return found[::-1]


def head_of(entry: Entry, job_id: str) -> ChunkHead:
    """What an entry of a token stream is. Raises WireError; also if it belongs elsewhere."""
    head = decode_head(entry.fields, where=entry.where)
    if head.job != job_id:
        raise WireError(f"{entry.where}: head.job: {head.job!r}, must be {job_id!r}")
    if head.number != entry.number:
        raise WireError(f"{entry.where}: head.number: {head.number}, must be {entry.number}")
    return head


def _starts_a_group(entry: Entry, job_id: str) -> bool:
    try:
        return head_of(entry, job_id).kind == "I"
    except WireError:
        return False
