"""The queue on Redis Streams (6.2 or newer).

Keys:
    streamer:jobs            set of job ids
    streamer:active          hash of the unfinished ones: job id → tenant
    streamer:{<job>}:job     hash, the job's record
    streamer:{<job>}:tokens  stream of token chunks, entry ids `<number>-0`
    streamer:{<job>}:events  stream of chunk events, entry ids `<number>-0`

Every command here may be repeated, so a lost connection (also: Redis killed and restarted) is
retried for a bounded time. A job is made and deleted in one transaction over its own keys and the
two indexes, so this is for one Redis server (with replicas), not for Redis Cluster.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import redis
from redis.exceptions import ResponseError

from streamer.adapters.clock import SYSTEM_CLOCK, Clock
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
from streamer.adapters.redis_calls import RETRY_FOR_S, RedisCalls
from streamer.adapters.redis_scripts import ENDS, OUTLINES
from streamer.errors import StreamGone, WriterReplaced

JOBS = "streamer:jobs"
ACTIVE = "streamer:active"


def job_key(job_id: str) -> str:
    return f"streamer:{{{check_job_id(job_id)}}}:job"


def stream_key(job_id: str, stream: Stream) -> str:
    return f"streamer:{{{check_job_id(job_id)}}}:{stream}"


class RedisQueue:
    """Queue on a Redis server; safe to share between threads.

    A call lasts at most `retry_for_s` plus one socket timeout.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        retry_for_s: float = RETRY_FOR_S,
        clock: Clock = SYSTEM_CLOCK,
        jitter: random.Random | None = None,
    ) -> None:
        self._redis: Any = client  # redis-py types its commands as sync or async at once
        self._calls = RedisCalls(client, retry_for_s=retry_for_s, clock=clock, jitter=jitter)
        self._script_ends: Any = client.register_script(ENDS)
        self._script_outlines: Any = client.register_script(OUTLINES)

    def create_job(
        self,
        job_id: str,
        record: Mapping[str, str],
        *,
        tenant: str = "local",
        room: Room | None = None,
    ) -> bool:
        check_record(record)
        key = job_key(job_id)

        def create() -> bool:
            with self._redis.pipeline() as pipe:
                pipe.watch(key, ACTIVE)
                if pipe.exists(key):
                    return False
                if room is not None:
                    check_room(room, _texts(pipe.hgetall(ACTIVE)), tenant)
                pipe.multi()
                pipe.hset(key, mapping=dict(record))
                for stream in (stream_key(job_id, "tokens"), stream_key(job_id, "events")):
                    pipe.xadd(stream, {"made": b""}, id="0-1")
                    pipe.xdel(stream, "0-1")
                pipe.sadd(JOBS, job_id)
                pipe.hset(ACTIVE, job_id, tenant)
                pipe.execute()
            return True

        return self._calls(f"create job {job_id}", create)

    def job(self, job_id: str) -> dict[str, str] | None:
        key = job_key(job_id)
        stored = self._calls(f"read job {job_id}", lambda: self._redis.hgetall(key))
        return _texts(stored) or None

    def records(self, job_ids: Iterable[str]) -> dict[str, dict[str, str]]:
        ids = list(job_ids)

        def read() -> list[Any]:
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in ids:
                    pipe.hgetall(job_key(job_id))
                return list(pipe.execute())

        found = self._calls("read jobs", read) if ids else []
        return {job_id: _texts(record) for job_id, record in zip(ids, found, strict=True) if record}

    def update_job(self, job_id: str, fields: Mapping[str, str]) -> bool:
        return self._update(job_id, fields, finished=False)

    def change_job(
        self, job_id: str, change: Callable[[dict[str, str]], Mapping[str, str]]
    ) -> bool:
        key = job_key(job_id)

        def update() -> bool:
            with self._redis.pipeline() as pipe:
                pipe.watch(key)
                record = _texts(pipe.hgetall(key))
                if not record:
                    return False
                fields = change(record)
                check_record(fields)
                pipe.multi()
                _set(pipe, key, fields)
                pipe.execute()
            return True

        return self._calls(f"change job {job_id}", update)

    def finish_job(self, job_id: str, fields: Mapping[str, str]) -> bool:
        return self._update(job_id, fields, finished=True)

    def _update(self, job_id: str, fields: Mapping[str, str], *, finished: bool) -> bool:
        check_record(fields)
        key = job_key(job_id)

        def update() -> bool:
            with self._redis.pipeline() as pipe:
                pipe.watch(key)  # a job deleted from here on makes EXEC refuse
                if not pipe.exists(key):
                    return False
                pipe.multi()
                _set(pipe, key, fields)
                if finished:
                    pipe.hdel(ACTIVE, job_id)
                pipe.execute()
            return True

        return self._calls(f"update job {job_id}", update)

    def active(self) -> dict[str, str]:
        return self._calls("list jobs", lambda: _texts(self._redis.hgetall(ACTIVE)))

    def delete_job(self, job_id: str) -> None:
        keys = [job_key(job_id), stream_key(job_id, "tokens"), stream_key(job_id, "events")]

        def delete() -> None:
            with self._redis.pipeline() as pipe:
                pipe.delete(*keys)
                pipe.srem(JOBS, job_id)
                pipe.hdel(ACTIVE, job_id)
                pipe.execute()

        self._calls(f"delete job {job_id}", delete)

    def jobs(self) -> list[str]:
        return self._calls(
            "list jobs", lambda: sorted(_text(name) for name in self._redis.smembers(JOBS))
        )

    def append(
        self, job_id: str, stream: Stream, number: int, fields: Mapping[str, bytes]
    ) -> Written:
        check_append(number, fields)
        key, entry_id = stream_key(job_id, stream), f"{number}-0"
        doing = f"append entry {number} to job {job_id} {stream}"

        def write() -> Written:
            try:
                written = self._redis.xadd(key, dict(fields), id=entry_id, nomkstream=True)
            except ResponseError as exc:
                if "equal or smaller" not in str(exc):
                    raise
            else:
                if written is None:
                    raise self._gone(job_id, stream)
                return "written"
            if self._redis.xrange(key, entry_id, entry_id):
                return "already"
            raise WriterReplaced(
                f"job {job_id} {stream}: entry {number} was refused, the stream has gone past it; "
                "another writer has taken over"
            )

        return self._calls(doing, write)

    def read(
        self, job_id: str, stream: Stream, *, after: int, count: int = 100, block_s: float = 0.0
    ) -> list[Entry]:
        check_read(count, block_s)
        key = stream_key(job_id, stream)
        block_ms = max(1, round(block_s * 1000)) if block_s else None  # BLOCK 0 waits for ever

        def read() -> Any:
            answer = self._redis.xread({key: f"{after}-0"}, count=count, block=block_ms)
            return _by_key(answer).get(key, [])

        return self._entries(job_id, stream, self._calls(f"read job {job_id} {stream}", read))

    def read_any(
        self, stream: Stream, after: Mapping[str, int], *, count: int = 1, block_s: float = 0.0
    ) -> dict[str, list[Entry]]:
        check_read(count, block_s)
        keys = {stream_key(job_id, stream): job_id for job_id in after}
        places = {key: f"{after[job_id]}-0" for key, job_id in keys.items()}
        block_ms = max(1, round(block_s * 1000)) if block_s else None
        if not places:
            return {}
        answer = self._calls(
            f"read {stream}", lambda: self._redis.xread(places, count=count, block=block_ms)
        )
        return {
            keys[key]: self._entries(keys[key], stream, found)
            for key, found in _by_key(answer).items()
        }

    def read_back(
        self, job_id: str, stream: Stream, *, before: int | None = None, count: int = 100
    ) -> list[Entry]:
        check_read(count)
        key = stream_key(job_id, stream)
        end = "+" if before is None else f"({max(before, 0)}-0"
        if before is not None and before < 1:
            return self._entries(job_id, stream, [])
        found = self._calls(
            f"read job {job_id} {stream}", lambda: self._redis.xrevrange(key, end, "-", count)
        )
        return self._entries(job_id, stream, found)

    def entry(self, job_id: str, stream: Stream, number: int) -> Entry | None:
        key, entry_id = stream_key(job_id, stream), f"{number}-0"
        found = self._calls(
            f"read job {job_id} {stream} entry {number}",
            lambda: self._redis.xrange(key, entry_id, entry_id),
        )
        return next(iter(self._entries(job_id, stream, found)), None)

    def outlines(
        self, job_id: str, stream: Stream, field: str, *, after: int, count: int = 64
    ) -> list[Outline]:
        check_read(count)
        key, name = stream_key(job_id, stream), f"job {job_id} {stream}"
        found = self._calls(
            f"outline job {job_id} {stream}",
            lambda: self._script_outlines(keys=[key], args=[field, f"{after}-0", count]),
        )
        if not found:
            self._check_there(job_id, stream)
        return [
            Outline(Entry(_number(entry_id), {} if value is None else {field: value}, name), size)
            for entry_id, size, value in found
        ]

    def first(self, job_id: str, stream: Stream) -> int:
        return self._ends(job_id, stream)[0]

    def last(self, job_id: str, stream: Stream) -> int:
        return self._ends(job_id, stream)[1]

    def length(self, job_id: str, stream: Stream) -> int:
        key = stream_key(job_id, stream)
        length = self._calls(f"measure job {job_id} {stream}", lambda: self._redis.xlen(key))
        if not length:
            self._check_there(job_id, stream)
        return int(length)

    def trim(self, job_id: str, stream: Stream, *, before: int) -> int:
        key = stream_key(job_id, stream)
        dropped = self._calls(
            f"trim job {job_id} {stream}",
            lambda: self._redis.xtrim(key, minid=f"{max(before, 0)}-0", approximate=False),
        )
        if not dropped:
            self._check_there(job_id, stream)
        return int(dropped)

    def _ends(self, job_id: str, stream: Stream) -> list[int]:
        """The first number kept, or 0, and the last one ever written."""
        key = stream_key(job_id, stream)

        def ends() -> Any:
            try:
                return self._script_ends(keys=[key])
            except ResponseError as exc:
                if "no such key" not in str(exc):
                    raise
            raise self._gone(job_id, stream)

        return [
            _number(entry_id) for entry_id in self._calls(f"inspect job {job_id} {stream}", ends)
        ]

    def _entries(self, job_id: str, stream: Stream, found: Sequence[Any] | None) -> list[Entry]:
        if not found:
            self._check_there(job_id, stream)
            return []
        name = f"job {job_id} {stream}"
        return [
            Entry(_number(entry_id), {_text(k): v for k, v in fields.items()}, name)
            for entry_id, fields in found
        ]

    def _check_there(self, job_id: str, stream: Stream) -> None:
        key = stream_key(job_id, stream)
        if not self._calls(f"find job {job_id} {stream}", lambda: self._redis.exists(key)):
            raise self._gone(job_id, stream)

    def _gone(self, job_id: str, stream: Stream) -> StreamGone:
        return StreamGone(
            f"job {job_id} {stream}: Redis at {self._calls.address} has no such stream; "
            "the job was deleted"
        )


def _set(pipe: Any, key: str, fields: Mapping[str, str]) -> None:
    """Sets fields, and removes those given as ""."""
    given = {name: value for name, value in fields.items() if value}
    removed = [name for name, value in fields.items() if not value]
    if given:
        pipe.hset(key, mapping=given)
    if removed:
        pipe.hdel(key, *removed)


def _number(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


def _by_key(answer: Any) -> dict[str, Any]:
    """What XREAD answers, in RESP2 or RESP3: entries by key."""
    if isinstance(answer, dict):
        return {_text(key): found[0] for key, found in answer.items()}
    return {_text(key): found for key, found in answer or ()}


def _texts(stored: Mapping[bytes, bytes]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in stored.items()}


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
