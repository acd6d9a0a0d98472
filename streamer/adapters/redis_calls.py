"""Commands to Redis that may be repeated: passing trouble is waited out, other errors explained."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import TypeVar

import redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    WatchError,
)

from streamer.adapters.clock import Clock
from streamer.adapters.redis_client import address
from streamer.errors import QueueError

RETRY_FOR_S = 30.0

_LOST = (ConnectionError, TimeoutError, ReadOnlyError, MasterDownError, WatchError)
_LOGIN = (AuthenticationError, AuthorizationError)  # kinds of ConnectionError
_BUSY = re.compile(r"(?:^|: )(?:MISCONF|BUSY|NOREPLICAS) ")
"""Refusals that pass: its disk is full, a script runs, its replicas are away."""
_FIRST_DELAY_S = 0.02
_LONGEST_DELAY_S = 1.0

T = TypeVar("T")


class RedisCalls:
    """Calls on one client, each repeated for at most `retry_for_s` while Redis is lost or full."""

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
        """The command's answer; it is repeated while Redis is lost, full or busy."""
        deadline = self._clock.monotonic() + self._retry_for_s
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                return command()
            except RedisError as exc:
                left_s = deadline - self._clock.monotonic()
                if left_s <= 0 or not _passes(exc):
                    raise QueueError(self._explained(doing, exc)) from exc
            self._clock.sleep(min(left_s, delay_s * self._jitter.uniform(0.5, 1.0)))
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    def _explained(self, doing: str, exc: RedisError) -> str:
        told = str(exc).rstrip(".")
        if isinstance(exc, _LOGIN):
            return (
                f"Redis at {self.address} refused the login ({doing}): {exc}; "
                "check user and password in the Redis URL"
            )
        if isinstance(exc, OutOfMemoryError):
            return (
                f"Redis at {self.address} is full and could not {doing} ({told}): "
                "raise its maxmemory or delete jobs"
            )
        tried = f"tried for {self._retry_for_s:g} s"
        if isinstance(exc, _LOST):
            return (
                f"Redis at {self.address} could not {doing}: {exc}; "
                f"{tried}, start it or correct the Redis URL"
            )
        if _passes(exc):
            return (
                f"Redis at {self.address} could not {doing}: {told}; "
                f"{tried}, see its log, and whether its disk is full"
            )
        return (
            f"Redis at {self.address} refused to {doing}: {exc}; "
            "it must be 6.2 or newer, writable, and its `streamer:` keys this project's own"
        )


def _passes(exc: RedisError) -> bool:
    """Whether the same command may be taken later."""
    if isinstance(exc, _LOGIN):
        return False
    return isinstance(exc, (*_LOST, OutOfMemoryError)) or bool(
        isinstance(exc, ResponseError) and _BUSY.search(str(exc))
    )
