"""A stretch: live media that one demuxer reads without interruption."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.sources.fetch import MediaFile


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretch:
    """Media with one header and one clock."""

    file: MediaFile
    """Read in order. `read` waits until bytes come; empty at the end of the stretch, with `failure`
    set where trouble ended it."""
    missed_s: float
    """Media time known to be lost just before it."""
    behind_s: float = 0.0
    """How much of the source had been sent already when it began: that much comes at once."""
    continuous: bool
    """Whether it goes on right where the one before ended. Of the first one of a feed that was
    resumed: whether its clock is that of what was read before, be it that something is lost."""
