"""Asks in Redis (6.2 or newer).

Keys:
    streamer:asks          stream of what is to be answered, with the consumer group `captioners`
    streamer:replies:<id>  stream of replies to one ask, entry ids `<n>-0`; it expires by itself

The last reply has the highest id there can be, so that there is one, and nothing after it. Values
are JSON. Readers ignore fields they do not know and give absent ones their default.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import redis
import structlog
from pydantic import TypeAdapter, ValidationError
from redis.exceptions import ResponseError

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
from streamer.adapters.redis_calls import RedisCalls
from streamer.errors import NoRoom

ASKS = "streamer:asks"
GROUP = "captioners"
RETRY_FOR_S = 2.0
"""An ask has a deadline, and captions do not wait for it."""
SIGN_S = IDLE_S / 5
"""How often a captioner says that it still has what it took."""

_LAST = 2**53 - 1

_REQUEST = TypeAdapter(AskRequest)
_REPLY = TypeAdapter(Reply)

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry to be taken."""

    entry: bytes
    fields: dict[bytes, bytes]
    lost: int
    """Captioners that were lost over it."""


def replies_key(ask_id: str) -> str:
    return f"streamer:replies:{ask_id}"


class RedisAsks:
    """Asks on a Redis server; safe to share between threads."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        idle_s: float = IDLE_S,
        retry_for_s: float = RETRY_FOR_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """idle_s: IDLE_S, but for tests."""
        self._redis: Any = client  # redis-py types its commands as sync or async at once
        self._calls = RedisCalls(client, retry_for_s=retry_for_s, clock=clock)
        self._clock = clock
        self._idle_ms = round(idle_s * 1e3)
        self._lock = threading.Lock()
        self._entries: dict[str, bytes] = {}
        """The entries of asks that this side has put or taken, until they are done."""
        self._taken: set[str] = set()
        self._signed_at = clock.monotonic()

    def put(self, request: AskRequest) -> None:
        def write() -> bytes:
            if self._redis.xlen(ASKS) >= MOST_WAITING and not self._drop_late():
                raise NoRoom(f"{MOST_WAITING} questions wait for an answer; try again later")
            entry: bytes = self._redis.xadd(ASKS, {"ask": _REQUEST.dump_json(request)})
            return entry

        entry = self._calls("put a question", write)
        with self._lock:
            self._entries[request.id] = entry

    def take(self, worker: str, *, count: int) -> list[AskRequest]:
        found = self._calls("take questions", lambda: self._found(worker, count))
        now = self._clock.now()
        taken: list[AskRequest] = []
        for one in found:
            request = _read(ASKS, one.entry, one.fields.get(b"ask"), _REQUEST)
            if request is None or request.deadline <= now:
                self._remove(one.entry)
                continue
            with self._lock:
                self._entries[request.id] = one.entry
                self._taken.add(request.id)
            if one.lost >= MOST_TAKES:
                self.tell(request.id, Reply(n=1, done=True, error=GIVEN_UP, refused="failed"))
                self.done(request.id)
                continue
            taken.append(request)
        return taken

    def tell(self, ask_id: str, reply: Reply) -> None:
        key, number = replies_key(ask_id), _LAST if reply.done else reply.n
        text = _REPLY.dump_json(reply, exclude_none=True)

        def write() -> None:
            with self._redis.pipeline() as pipe:
                pipe.xadd(key, {"reply": text}, id=f"{number}-0")
                pipe.pexpire(key, round(KEPT_S * 1e3))
                try:
                    pipe.execute()
                except ResponseError as exc:
                    if "equal or smaller" not in str(exc):
                        raise

        self._calls("tell an answer", write)

    def hear(self, ask_id: str, *, after: int, block_s: float = 0.0) -> list[Reply]:
        key = replies_key(ask_id)
        block_ms = max(1, round(block_s * 1e3)) if block_s else None  # BLOCK 0 waits for ever
        answer = self._calls(
            "hear an answer", lambda: self._redis.xread({key: f"{after}-0"}, block=block_ms)
        )
        replies = []
        for entry, fields in _entries(answer):
            if reply := _read(key, entry, fields.get(b"reply"), _REPLY):
                replies.append(replace(reply, n=int(entry.partition(b"-")[0])))
        return replies

    def done(self, ask_id: str) -> None:
        with self._lock:
            entry = self._entries.pop(ask_id, None)
            self._taken.discard(ask_id)
        if entry is not None:
            self._remove(entry)

    def wanted(self, ask_ids: Sequence[str]) -> set[str]:
        with self._lock:
            entries = [(ask, self._entries[ask]) for ask in ask_ids if ask in self._entries]

        def read() -> list[Any]:
            with self._redis.pipeline(transaction=False) as pipe:
                for _, entry in entries:
                    pipe.xrange(ASKS, entry, entry)
                return list(pipe.execute())

        found = self._calls("look for questions", read) if entries else []
        return {ask for (ask, _), there in zip(entries, found, strict=True) if there}

    def _found(self, worker: str, count: int) -> list[_Found]:
        """Entries to be taken."""
        with self._lock:
            held = [self._entries[ask] for ask in self._taken]
        now = self._clock.monotonic()
        if held and now - self._signed_at >= SIGN_S:
            self._signed_at = now
            self._grouped(lambda: self._redis.xclaim(ASKS, GROUP, worker, 0, held, justid=True))
        if count < 1:
            return []
        fresh = self._grouped(
            lambda: self._redis.xreadgroup(GROUP, worker, {ASKS: ">"}, count=count)
        )
        new = [_Found(entry, fields, 0) for entry, fields in _entries(fresh)]
        if len(new) == count:
            return new
        claimed = self._redis.xautoclaim(
            ASKS, GROUP, worker, self._idle_ms, "0-0", count=count - len(new)
        )
        old = [(entry, fields or {}) for entry, fields in claimed[1] if entry is not None]
        return new + [_Found(entry, fields, self._lost(entry)) for entry, fields in old]

    def _lost(self, entry: bytes) -> int:
        pending = self._redis.xpending_range(ASKS, GROUP, entry, entry, 1)
        return int(pending[0]["times_delivered"]) - 1 if pending else 0

    def _grouped(self, command: Any) -> Any:
        """The command's answer; the group is made where there is none yet, or none any more."""
        try:
            return command()
        except ResponseError as exc:
            if "NOGROUP" not in str(exc):
                raise
        try:
            self._redis.xgroup_create(ASKS, GROUP, id="0", mkstream=True)
        except ResponseError as exc:
            if "BUSYGROUP" not in str(exc):
                raise
        return command()

    def _drop_late(self) -> int:
        """Removes those past their deadline; how many."""
        now, late = self._clock.now(), []
        for entry, fields in self._redis.xrange(ASKS):
            request = _read(ASKS, entry, fields.get(b"ask"), _REQUEST)
            if request is None or request.deadline <= now:
                late.append(entry)
        for entry in late:
            self._remove(entry)
        return len(late)

    def _remove(self, entry: bytes) -> None:
        def remove() -> None:
            with self._redis.pipeline() as pipe:
                pipe.xdel(ASKS, entry)
                pipe.xack(ASKS, GROUP, entry)
                pipe.execute()

        self._calls("end a question", remove)


def _entries(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """What XREAD and XREADGROUP answer for one stream, in RESP2 or RESP3."""
    if isinstance(answer, dict):
        return [entry for pages in answer.values() for entry in pages[0]]
    return [entry for _, page in answer or () for entry in page]


def _read(key: str, entry: bytes, text: bytes | None, adapter: TypeAdapter[T]) -> T | None:
    """None, and a word in the log, for what cannot be read: it must not stop everybody else."""
    try:
        return adapter.validate_json(text or b"")
    except ValidationError as exc:
        reason = exc.errors()[0]["msg"]
        log.warning("record_malformed", key=key, name=entry.decode(), reason=reason)
        return None
