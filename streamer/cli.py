"""The command line: which commands there are."""

from __future__ import annotations

from typing import Annotated

import typer

from streamer import __version__
from streamer.commands import evaluate, inspect, jobs, local, pools, service

HERE, SERVICE, CLIENT = "On this machine", "A service", "Of a running service"

app = typer.Typer(
    help="Streamer turns a video URL into a stream of captions, at the price of change.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.command(rich_help_panel=HERE)(local.caption)
app.command(rich_help_panel=HERE)(local.demo)
app.command(rich_help_panel=HERE)(inspect.inspect)
app.command("eval", rich_help_panel=HERE)(evaluate.evaluate)
app.command(rich_help_panel=SERVICE)(service.serve)
app.command(rich_help_panel=SERVICE)(service.worker)
app.command(rich_help_panel=SERVICE)(service.api)
app.command(rich_help_panel=CLIENT)(jobs.submit)
app.command(rich_help_panel=CLIENT)(jobs.watch)
app.command(rich_help_panel=CLIENT)(jobs.jobs)
app.command(rich_help_panel=CLIENT)(jobs.ask)
app.command(rich_help_panel=CLIENT)(jobs.export)
app.command(rich_help_panel=CLIENT)(jobs.cancel)
app.command(rich_help_panel=CLIENT)(jobs.pause)
app.command(rich_help_panel=CLIENT)(jobs.resume)
app.command(rich_help_panel=CLIENT)(pools.scale)
app.command(rich_help_panel=CLIENT)(pools.status)


def version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"streamer {__version__}")
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
