"""Following many jobs with one thread: it waits for whatever is new, and wakes who follows.

A follower reads its events by itself, from its own place, and nothing is kept for it. What is known
here of a job is how far its events go and its state; so a wake-up too many does no harm, and none
is missed: a follower goes to sleep only where there is nothing beyond its place.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from anyio import move_on_after

from streamer.adapters.clock import Clock
from streamer.adapters.queue import Entry, Queue
from streamer.errors import QueueError, WireError
from streamer.jobs import JobState, read_status

BLOCK_S = 0.25
"""The longest wait of one read; a new follower joins the next one."""
LOOK_S = 0.5
"""How often the states are looked at."""


Key = tuple[str, str]
"""A job's id, and when it was born."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A job's state at a moment."""

    born: str
    """Tells a job from a later one of the same id."""
    state: JobState | Literal["deleted"]
    error: str | None = None

    @property
    def finished(self) -> bool:
        """Nothing more will happen."""
        return self.state in ("ended", "failed", "deleted")


def standing(record: Mapping[str, str]) -> Standing:
    """The standing that a record tells."""
    born = record.get("created_at", "")
    try:
        status = read_status(record)
    except WireError as exc:
        return Standing(born=born, state="failed", error=str(exc))
    return Standing(born=born, state=status.state, error=status.error)


def _standing_of(key: Key, records: Mapping[str, Mapping[str, str]]) -> Standing:
    job_id, born = key
    now = standing(records[job_id]) if job_id in records else None
    return now if now and now.born == born else Standing(born=born, state="deleted")


@dataclass(slots=True)
class _Job:
    standing: Standing
    newest: int | None = None
    """The highest number that is known to be there, once a follower has come to the end."""
    followers: set[Follower] = field(default_factory=set)
    cut: bool = False
    """Its followers shall leave, and may come back."""


class Follower:
    """One who follows a job, on the event loop that made it."""

    def __init__(self, tail: Tail, job: _Job) -> None:
        self._tail = tail
        self._job = job
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()

    @property
    def standing(self) -> Standing:
        return self._job.standing

    @property
    def cut(self) -> bool:
        """Whether the stream shall end, though the job may go on: the process ends."""
        return self._job.cut

    async def news(self, place: int, known: Standing | None, timeout_s: float) -> bool:
        """Waits for entries beyond `place`, another standing than `known`, or a cut.

        known: None, to wait until Redis answers. False when there was nothing within `timeout_s`.
        """
        with move_on_after(timeout_s):
            while not self._tail.has_news(self._job, place, known):
                await self._wake.wait()
                self._wake.clear()
            return True
        return False

    def wake(self) -> None:
        """From any thread."""
        with suppress(RuntimeError):  # the loop has ended, and the follower with it
            self._loop.call_soon_threadsafe(self._wake.set)


class Tail:
    """The jobs that are followed in this process. Its thread lives while there are any."""

    def __init__(self, queue: Queue, clock: Clock) -> None:
        self._closed = False
        self._queue = queue
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: dict[Key, _Job] = {}
        self._thread: threading.Thread | None = None
        self._lost_at: float | None = None
        self._looked_at = clock.monotonic() - LOOK_S

    @property
    def followers(self) -> int:
        """How many there are."""
        with self._lock:
            return sum(len(job.followers) for job in self._jobs.values())

    @property
    def lost_s(self) -> float:
        """For how long Redis has been away."""
        lost_at = self._lost_at
        return 0.0 if lost_at is None else self._clock.monotonic() - lost_at

    @contextmanager
    def follow(self, job_id: str, known: Standing) -> Iterator[Follower]:
        """A follower for as long as the context lasts; `known` is the standing just read."""
        key = (job_id, known.born)
        with self._lock:
            job = self._jobs.setdefault(key, _Job(known, cut=self._closed))
            follower = Follower(self, job)
            job.followers.add(follower)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="api-tail", daemon=True)
                self._thread.start()
        try:
            yield follower
        finally:
            with self._lock:
                job.followers.discard(follower)
                if not job.followers and self._jobs.get(key) is job:
                    del self._jobs[key]

    def has_news(self, job: _Job, place: int, known: Standing | None) -> bool:
        """What Follower.news waits for; from now on entries beyond `place` are looked out for."""
        with self._lock:
            job.newest = max(job.newest or 0, place)
            back = self._lost_at is None
            return job.cut or (back and (job.standing != known or job.newest > place))

    def lose(self) -> None:
        """A follower could not read: nobody need try before the next read here succeeds."""
        if self._lost_at is None:
            self._lost_at = self._clock.monotonic()

    def close(self) -> None:
        """Ends all streams, and those to come."""
        self._closed = True
        self._cut()

    def _run(self) -> None:
        try:
            while (jobs := self._places()) is not None:
                try:
                    self._round(jobs)
                except QueueError:
                    self.lose()
                    self._clock.sleep(LOOK_S)
        finally:
            if self._thread is threading.current_thread():  # an error that nobody foresaw
                self._cut()

    def _places(self) -> dict[Key, int | None] | None:
        """The jobs, and how far their events are known to go; None at the thread's end."""
        with self._lock:
            if not self._jobs or self._closed:
                self._thread = None
                return None
            return {
                key: job.newest
                for key, job in self._jobs.items()
                if job.standing.state != "deleted"
            }

    def _round(self, jobs: Mapping[Key, int | None]) -> None:
        now = self._clock.monotonic()
        seen: dict[Key, Standing] = {}
        if self._lost_at is not None or now - self._looked_at >= LOOK_S:
            records = self._queue.records({job_id for job_id, _ in jobs})
            seen = {key: _standing_of(key, records) for key in jobs}
            self._looked_at = now
        places = {job_id: place for (job_id, _), place in jobs.items() if place is not None}
        found = self._queue.read_any("events", places, block_s=BLOCK_S) if places else {}
        self._learn(seen, found)
        if not places:
            self._clock.sleep(BLOCK_S)

    def _learn(self, seen: Mapping[Key, Standing], found: Mapping[str, list[Entry]]) -> None:
        back, self._lost_at = self._lost_at is not None, None
        with self._lock:
            for key, job in self._jobs.items():
                before = (job.standing, job.newest)
                job.standing = seen.get(key, job.standing)
                if (entries := found.get(key[0])) and job.newest is not None:
                    job.newest = max(job.newest, entries[-1].number)
                if back or (job.standing, job.newest) != before:
                    for follower in job.followers:
                        follower.wake()

    def _cut(self) -> None:
        with self._lock:
            jobs, self._jobs, self._thread = self._jobs, {}, None
            for job in jobs.values():
                job.cut = True
                for follower in job.followers:
                    follower.wake()
