"""A job whose chunks and events are written by hand, as its workers would write them."""

from __future__ import annotations

from streamer.adapters.queue import Queue
from streamer.events import Event, Totals, encode_chunk_events
from streamer.wire import ChunkHead, encode_head

RECORD = {"spec": "{}", "questions": "[]", "created_at": "1700000000.000", "state": "running"}


def write_chunk(
    queue: Queue, job: str, number: int, *, starts: bool, chunk_s: float = 2.0, size: int = 100
) -> None:
    """The next chunk of a token stream: its tokens are so many zeros."""
    head = ChunkHead(
        job=job,
        number=number,
        kind="I" if starts else "P",
        t0=(number - 1) * chunk_s,
        t1=number * chunk_s,
        tubelet_s=((number - 0.5) * chunk_s,),
        tubelet_t=number - 1,
        grid=(1, 1),
        tokens=1,
        dense=1,
    )
    queue.append(job, "tokens", number, {**encode_head(head), "body": bytes(size)})


def write_caption(queue: Queue, job: str, number: int, *, chunk_s: float = 2.0) -> None:
    """The events of a chunk."""
    event = Event(
        id=f"{number}-0",
        event="caption",
        job=job,
        chunk=number,
        t0=(number - 1) * chunk_s,
        t1=number * chunk_s,
        question="default",
        text=f"chunk {number}",
    )
    totals = Totals(chunks=number, captions=number, t1=event.t1)
    queue.append(job, "events", number, encode_chunk_events([event], totals))
