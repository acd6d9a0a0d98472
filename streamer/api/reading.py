"""One subscriber's place in a job's events: pages from there on, and a word for what is missing."""

from __future__ import annotations

from collections.abc import Callable

from streamer.adapters.queue import Entry, Queue
from streamer.errors import WireError
from streamer.events import Event, decode_chunk_events, event_id, parse_event_id

PAGE = 32
"""Chunks read at once."""
START = (0, 0)


class Reading:
    """Holds a place and nothing else. Chunks count without holes: a hole is what was trimmed."""

    def __init__(
        self,
        queue: Queue,
        job_id: str,
        *,
        behind: tuple[int, int],
        chunk_s: float,
        decode: Callable[[Entry], list[Event]] = decode_chunk_events,
    ) -> None:
        """behind: (chunk, n) of the last event that the subscriber has; chunk_s: of the job.

        decode: a chunk's events, which are at least one; may raise WireError.
        """
        self.after = max(0, behind[0] - 1)
        """All entries up to this number were read."""
        self.caught_up = False
        """Whether the last page was the last one there was."""
        self._queue = queue
        self._job_id = job_id
        self._behind = behind
        self._t1 = behind[0] * chunk_s  # its end, as far as is known before the first event
        self._chunk_s = chunk_s
        self._decode = decode

    def next(self, finished: bool) -> list[Event]:
        """The next events, which may be none; raises QueueError.

        finished: no more will be written, so that what is missing at the end was trimmed.
        """
        entries = self._queue.read(self._job_id, "events", after=self.after, count=PAGE)
        self.caught_up = len(entries) < PAGE
        events = [event for entry in entries for event in self.take(entry)]
        if finished and self.caught_up:
            events += self._rest()
        return events

    def take(self, entry: Entry) -> list[Event]:
        """The events of the next entry, wherever it was found, and a word for what is missing."""
        try:
            events = self._decode(entry)
        except WireError as exc:
            events = [self.malformed(entry.number, str(exc))]
        before = max(self.after, self._behind[0])
        missed = []
        if entry.number > before + 1:
            missed = [self._trimmed(entry.number - 1, events[0].t0)]
        self.after, self._t1 = entry.number, events[-1].t1
        return missed + [event for event in events if parse_event_id(event.id) > self._behind]

    def _rest(self) -> list[Event]:
        last = self._queue.last(self._job_id, "events")
        if last <= max(self.after, self._behind[0]):
            return []
        self.after = last
        return [self._trimmed(last, max(self._t1, last * self._chunk_s))]

    def _trimmed(self, upto: int, t1: float) -> Event:
        """Its id is that of the last chunk missing, so that one who has it goes on behind it."""
        return Event(
            id=event_id(upto, 0),
            event="skipped",
            job=self._job_id,
            chunk=upto,
            t0=min(self._t1, t1),
            t1=t1,
            reason="trimmed",
        )

    def malformed(self, number: int, reason: str) -> Event:
        """What is told of a chunk whose events cannot be read."""
        return Event(
            id=event_id(number, 0),
            event="error",
            job=self._job_id,
            chunk=number,
            t0=self._t1,
            t1=self._t1,
            reason=reason,
        )
