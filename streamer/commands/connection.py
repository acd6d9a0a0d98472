"""How a command reaches a running service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from streamer.errors import StreamerError

if TYPE_CHECKING:
    from streamer.client import Client

COMPLETION_S = 1.0
"""A shell that waits for names is given none after this."""

Url = Annotated[
    str | None,
    typer.Option(
        "--url", envvar="STREAMER_URL", help="Of the service; http://127.0.0.1:8000 if not given."
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="STREAMER_TOKEN",
        help="Bearer token of the service. The variable keeps it out of the list of processes.",
    ),
]


def connect(url: str | None, token: str | None, timeout_s: float = 30.0) -> Client:
    """The service at `url`, or at the usual place."""
    from streamer.client import DEFAULT_URL, Client

    return Client(url or DEFAULT_URL, token=token, timeout_s=timeout_s)


def job_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of the service's jobs, for a shell that completes words; none if it is not there."""
    try:
        with connect(ctx.params.get("url"), ctx.params.get("token"), COMPLETION_S) as service:
            return [job.id for job in service.jobs() if job.id.startswith(incomplete)]
    except StreamerError:
        return []


Job = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job.", autocompletion=job_ids)]
Jobs = Annotated[
    list[str], typer.Argument(metavar="JOB", help="Ids of jobs.", autocompletion=job_ids)
]
