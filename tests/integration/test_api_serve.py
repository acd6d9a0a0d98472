"""The API as a process: it says where it listens, refuses what is unsafe, and ends in time."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from streamer.adapters.redis_client import connect
from streamer.adapters.redis_queue import RedisQueue
from streamer.adapters.redis_server import EmbeddedRedis
from streamer.api.serve import listening, serve_api
from streamer.config import Settings
from streamer.errors import ConfigError
from tests.integration.api_running import WAIT_S, Stream, running, settings_for, until
from tests.unit.streamer.api_jobs import ALICE, URL, make_job

SERVE = """
import functools, signal, structlog, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where who started us ignores it
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
from streamer.api.serve import serve_api
from streamer.config import load
serve_api(load(), started=functools.partial(print, flush=True))
"""


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@contextmanager
def process(redis_url: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """An API in a process of its own, and its URL."""
    child = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        env={
            **os.environ,
            "STREAMER__QUEUE__URL": redis_url,
            "STREAMER__API__PORT": "0",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout
        yield child, child.stdout.readline().strip()
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_open_streams_do_not_delay_the_end(redis_server: EmbeddedRedis, how: int) -> None:
    with connect(redis_server.url) as client:
        client.flushall()
        make_job(RedisQueue(client))
    with process(redis_server.url) as (child, url):
        stuck = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
        with Stream(url, "cam") as stream, stuck:
            stuck.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\n")  # and no more
            assert next(iter(stream)).event == "state"
            begun = time.monotonic()
            child.send_signal(how)
            assert list(stream) == []
            _, errors = child.communicate(timeout=10)
            assert time.monotonic() - begun < 3
        assert child.returncode in (-how, 1)
        assert "Traceback" not in errors or how == signal.SIGINT  # Python's own for Ctrl-C


def test_two_processes_serve_the_same_jobs(redis_server: EmbeddedRedis) -> None:
    with process(redis_server.url) as (_, one), process(redis_server.url) as (_, other):
        made = httpx.post(f"{one}/v1/jobs", json={"source": {"url": URL}})
        assert httpx.get(f"{other}{made.headers['location']}").json() == made.json()
        assert httpx.delete(f"{other}{made.headers['location']}").status_code == 204
        assert httpx.get(f"{one}{made.headers['location']}").status_code == 404


def test_what_is_reached_from_elsewhere_needs_tokens(redis_server: EmbeddedRedis) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5"):
        with pytest.raises(ConfigError, match=r"api\.host: .* api\.tokens"):
            serve_api(settings_for(redis_server.url, host=host))
    tokens = [{"name": "alice", "token": ALICE}]
    with running(settings_for(redis_server.url, host="0.0.0.0", tokens=tokens)) as api:
        url = api.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/v1/jobs").status_code == 401
        headers = {"Authorization": f"Bearer {ALICE}"}
        assert httpx.get(f"{url}/v1/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "queue.url"),
        ({"api": {"host": "192.0.2.1", "tokens": [{"name": "a", "token": "x" * 16}]}}, "listen on"),
    ],
)
def test_settings_that_cannot_be_are_named(
    redis_server: EmbeddedRedis, settings: dict[str, Any], said: str
) -> None:
    given = settings and {"queue": {"url": redis_server.url}, "api": {"port": 0}} | settings
    with pytest.raises(ConfigError, match=said):
        serve_api(Settings(**given))


def test_a_port_that_is_taken_is_named(redis_server: EmbeddedRedis) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"api.port: .*127.0.0.1:{port} .*in use"):
            serve_api(settings_for(redis_server.url, port=port))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_every_kind_of_loopback(redis_server: EmbeddedRedis, host: str) -> None:
    if host == "::1" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    with listening(settings_for(redis_server.url, host=host)) as server:
        assert host in server.url


def test_many_submit_at_the_same_time(redis_server: EmbeddedRedis) -> None:
    with connect(redis_server.url) as client:
        client.flushall()
    with running(settings_for(redis_server.url)) as api, ThreadPoolExecutor(12) as pool:

        def submit(key: str) -> int:
            body = {"source": {"url": URL}}
            headers = {"Idempotency-Key": key}
            return httpx.post(
                f"{api.url}/v1/jobs", json=body, headers=headers, timeout=WAIT_S
            ).status_code

        answers = list(pool.map(submit, [f"key-{n % 12}" for n in range(36)]))
        assert sorted(answers) == [200] * 24 + [201] * 12
        answers = list(pool.map(submit, [f"more-{n}" for n in range(8)]))
        assert sorted(answers) == [201] * 4 + [429] * 4  # 16 fit


def test_a_redis_that_hangs_does_not_hang_the_process(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path) as server,
        running(settings_for(server.url)) as api,
        ThreadPoolExecutor(60) as pool,
    ):
        assert httpx.get(f"{api.url}/readyz").status_code == 200
        os.kill(server.pid, signal.SIGSTOP)
        try:
            asked = [pool.submit(httpx.get, f"{api.url}/v1/jobs", timeout=60) for _ in range(60)]
            until(lambda: len(api.server_state.tasks) > 45)  # more than there are threads
            assert httpx.get(f"{api.url}/healthz").status_code == 200
            assert httpx.get(f"{api.url}/readyz").status_code == 503
            assert not all(answer.done() for answer in asked)  # which still wait
            assert {answer.result(60).status_code for answer in asked} == {503}
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert httpx.get(f"{api.url}/v1/jobs").status_code == 200
