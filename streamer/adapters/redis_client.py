"""How this project connects to Redis: one factory, every choice written down."""

from __future__ import annotations

import contextlib
from typing import Literal

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from streamer.adapters.queue import MAX_BLOCK_S
from streamer.errors import ConfigError

_FROM_URL = {"host", "port", "db", "username", "password", "connection_class"}


def connect(
    url: str,
    *,
    protocol: Literal[2, 3] = 2,
    block_s: float = MAX_BLOCK_S,
    timeout_s: float = 5.0,
    max_connections: int = 256,
) -> redis.Redis:
    """A client for a `redis://` or `rediss://` URL; it connects at the first command.

    RESP2 unless told otherwise: one shape of answers on every server since 6.2, and no push
    messages. An answer may take `timeout_s`, and `block_s` more where the command waits. The client
    never retries by itself: RedisQueue knows what may be repeated, and for how long.
    """
    options = None
    if url.startswith(("redis://", "rediss://")):
        with contextlib.suppress(ValueError):  # its text may hold a part of the password
            options = parse_url(url)  # type: ignore[no-untyped-call]  # redis-py
    if options is None:
        raise ConfigError(
            "the Redis URL cannot be read; it looks like redis://[user:password@]host:port/db, "
            "with special characters of the password percent-encoded"
        )
    unknown = sorted(name for name in options if name not in _FROM_URL and name[:4] != "ssl_")
    if unknown:
        raise ConfigError(f"the Redis URL has options that are not its own: {', '.join(unknown)}")
    pool = redis.ConnectionPool(
        **options,
        protocol=protocol,
        decode_responses=False,
        socket_connect_timeout=timeout_s,
        socket_timeout=block_s + timeout_s,
        socket_keepalive=True,
        health_check_interval=0,  # a full disk makes Redis refuse even PING, but not to be read
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        max_connections=max_connections,
    )
    return redis.Redis(connection_pool=pool)


def address(client: redis.Redis) -> str:
    """Where the client connects to, without user or password."""
    options = client.connection_pool.connection_kwargs
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
