"""How many jobs fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamer.adapters.queue import Room
from streamer.adapters.roster import Roster
from streamer.api.auth import Caller
from streamer.config import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """Of the service, or of one tenant's share of it, whichever is tighter."""

    limit: int
    active: int

    @property
    def fits(self) -> int:
        """How many more."""
        return max(0, self.limit - self.active)


def capacity(settings: Settings, roster: Roster) -> int:
    """Jobs that the workers can carry at a time: as the controller says, or by the settings."""
    said = roster.published("capacity")
    if said is not None and said.isdecimal():
        return int(said)
    pools = settings.pools
    return min(pool.max * pool.jobs for pool in (pools.decode, pools.tokenize, pools.caption))


def room(settings: Settings, roster: Roster, caller: Caller) -> Room:
    """What a new job of the caller must fit into."""
    return Room(jobs=capacity(settings, roster), of_tenant=caller.max_jobs)


def occupancy(room: Room, active: Mapping[str, str], tenant: str) -> Occupancy:
    """How full it is, with these active jobs (id → tenant)."""
    assert room.jobs is not None
    whole = Occupancy(limit=room.jobs, active=len(active))
    if room.of_tenant is None:
        return whole
    own = Occupancy(limit=room.of_tenant, active=sum(o == tenant for o in active.values()))
    return own if own.fits < whole.fits else whole
