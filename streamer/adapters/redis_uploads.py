"""Uploads in Redis (6.2 or newer).

Keys:
    streamer:upload:<id>  hash, "0", "1" … → a piece each, "pieces" → how many; expires by itself
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import redis

from streamer.adapters.clock import SYSTEM_CLOCK, Clock
from streamer.adapters.redis_calls import RETRY_FOR_S, RedisCalls
from streamer.adapters.uploads import PIECE, gone, new_id

PREFIX = "streamer:upload:"


class RedisUploads:
    """Uploads on a Redis server; safe to share between threads."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        retry_for_s: float = RETRY_FOR_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._redis: Any = client  # redis-py types its commands as sync or async at once
        self._calls = RedisCalls(client, retry_for_s=retry_for_s, clock=clock)

    def put(self, content: bytes, *, keep_s: float) -> str:
        made = new_id()
        starts = range(0, len(content), PIECE)
        for n, start in enumerate(starts):
            self._calls(
                "keep an upload", self._set(made, n, content[start : start + PIECE], keep_s)
            )
        self._calls("keep an upload", self._set(made, "pieces", len(starts), keep_s))
        return made

    def open(self, upload_id: str) -> Iterator[bytes]:
        pieces = self._get(upload_id, "pieces")
        for n in range(int(pieces)):
            yield self._get(upload_id, n)

    def drop(self, upload_id: str) -> None:
        self._calls("forget an upload", lambda: self._redis.unlink(PREFIX + upload_id))

    def _set(self, upload_id: str, name: object, value: object, keep_s: float) -> Callable[[], Any]:
        """A field, and with it the time that is left: no upload stays for ever."""

        def write() -> Any:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(PREFIX + upload_id, str(name), value)
                pipe.pexpire(PREFIX + upload_id, round(keep_s * 1000))
                return pipe.execute()

        return write

    def _get(self, upload_id: str, name: object) -> bytes:
        found: bytes | None = self._calls(
            "read an upload", lambda: self._redis.hget(PREFIX + upload_id, str(name))
        )
        if found is None:
            raise gone(upload_id)
        return found
