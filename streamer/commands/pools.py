"""Workers of a running service: how many there are, and what they do."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from streamer.commands.connection import Token, Url, connect
from streamer.commands.ending import one_sentence
from streamer.errors import ConfigError, ServiceError
from streamer.workers import KINDS

REFRESH_S = 1.0


def scale(
    sizes: Annotated[
        list[str],
        typer.Argument(metavar="POOL=N", help="decode, tokenize or caption; N, or MIN-MAX."),
    ],
    url: Url = None,
    token: Token = None,
) -> None:
    """Set how many workers a pool has, or between what bounds it follows its backlog.

    Example: streamer scale tokenize=2 caption=1-4
    """
    with one_sentence():
        wanted: dict[str, int | tuple[int, int]] = {}
        for pool, size in map(_size, sizes):
            if pool in wanted:
                raise ConfigError(f"{pool} is given twice; say it once, e.g. {pool}=2")
            wanted[pool] = size
        with connect(url, token) as service:
            service.scale(**wanted)
    for pool, size in wanted.items():
        typer.echo(f"{pool} {size}" if isinstance(size, int) else f"{pool} {size[0]} to {size[1]}")


def status(
    once: Annotated[bool, typer.Option("--once", help="Print it once, not live.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="The pools as one JSON object on stdout, once.")
    ] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show the pools, their workers and the jobs that run; live on a terminal.

    Example: streamer status --once
    """
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from streamer.adapters.clock import SYSTEM_CLOCK
    from streamer.tables import overview, paper
    from streamer.views import to_json_line

    with one_sentence(), connect(url, token) as service:
        if json:
            typer.echo(to_json_line(service.status()))
            return
        shown, console = overview(service.status(), list(service.jobs("running"))), paper()
        if once or not console.is_terminal:
            console.print(shown)
            return
        with Live(shown, console=console, auto_refresh=False) as live:
            while True:
                SYSTEM_CLOCK.sleep(REFRESH_S)
                try:
                    shown = overview(service.status(), list(service.jobs("running")))
                except ServiceError as exc:
                    live.update(Group(shown, Text(str(exc))), refresh=True)
                else:
                    live.update(shown, refresh=True)


def _size(text: str) -> tuple[str, int | tuple[int, int]]:
    match = re.fullmatch(rf"({'|'.join(KINDS)})=([0-9]{{1,6}})(?:-([0-9]{{1,6}}))?", text)
    if match is None:
        raise ConfigError(
            f"{text!r} is not POOL=N or POOL=MIN-MAX with a pool of {', '.join(KINDS)}; "
            "e.g. tokenize=2 or caption=1-4"
        )
    pool, low, high = match.groups()
    if high is None:
        return pool, int(low)
    return pool, (int(low), int(high))
