"""A service: `serve` runs all of it on one machine, `worker` and `api` one side each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from streamer.commands.ending import one_sentence
from streamer.commands.options import Config, overrides
from streamer.config import Settings, load
from streamer.errors import ConfigError
from streamer.log import configure
from streamer.screen import errors

Host = Annotated[str | None, typer.Option("--host", help="Address the API listens on.")]
Port = Annotated[int | None, typer.Option("--port", help="Port the API listens on.")]
RAY = "Running Ray cluster to join, HOST:PORT or auto; without it Ray is started here."


def serve(
    config: Config = None,
    host: Host = None,
    port: Port = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder in which the embedded Redis keeps the jobs.")
    ] = None,
    ray_address: Annotated[str | None, typer.Option(help=RAY)] = None,
) -> None:
    """Run the whole service on this machine: Redis, workers and API.

    Prints its address on stdout when it takes jobs. A part that dies is started again.

    Where queue.url is set, that Redis is used. Ctrl-C ends all; jobs go on when it runs again.

    Example: streamer serve --port 8000 --data ./data
    """
    with one_sentence():
        settings = _settings(
            config,
            {
                "api.host": host,
                "api.port": port,
                "queue.folder": data,
                "ray.address": ray_address,
            },
        )
        from streamer import service

        errors.print("streamer: starting; the first time takes a minute or so")
        service.serve(settings, config, ready=typer.echo)


def worker(
    config: Config = None,
    address: Annotated[str | None, typer.Option(help=RAY)] = None,
) -> None:
    """Run the side of the service that decodes, tokenizes and captions: Ray and its workers.

    Needs queue.url, the Redis that it shares with the API.

    Example: STREAMER__QUEUE__URL=redis://10.0.0.5:6379/0 streamer worker --address auto
    """
    with one_sentence():
        settings = _settings(config, {"ray.address": address})
        _needs_queue(settings, "worker side")
        from streamer.actors.keeper import keep

        keep(settings)


def api(config: Config = None, host: Host = None, port: Port = None) -> None:
    """Run the side of the service that answers HTTP. It may be started several times.

    Needs queue.url, the Redis that it shares with the workers.

    Example: STREAMER__QUEUE__URL=redis://10.0.0.5:6379/0 streamer api --port 8000
    """
    with one_sentence():
        settings = _settings(config, {"api.host": host, "api.port": port})
        _needs_queue(settings, "API")
        from streamer.api.serve import serve_api

        serve_api(settings)


def _settings(config: Path | None, given: dict[str, Any]) -> Settings:
    settings = load(config, overrides(given))
    configure(settings.log)
    return settings


def _needs_queue(settings: Settings, who: str) -> None:
    if settings.queue.url is None:
        raise ConfigError(
            f"queue.url: the {who} needs the Redis that both sides share, e.g. "
            "STREAMER__QUEUE__URL=redis://127.0.0.1:6379/0; `streamer serve` brings its own"
        )
