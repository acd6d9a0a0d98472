"""The whole service on this machine: Redis, the Ray side and the API, kept running."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import httpx

from streamer.adapters.child import Child
from streamer.adapters.clock import SYSTEM_CLOCK
from streamer.adapters.redis_server import EmbeddedRedis
from streamer.config import PREFIX, ApiSettings, Settings
from streamer.errors import ConfigError, StreamerError
from streamer.supervisor import ASK_S, Supervisor, Watched

ANSWER_S = 2.0
"""Longest wait for an answer of the API to a question of ours."""
WORKER_END_S = 20.0
"""For the Ray side to end its workers."""


def serve(settings: Settings, config: Path | None, *, ready: Callable[[str], None]) -> None:
    """Runs the service until a signal to end.

    config: the file that the settings come from; the processes read it themselves.
    ready: is called once with the service's address, when it takes jobs.

    Raises StreamerError for what a user can mend, e.g. a port that is taken.
    """
    port = _port(settings.api)
    address = _address(settings.api.host, port)
    server: EmbeddedRedis | None = None
    if settings.queue.url is None:
        queue = settings.queue
        server = EmbeddedRedis(queue.folder.expanduser(), port=queue.port, server=queue.server)

    def process(command: str) -> Child:
        given = {
            "QUEUE__URL": settings.queue.url if server is None else server.url,
            "RAY__ADDRESS": settings.ray.address,
            "API__HOST": settings.api.host,
            "API__PORT": str(port),
        }
        file = [] if config is None else ["--config", str(config)]
        try:
            return Child(
                [sys.executable, "-P", "-m", "streamer", command, *file],
                {f"{PREFIX}{name}": value for name, value in given.items() if value is not None},
            )
        except OSError as exc:
            raise StreamerError(f"no process for the {command}: {exc}") from exc

    with httpx.Client(
        base_url=address, timeout=ANSWER_S, trust_env=False, headers={"Connection": "close"}
    ) as http:
        redis = () if server is None else (_redis(server),)
        supervisor = Supervisor(
            [
                *redis,
                Watched(name="worker", start=lambda: process("worker"), end_s=WORKER_END_S),
                Watched(
                    name="api",
                    start=lambda: process("api"),
                    answers=lambda: _answers(http, "/healthz"),
                ),
            ]
        )
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: supervisor.stop())
        supervisor.run(_Announcement(http, lambda: ready(address)))


class _Announcement:
    """Asks the API once a second whether jobs are taken, and says it once."""

    def __init__(self, http: httpx.Client, say: Callable[[], None]) -> None:
        self.http = http
        self.say = say
        self.next_at: float | None = 0.0

    def __call__(self) -> None:
        now = SYSTEM_CLOCK.monotonic()
        if self.next_at is None or now < self.next_at:
            return
        self.next_at = now + ASK_S
        if _answers(self.http, "/readyz"):
            self.next_at = None
            self.say()


class _Redis:
    """The embedded server, as a process under the supervisor."""

    def __init__(self, server: EmbeddedRedis) -> None:
        self.server = server
        server.restart()
        self.pid = server.pid

    def poll(self) -> int | None:
        return None if self.server.running else -1

    def terminate(self) -> None:
        self.server.close()

    def kill(self) -> None:
        self.server.close()

    def said(self) -> str | None:
        return f"its log is {self.server.log_path}"


def _redis(server: EmbeddedRedis) -> Watched:
    return Watched(name="redis", start=lambda: _Redis(server))


def _answers(http: httpx.Client, path: str) -> bool:
    try:
        return http.get(path).is_success
    except httpx.RequestError:
        return False


def _port(api: ApiSettings) -> int:
    """The port to listen on; for 0, one that is free. Raises ConfigError where it is taken."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            api.host.strip("[]"), api.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            port: int = probe.getsockname()[1]
            return port
    except (OSError, UnicodeError) as exc:
        raise ConfigError(
            f"api: port {api.port} of {api.host} cannot be had: {exc}; "
            "stop what listens there, or give another --port or --host"
        ) from exc


def _address(host: str, port: int) -> str:
    """Where this machine finds what listens there."""
    name = host.strip("[]")
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)
    return f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"
