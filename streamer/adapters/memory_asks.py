"""Asks inside one process: same contract as those in Redis."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from streamer.adapters.asks import (
    GIVEN_UP,
    IDLE_S,
    KEPT_S,
    MOST_TAKES,
    MOST_WAITING,
    AskRequest,
    Reply,
)
from streamer.adapters.clock import SYSTEM_CLOCK, Clock
from streamer.errors import NoRoom

_LAST = 2**53 - 1


@dataclass(slots=True)
class _Waiting:
    request: AskRequest
    worker: str | None = None
    seen_at: float = 0.0
    takes: int = 0


@dataclass(slots=True)
class _Replies:
    expires_at: float
    by_number: dict[int, Reply] = field(default_factory=dict)


class MemoryAsks:
    """Asks for one process; safe to share between its threads."""

    def __init__(self, *, idle_s: float = IDLE_S, clock: Clock = SYSTEM_CLOCK) -> None:
        self._idle_s = idle_s
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: dict[str, _Waiting] = {}
        self._replies: dict[str, _Replies] = {}

    def put(self, request: AskRequest) -> None:
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                self._drop_late()
            if len(self._waiting) >= MOST_WAITING:
                raise NoRoom(f"{MOST_WAITING} questions wait for an answer; try again later")
            self._waiting[request.id] = _Waiting(request)

    def take(self, worker: str, *, count: int) -> list[AskRequest]:
        with self._changed:
            now = self._clock.monotonic()
            self._drop_late()
            ready: list[_Waiting] = []
            for waiting in list(self._waiting.values()):
                idle = now - waiting.seen_at >= self._idle_s
                if waiting.worker == worker:
                    waiting.seen_at = now
                elif len(ready) < count and (waiting.worker is None or idle):
                    waiting.worker, waiting.seen_at = worker, now
                    waiting.takes += 1
                    ready.append(waiting)
            for waiting in ready:
                if waiting.takes > MOST_TAKES:
                    lost = Reply(n=1, done=True, error=GIVEN_UP, refused="failed")
                    self.tell(waiting.request.id, lost)
                    self.done(waiting.request.id)
            return [waiting.request for waiting in ready if waiting.takes <= MOST_TAKES]

    def tell(self, ask_id: str, reply: Reply) -> None:
        with self._changed:
            now = self._clock.monotonic()
            self._replies = {k: v for k, v in self._replies.items() if v.expires_at > now}
            told = self._replies.setdefault(ask_id, _Replies(now))
            number = _LAST if reply.done else reply.n
            if number > max(told.by_number, default=0):
                told.by_number[number] = replace(reply, n=number)
                told.expires_at = now + KEPT_S
                self._changed.notify_all()

    def hear(self, ask_id: str, *, after: int, block_s: float = 0.0) -> list[Reply]:
        def found() -> list[Reply]:
            told = self._replies.get(ask_id)
            if told is None or told.expires_at <= self._clock.monotonic():
                return []
            return [reply for n, reply in told.by_number.items() if n > after]

        with self._changed:
            return self._changed.wait_for(found, block_s)

    def done(self, ask_id: str) -> None:
        with self._changed:
            self._waiting.pop(ask_id, None)

    def wanted(self, ask_ids: Sequence[str]) -> set[str]:
        with self._changed:
            return self._waiting.keys() & set(ask_ids)

    def _drop_late(self) -> None:
        now = self._clock.now()
        self._waiting = {k: w for k, w in self._waiting.items() if w.request.deadline > now}
