"""A running service for people: tables of its jobs and of its workers."""

from __future__ import annotations

import sys

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from streamer.views import JobView, PoolView, Status, WorkerView

WIDE = 200
"""Characters of a line where there is no terminal to say how wide it is."""


def paper() -> Console:
    """Where tables are printed."""
    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else WIDE)


def job_table(jobs: list[JobView]) -> RenderableType:
    """One line a job."""
    if not jobs:
        return Text("no jobs")
    table = _table("job", "state", "lag", "at", "captions", "tokens", "video")
    for job in jobs:
        trouble = job.error or job.source_error
        table.add_row(
            Text(job.id),
            Text(_state(job)),
            "" if job.lag_s is None or job.finished else f"{job.lag_s:.1f} s",
            f"{job.t1:.0f} s",
            str(job.captions),
            _share(job),
            Text(f"{job.url}: {trouble}" if trouble else job.url),
        )
    return table


def overview(status: Status, jobs: list[JobView]) -> RenderableType:
    """Pools with their workers, and the jobs that run."""
    workers = _table("worker", "state", "node", "backlog", "busy", "memory", "jobs")
    for kind, pool in status.pools.items():
        workers.add_section()
        workers.add_row(Text(f"{kind}: {_bounds(pool)}"))
        for worker in pool.workers:
            workers.add_row(*_worker(worker))
    return Group(workers, Text(_room(status)), *([job_table(jobs)] if jobs else []))


def _worker(worker: WorkerView) -> tuple[RenderableType, ...]:
    return (
        Text(f"  {worker.name}"),
        Text(worker.state),
        Text(worker.node),
        str(worker.backlog),
        f"{100 * worker.busy:.0f} %",
        f"{worker.rss_bytes / 2**20:.0f} MiB",
        Text(worker.error or ", ".join(worker.jobs)),
    )


def _bounds(pool: PoolView) -> str:
    number = str(pool.min) if pool.min == pool.max else f"{pool.min} to {pool.max}"
    return f"{len(pool.workers)} of {number}"


def _room(status: Status) -> str:
    limit = "" if status.limit is None else f" of {status.limit}"
    more = "" if status.fits is None else f", room for {status.fits} more"
    return f"{status.active}{limit} jobs{more}"


def _state(job: JobView) -> str:
    """Its state, and what a live job suffers from."""
    if job.connected is False:
        return f"{job.state}, not connected"
    return f"{job.state}, level {job.level}" if job.level and not job.finished else job.state


def _share(job: JobView) -> str:
    return f"{100 * job.tokens.kept / job.tokens.dense:.0f} %" if job.tokens.dense else ""


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        right = name in ("lag", "at", "captions", "tokens", "backlog", "busy", "memory")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    return table
