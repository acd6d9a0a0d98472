"""Health: whether the process lives, and whether it can serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import anyio
import anyio.to_thread
from fastapi import APIRouter
from pydantic import BaseModel, Field

from streamer.api.problems import RETRY_S, Refusal, documented
from streamer.api.service import Here
from streamer.api.signs import Sign
from streamer.errors import QueueError
from streamer.workers import CONTROLLER, KINDS, WorkerKind, WorkerReport, kind_of

ANSWER_S = 1.0
"""Within which Redis must answer."""

router = APIRouter(tags=["service"])


class Readiness(BaseModel):
    """What a service needs, and whether it is there."""

    redis: Literal["ready"] = "ready"
    controller: Literal["absent", "starting", "ready", "silent"] = Field(
        description="without it jobs wait, and nothing is lost"
    )
    workers: dict[WorkerKind, int] = Field(description="ready ones, by kind")


@router.get(
    "/healthz",
    summary="Whether the process lives",
    response_description="It lives.",
    responses=documented(403),
)
async def healthz() -> dict[Literal["status"], Literal["ok"]]:
    """Always, if it answers."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    summary="Whether the service is ready",
    response_description="It is.",
    responses=documented(403, 503),
)
async def readyz(here: Here) -> Readiness:
    """200 if Redis answers within a second; controller and workers are only told of."""
    reports: Mapping[str, WorkerReport] | None = None
    with anyio.move_on_after(ANSWER_S):
        try:
            reports = await anyio.to_thread.run_sync(here.roster.reports, abandon_on_cancel=True)
        except QueueError:
            reports = None
    if reports is None:
        raise Refusal(
            503,
            f"Redis did not answer within {ANSWER_S:g} s",
            headers={"Retry-After": RETRY_S},
            members={"redis": "away"},
        )
    signs = here.signs.look(reports)
    controller = signs.get(CONTROLLER)
    return Readiness(
        controller=controller.state if controller else "absent",
        workers={kind: _ready(signs, kind) for kind in KINDS},
    )


def _ready(signs: Mapping[str, Sign], kind: WorkerKind) -> int:
    return sum(kind_of(name) == kind and sign.state == "ready" for name, sign in signs.items())
