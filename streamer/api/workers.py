"""Workers: who they are, what they do, and how many there shall be."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter

from streamer.api.auth import Admin, Known
from streamer.api.problems import documented
from streamer.api.room import occupancy, room
from streamer.api.schemas import PoolSize, PoolsRequest
from streamer.api.service import Here, Service
from streamer.api.signs import Sign
from streamer.views import PoolView, Status, WorkerView
from streamer.workers import KINDS, Size, WorkerKind, kind_of

router = APIRouter(prefix="/v1", tags=["workers"], responses=documented(401, 403, 503))


@router.get("/workers", summary="Look at the workers", response_description="The service.")
def read_workers(here: Here, caller: Known) -> Status:
    """How many jobs fit, as far as the caller is concerned, and every worker by pool."""
    now = occupancy(room(here.settings, here.roster, caller), here.queue.active(), caller.tenant)
    signs = here.signs.look(here.roster.reports())
    return Status(
        fits=now.fits,
        limit=now.limit,
        active=now.active,
        pools={
            kind: PoolView(
                min=size.min,
                max=size.max,
                workers=_workers(sign for name, sign in signs.items() if kind_of(name) == kind),
            )
            for kind, size in _sizes(here).items()
        },
    )


@router.patch(
    "/pools",
    summary="Scale the pools",
    response_description="The sizes of all pools.",
    responses=documented(400, 413, 415, 422),
)
def scale_pools(request: PoolsRequest, here: Here, caller: Admin) -> dict[WorkerKind, PoolSize]:
    """Sets how many workers a pool may have.

    The controller follows within seconds, and jobs move without losing anything.
    """
    asked: dict[WorkerKind, PoolSize | None] = {
        "decode": request.decode,
        "tokenize": request.tokenize,
        "caption": request.caption,
    }
    changes = {k: Size(min=size.min, max=size.max) for k, size in asked.items() if size}
    if changes:
        here.roster.resize(changes)
    return {k: PoolSize(min=size.min, max=size.max) for k, size in _sizes(here).items()}


def _sizes(here: Service) -> dict[WorkerKind, Size]:
    given = here.roster.sizes()
    pools = here.settings.pools
    defaults = {"decode": pools.decode, "tokenize": pools.tokenize, "caption": pools.caption}
    return {
        kind: given.get(kind) or Size(min=defaults[kind].min, max=defaults[kind].max)
        for kind in KINDS
    }


def _workers(signs: Iterable[Sign]) -> tuple[WorkerView, ...]:
    ordered = sorted(signs, key=lambda sign: int(sign.report.name.rpartition("-")[2]))
    return tuple(
        WorkerView(
            name=sign.report.name,
            state=sign.state,
            error=sign.report.error,
            age_s=sign.age_s,
            node=sign.report.node,
            pid=sign.report.pid,
            backlog=sign.report.backlog,
            busy=sign.busy,
            chunks=sign.report.chunks,
            rss_bytes=sign.report.rss_bytes,
            jobs=tuple(sorted(sign.report.jobs)),
        )
        for sign in ordered
    )
