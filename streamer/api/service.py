"""What the routes share: settings, the queue, the roster, and who follows which job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request

from streamer.adapters.clock import Clock
from streamer.adapters.queue import Queue
from streamer.adapters.roster import Roster
from streamer.api.signs import Signs
from streamer.api.tail import Tail
from streamer.config import Settings
from streamer.sources.guard import FetchPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One per process."""

    settings: Settings
    queue: Queue
    roster: Roster
    clock: Clock
    tail: Tail
    signs: Signs
    policy: FetchPolicy
    """What jobs may fetch."""
    readers: CapacityLimiter
    """Threads that read events for subscribers, so that other requests find theirs."""


async def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(service_of)]
