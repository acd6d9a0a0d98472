"""Finding the group that a reader of a token stream must start from."""

from __future__ import annotations

from streamer.adapters.queue import Entry, Queue
from streamer.errors import WireError
from streamer.wire import decode_head

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
            if _starts_a_group(entry):
                return found[::-1]
        before = entries[-1].number
    return found[::-1]


def _starts_a_group(entry: Entry) -> bool:
    try:
        return decode_head(entry.fields, where=entry.where).kind == "I"
    except WireError:
        return False
