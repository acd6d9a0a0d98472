"""Follows many jobs as one subscriber would: every entry as it is written, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import structlog

from streamer.adapters.queue import Entry, Queue
from streamer.errors import QueueError
from streamer.events import Event
from tests.bench.account import WITHOUT_PICTURES, Account

BLOCK_S = 0.5
AGAIN_S = 0.2
PAGE = 200

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Followed:
    """A job as its subscriber knows it."""

    account: Account
    pictured: list[tuple[int, float]] = field(default_factory=list)
    """(number, time of arrival) of the entries that tell of pictures, by time.monotonic."""


class Follower:
    """A thread that reads on where it stands; a context manager."""

    def __init__(
        self, queue: Queue, heard: Callable[[str, list[Event], float], None] | None = None
    ) -> None:
        """heard: is called with a job, the events of an entry and the Unix time they came at."""
        self.queue = queue
        self.heard = heard
        self.jobs: dict[str, Followed] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._thread.join(60)

    def add(self, job: str, *, questions: int = 1) -> Followed:
        """Follows a job from its first chunk on."""
        followed = Followed(account=Account(questions=questions))
        with self._lock:
            self.jobs[job] = followed
        return followed

    def drop(self, job: str) -> None:
        """Follows it no further."""
        with self._lock:
            del self.jobs[job]

    def _follow(self) -> None:
        while not self._ending.is_set():
            with self._lock:
                after = {job: followed.account.last for job, followed in self.jobs.items()}
            if not after:
                self._ending.wait(AGAIN_S)
                continue
            try:
                found = self.queue.read_any("events", after, count=PAGE, block_s=BLOCK_S)
            except QueueError as exc:
                log.info("queue_lost", worker="follower", reason=str(exc))
                self._ending.wait(AGAIN_S)
                continue
            for job, entries in found.items():
                self._take(job, entries)

    def _take(self, job: str, entries: list[Entry]) -> None:
        came_at, unix = time.monotonic(), time.time()
        followed = self.jobs.get(job)
        for entry in entries if followed else []:
            assert followed is not None
            events = followed.account.add(entry)
            if events and events[0].event not in WITHOUT_PICTURES:
                followed.pictured.append((entry.number, came_at))
            if self.heard and events:
                self.heard(job, events, unix)
