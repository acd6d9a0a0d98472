"""The roster in Redis (6.2 or newer).

Keys:
    streamer:workers     hash, name → report
    streamer:placements  hash, job id → placement
    streamer:sizes       hash, kind → size
    streamer:published   hash, name → text

Values are JSON. Readers ignore fields they do not know and give absent ones their default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import redis
import structlog
from pydantic import TypeAdapter, ValidationError

from streamer.adapters.clock import SYSTEM_CLOCK, Clock
from streamer.adapters.redis_calls import RETRY_FOR_S, RedisCalls
from streamer.workers import KINDS, Placement, Size, WorkerKind, WorkerReport

WORKERS = "streamer:workers"
PLACEMENTS = "streamer:placements"
SIZES = "streamer:sizes"
PUBLISHED = "streamer:published"

_REPORT = TypeAdapter(WorkerReport)
_PLACEMENT = TypeAdapter(Placement)
_SIZE = TypeAdapter(Size)

T = TypeVar("T")

log = structlog.get_logger(__name__)


class RedisRoster:
    """Roster on a Redis server; safe to share between threads."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        retry_for_s: float = RETRY_FOR_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._redis: Any = client  # redis-py types its commands as sync or async at once
        self._calls = RedisCalls(client, retry_for_s=retry_for_s, clock=clock)

    def report(self, report: WorkerReport) -> None:
        text = _REPORT.dump_json(report)
        self._calls("report a worker", lambda: self._redis.hset(WORKERS, report.name, text))

    def reports(self) -> dict[str, WorkerReport]:
        return self._all(WORKERS, _REPORT)

    def forget(self, name: str) -> None:
        self._calls("forget a worker", lambda: self._redis.hdel(WORKERS, name))

    def placements(self) -> dict[str, Placement]:
        return self._all(PLACEMENTS, _PLACEMENT)

    def place(self, changes: Mapping[str, Placement | None]) -> None:
        if not changes:
            return

        def write() -> None:
            with self._redis.pipeline() as pipe:
                for job_id, placement in changes.items():
                    if placement is None:
                        pipe.hdel(PLACEMENTS, job_id)
                    else:
                        pipe.hset(PLACEMENTS, job_id, _PLACEMENT.dump_json(placement))
                pipe.execute()

        self._calls("place jobs", write)

    def sizes(self) -> dict[WorkerKind, Size]:
        found = self._all(SIZES, _SIZE)
        return {kind: found[kind] for kind in KINDS if kind in found}

    def resize(self, sizes: Mapping[WorkerKind, Size]) -> None:
        if sizes:
            texts = {kind: _SIZE.dump_json(size) for kind, size in sizes.items()}
            self._calls("resize pools", lambda: self._redis.hset(SIZES, mapping=texts))

    def publish(self, name: str, text: str) -> None:
        self._calls(f"publish {name}", lambda: self._redis.hset(PUBLISHED, name, text))

    def published(self, name: str) -> str | None:
        text = self._calls(f"read {name}", lambda: self._redis.hget(PUBLISHED, name))
        return None if text is None else text.decode()

    def _all(self, key: str, adapter: TypeAdapter[T]) -> dict[str, T]:
        found = self._calls(f"read {key}", lambda: self._redis.hgetall(key))
        read = {name.decode(): _read(key, name, text, adapter) for name, text in found.items()}
        return {name: value for name, value in read.items() if value is not None}


def _read(key: str, name: bytes, text: bytes, adapter: TypeAdapter[T]) -> T | None:
    """None, and a word in the log, for what cannot be read: it must not stop everybody else."""
    try:
        return adapter.validate_json(text)
    except ValidationError as exc:
        reason = exc.errors()[0]["msg"]
        log.warning("record_malformed", key=key, name=name.decode(), reason=reason)
        return None
