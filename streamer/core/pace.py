"""Falling behind in the open: how far a live job is thinned out, from how far it is behind."""

from __future__ import annotations

from dataclasses import dataclass, replace

STARTS = (0.25, 0.5, 1.0)
"""Shares of what a job may be behind, from which levels 1, 2 and 3 hold."""
SKIPPING = len(STARTS)
"""The level at which nothing is written, until less than STARTS[0] is left."""
CALM_S = 2.0
"""How long a job must be below half of its level's start to go down by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinning:
    """What is left out of a chunk."""

    threshold: float = 1.0
    """Times the threshold above which a cell has changed."""
    every: int = 1
    """Of so many frames one is taken, while at least a tubelet's are left."""


FULL = Thinning()
_LEVELS = (FULL, Thinning(threshold=2.0), Thinning(threshold=2.0, every=2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The level of a job, from 0 to 3; a value."""

    level: int = 0
    calm_since: float | None = None
    """Since when it has been well below its level."""

    def after(self, share: float, *, now: float) -> Pace:
        """At `now`, in seconds that only grow; share: of what it may be behind, above 1 beyond it.

        Up at once, as many levels as it takes; down one by one, but from skipping to the top.
        """
        reached = sum(share >= start for start in STARTS)
        if self.level == SKIPPING:
            return Pace() if share < STARTS[0] else self
        if reached > self.level:
            return Pace(level=reached)
        if not self.level or share >= STARTS[self.level - 1] / 2:
            return replace(self, calm_since=None)
        if self.calm_since is None:
            return replace(self, calm_since=now)
        if now - self.calm_since < CALM_S:
            return self
        return Pace(level=self.level - 1, calm_since=now)

    @property
    def skipping(self) -> bool:
        """Whether what comes is dropped."""
        return self.level == SKIPPING

    @property
    def thinning(self) -> Thinning:
        """Of the chunks that are written at this level."""
        return _LEVELS[min(self.level, len(_LEVELS) - 1)]
