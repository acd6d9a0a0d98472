"""The queue on Redis Streams (6.2 or newer).

Keys. The braces are a hash tag: a cluster keeps all of one job in one slot.
    streamer:jobs            set of job ids
    streamer:{<job>}:job     hash, the job's record
    streamer:{<job>}:tokens  stream of token chunks, entry ids `<number>-0`
    streamer:{<job>}:events  stream of chunk events, entry ids `<number>-0`

Every command here may be repeated, so a lost connection (also: Redis killed and restarted) is
retried for a bounded time. The hash is the truth about a job; the set only finds it, and may hold
names of jobs that a crash left half made or half deleted.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    WatchError,
)

from streamer.adapters.clock import SYSTEM_CLOCK, Clock
from streamer.adapters.queue import (
    Entry,
    Stream,
    Written,
    check_append,
    check_job_id,
    check_read,
    check_record,
)
from streamer.adapters.redis_client import address
from streamer.errors import QueueError, StreamGone, WriterReplaced

JOBS = "streamer:jobs"

_LOST = (ConnectionError, TimeoutError, ReadOnlyError, WatchError)
_FIRST_DELAY_S = 0.02
_LONGEST_DELAY_S = 1.0

T = TypeVar("T")


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
        retry_for_s: float = 30.0,
        clock: Clock = SYSTEM_CLOCK,
        jitter: random.Random | None = None,
    ) -> None:
        self._redis: Any = client  # redis-py types its commands as sync or async at once
        self._address = address(client)
        self._retry_for_s = retry_for_s
        self._clock = clock
        self._jitter = jitter or random.Random()

    def create_job(self, job_id: str, record: Mapping[str, str]) -> bool:
        check_record(record)
        key = job_key(job_id)

        def create() -> bool:
            with self._redis.pipeline() as pipe:
                pipe.watch(key)
                if pipe.exists(key):
                    return False
                pipe.multi()
                pipe.hset(key, mapping=dict(record))
                for stream in (stream_key(job_id, "tokens"), stream_key(job_id, "events")):
                    pipe.xadd(stream, {"made": b""}, id="0-1")
                    pipe.xdel(stream, "0-1")
                pipe.execute()
            return True

        doing = f"create job {job_id}"
        # before: a crash must not leave a job that `jobs` cannot find; after: see delete_job
        self._call(doing, lambda: self._redis.sadd(JOBS, job_id))
        made = self._call(doing, create)
        self._call(doing, lambda: self._redis.sadd(JOBS, job_id))
        return made

    def job(self, job_id: str) -> dict[str, str] | None:
        key = job_key(job_id)
        stored = self._call(f"read job {job_id}", lambda: self._redis.hgetall(key))
        return {_text(name): _text(value) for name, value in stored.items()} or None

    def update_job(self, job_id: str, fields: Mapping[str, str]) -> bool:
        check_record(fields)
        key = job_key(job_id)

        def update() -> bool:
            with self._redis.pipeline() as pipe:
                pipe.watch(key)  # a job deleted from here on makes EXEC refuse
                if not pipe.exists(key):
                    return False
                pipe.multi()
                pipe.hset(key, mapping=dict(fields))
                pipe.execute()
            return True

        return self._call(f"update job {job_id}", update)

    def delete_job(self, job_id: str) -> None:
        keys = [job_key(job_id), stream_key(job_id, "tokens"), stream_key(job_id, "events")]

        def delete() -> None:
            self._redis.delete(*keys)
            self._redis.srem(JOBS, job_id)
            if self._redis.exists(keys[0]):  # made anew in between
                self._redis.sadd(JOBS, job_id)

        self._call(f"delete job {job_id}", delete)

    def jobs(self) -> list[str]:
        def there() -> list[str]:
            ids = sorted(_text(name) for name in self._redis.smembers(JOBS))
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in ids:
                    pipe.exists(job_key(job_id))
                return [name for name, exists in zip(ids, pipe.execute(), strict=True) if exists]

        return self._call("list jobs", there)

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

        return self._call(doing, write)

    def read(
        self, job_id: str, stream: Stream, *, after: int, count: int = 100, block_s: float = 0.0
    ) -> list[Entry]:
        check_read(count, block_s)
        key = stream_key(job_id, stream)
        block_ms = max(1, round(block_s * 1000)) if block_s else None  # BLOCK 0 waits for ever

        def read() -> Any:
            answer = self._redis.xread({key: f"{after}-0"}, count=count, block=block_ms)
            if isinstance(answer, dict):  # RESP3
                return answer[key.encode()][0] if answer else []
            return answer[0][1] if answer else []

        return self._entries(job_id, stream, self._call(f"read job {job_id} {stream}", read))

    def read_back(
        self, job_id: str, stream: Stream, *, before: int | None = None, count: int = 100
    ) -> list[Entry]:
        check_read(count)
        key = stream_key(job_id, stream)
        end = "+" if before is None else f"({max(before, 0)}-0"
        if before is not None and before < 1:
            return self._entries(job_id, stream, [])
        found = self._call(
            f"read job {job_id} {stream}", lambda: self._redis.xrevrange(key, end, "-", count)
        )
        return self._entries(job_id, stream, found)

    def entry(self, job_id: str, stream: Stream, number: int) -> Entry | None:
        key, entry_id = stream_key(job_id, stream), f"{number}-0"
        found = self._call(
            f"read job {job_id} {stream} entry {number}",
            lambda: self._redis.xrange(key, entry_id, entry_id),
        )
        return next(iter(self._entries(job_id, stream, found)), None)

    def first(self, job_id: str, stream: Stream) -> int:
        entry = self._info(job_id, stream)["first-entry"]
        return _number(entry[0]) if entry else 0

    def last(self, job_id: str, stream: Stream) -> int:
        return _number(self._info(job_id, stream)["last-generated-id"])

    def length(self, job_id: str, stream: Stream) -> int:
        key = stream_key(job_id, stream)
        length = self._call(f"measure job {job_id} {stream}", lambda: self._redis.xlen(key))
        if not length:
            self._check_there(job_id, stream)
        return int(length)

    def trim(self, job_id: str, stream: Stream, *, before: int) -> int:
        key = stream_key(job_id, stream)
        dropped = self._call(
            f"trim job {job_id} {stream}",
            lambda: self._redis.xtrim(key, minid=f"{max(before, 0)}-0", approximate=False),
        )
        if not dropped:
            self._check_there(job_id, stream)
        return int(dropped)

    def _info(self, job_id: str, stream: Stream) -> Any:
        key = stream_key(job_id, stream)

        def info() -> Any:
            try:
                return self._redis.xinfo_stream(key)
            except ResponseError as exc:
                if "no such key" not in str(exc):
                    raise
            raise self._gone(job_id, stream)

        return self._call(f"inspect job {job_id} {stream}", info)

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
        if not self._call(f"find job {job_id} {stream}", lambda: self._redis.exists(key)):
            raise self._gone(job_id, stream)

    def _gone(self, job_id: str, stream: Stream) -> StreamGone:
        return StreamGone(
            f"job {job_id} {stream}: Redis at {self._address} has no such stream; "
            "the job was deleted"
        )

    def _call(self, doing: str, command: Callable[[], T]) -> T:
        """The command's answer; it is repeated while the connection is lost."""
        deadline = self._clock.monotonic() + self._retry_for_s
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                return command()
            except (AuthenticationError, AuthorizationError) as exc:
                raise QueueError(
                    f"Redis at {self._address} refused the login ({doing}): {exc}; "
                    "check user and password in the Redis URL"
                ) from exc
            except _LOST as exc:
                left_s = deadline - self._clock.monotonic()
                if left_s <= 0:
                    raise QueueError(
                        f"Redis at {self._address} could not {doing}: {exc}; "
                        f"tried for {self._retry_for_s:g} s, start it or correct the Redis URL"
                    ) from exc
            except OutOfMemoryError as exc:
                raise QueueError(
                    f"Redis at {self._address} is full and could not {doing} "
                    f"({str(exc).rstrip('.')}): raise its maxmemory or delete jobs"
                ) from exc
            except RedisError as exc:
                raise QueueError(
                    f"Redis at {self._address} refused to {doing}: {exc}; "
                    "it must be 6.2 or newer, writable, and its `streamer:` keys this project's own"
                ) from exc
            self._clock.sleep(min(left_s, delay_s * self._jitter.uniform(0.5, 1.0)))
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)


def _number(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
