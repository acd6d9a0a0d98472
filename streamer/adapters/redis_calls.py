"""Commands to Redis that may be repeated: a lost connection is waited out, others explained."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

import redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
    WatchError,
)

from streamer.adapters.clock import Clock
from streamer.adapters.redis_client import address
from streamer.errors import QueueError

RETRY_FOR_S = 30.0

_LOST = (ConnectionError, TimeoutError, ReadOnlyError, WatchError)
_FIRST_DELAY_S = 0.02
_LONGEST_DELAY_S = 1.0

T = TypeVar("T")


class RedisCalls:
    """Calls on one client, each repeated for at most `retry_for_s` while the connection is lost."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        retry_for_s: float,
        clock: Clock,
        jitter: random.Random | None = None,
    ) -> None:
        self.address = address(client)
        self._retry_for_s = retry_for_s
        self._clock = clock
        self._jitter = jitter or random.Random()

    def __call__(self, doing: str, command: Callable[[], T]) -> T:
        """The command's answer; it is repeated while the connection is lost."""
        deadline = self._clock.monotonic() + self._retry_for_s
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                return command()
            except (AuthenticationError, AuthorizationError) as exc:
                raise QueueError(
                    f"Redis at {self.address} refused the login ({doing}): {exc}; "
                    "check user and password in the Redis URL"
                ) from exc
            except _LOST as exc:
                left_s = deadline - self._clock.monotonic()
                if left_s <= 0:
                    raise QueueError(
                        f"Redis at {self.address} could not {doing}: {exc}; "
                        f"tried for {self._retry_for_s:g} s, start it or correct the Redis URL"
                    ) from exc
            except OutOfMemoryError as exc:
                raise QueueError(
                    f"Redis at {self.address} is full and could not {doing} "
                    f"({str(exc).rstrip('.')}): raise its maxmemory or delete jobs"
                ) from exc
            except RedisError as exc:
                raise QueueError(
                    f"Redis at {self.address} refused to {doing}: {exc}; "
                    "it must be 6.2 or newer, writable, and its `streamer:` keys this project's own"
                ) from exc
            self._clock.sleep(min(left_s, delay_s * self._jitter.uniform(0.5, 1.0)))
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
