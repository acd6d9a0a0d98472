"""What the routes share: settings, the queue, the roster, and who follows which job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Protocol

from anyio import CapacityLimiter
from fastapi import Depends, Request

from streamer.adapters.asks import Asks
from streamer.adapters.clock import Clock
from streamer.adapters.queue import Entry, Queue
from streamer.adapters.roster import Roster
from streamer.adapters.uploads import Uploads
from streamer.api.signs import Signs
from streamer.api.tail import Tail
from streamer.config import Settings
from streamer.sources.guard import FetchPolicy


class PastEvents(Protocol):
    """Where events are that have left the queue."""

    def events(self, name: str, after: int, /) -> Iterator[Entry]:
        """Entries with a number over `after`, oldest first; name: the job's, by archived_as."""
        ...


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
    asks: Asks
    uploads: Uploads
    archive: PastEvents | None = None
    """None where what leaves the queue is dropped."""


async def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(service_of)]
