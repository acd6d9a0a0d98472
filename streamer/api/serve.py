"""The API as a process: settings become a server that listens until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import structlog
import uvicorn

from streamer.adapters.redis_asks import RedisAsks
from streamer.adapters.redis_client import connect
from streamer.adapters.redis_queue import RedisQueue
from streamer.adapters.redis_roster import RedisRoster
from streamer.adapters.redis_uploads import RedisUploads
from streamer.api.app import create_app
from streamer.api.local_only import is_loopback
from streamer.api.service import Service
from streamer.api.tail import BLOCK_S
from streamer.archive import Archive
from streamer.config import Settings
from streamer.errors import ConfigError

RETRY_FOR_S = 2.0
"""How long a request waits for a lost Redis before it is refused."""
CLOSE_S = 2
"""How long answers may take to end at a shutdown."""

log = structlog.get_logger(__name__)


def serve_api(settings: Settings, *, started: Callable[[str], None] | None = None) -> None:
    """Serves until SIGINT or SIGTERM, which is raised again when everything is closed.

    started: is called with the service's URL when it listens.
    Raises ConfigError for an address that is taken, for one that others reach when there are no
    tokens, and for settings without a Redis.
    """
    with listening(settings) as server:
        log.info("api_started", url=server.url)
        if started is not None:
            started(server.url)
        server.run()


class ApiServer(uvicorn.Server):
    """Listens from its beginning, answers while it runs."""

    def __init__(self, config: uvicorn.Config, service: Service, listener: socket.socket) -> None:
        super().__init__(config)
        self.service = service
        self.url = _url(service.settings.api.host, listener.getsockname()[1])
        self._listener = listener

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        super().run(sockets or [self._listener])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.service.tail.close()  # event streams would never end by themselves
        await super().shutdown(sockets)


@contextmanager
def listening(settings: Settings) -> Iterator[ApiServer]:
    """A server that listens; raises ConfigError as serve_api."""
    api = settings.api
    if settings.queue.url is None:
        raise ConfigError("queue.url: the API needs the URL of a Redis, e.g. redis://host:6379/0")
    if not is_loopback(api.host) and not api.tokens:
        raise ConfigError(
            f"api.host: {api.host} is reached from other machines, and api.tokens has none: "
            "set a token, or host 127.0.0.1"
        )
    archive = settings.retention.archive
    client = connect(settings.queue.url, block_s=BLOCK_S, timeout_s=RETRY_FOR_S)
    with closing(client), closing(_listen(api.host, api.port)) as listener:
        app = create_app(
            settings,
            RedisQueue(client, retry_for_s=RETRY_FOR_S),
            RedisRoster(client, retry_for_s=RETRY_FOR_S),
            asks=RedisAsks(client, retry_for_s=RETRY_FOR_S),
            uploads=RedisUploads(client, retry_for_s=RETRY_FOR_S),
            archive=None if archive is None else Archive(archive),
        )
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="critical",  # what goes wrong is in our own log
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=CLOSE_S,
        )
        yield ApiServer(config, app.state.service, listener)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=1024)
    except OSError as exc:
        raise ConfigError(
            f"api.host, api.port: cannot listen on {host}:{port} ({exc.strerror}); choose another"
        ) from exc


def _url(host: str, port: int) -> str:
    name = host.strip("[]")
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
