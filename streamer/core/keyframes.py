"""When a chunk is an I-chunk: decodable alone, and the start of a group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KeyframeReason = Literal["first", "cut", "interval", "gap", "budget", "resize", "asked", "restart"]


@dataclass(frozen=True, kw_only=True)
class KeyframePolicy:
    """The limits of a group."""

    interval_s: float = 16.0
    """Longest group, in media seconds."""
    budget: float = 6.0
    """Most tokens of a group, in full tubelets: what the LLM's context is allowed to grow to."""
    cut_share: float = 0.8
    """Share of a tubelet's cells that must have changed for it to be a scene cut."""

    def __post_init__(self) -> None:
        if not self.interval_s > 0:
            raise ValueError(f"interval_s: {self.interval_s} is not above 0 seconds, e.g. 16")
        if not self.budget >= 1:
            raise ValueError(f"budget: {self.budget} is below 1; it counts full tubelets, e.g. 6")
        if not 0 < self.cut_share <= 1:
            raise ValueError(f"cut_share: {self.cut_share} is not in (0, 1], e.g. 0.8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What the policy needs to know of the group so far."""

    started_s: float
    grid: tuple[int, int]
    """Rows and columns of cells."""
    tokens: int = 0
    ended: KeyframeReason | None = None
    """Set when the group must not go on: the scene was cut, pictures are missing, or an I-chunk was
    asked for."""

    def grown(self, *, tokens: int, largest_change: float, policy: KeyframePolicy) -> Group:
        """After one more chunk; largest_change is the greatest share of cells a tubelet changed.

        The chunk that shows a cut still belongs to the group it ends, so that a reader of the group
        sees both sides of it; the next chunk starts afresh.
        """
        cut = largest_change > policy.cut_share
        return Group(
            started_s=self.started_s,
            grid=self.grid,
            tokens=self.tokens + tokens,
            ended="cut" if cut else self.ended,
        )


def keyframe_reason(
    policy: KeyframePolicy, group: Group | None, *, t1: float, tubelets: int, grid: tuple[int, int]
) -> KeyframeReason | None:
    """Why the chunk that ends at t1 must be an I-chunk, or None if it may be a P-chunk.

    The budget is kept for certain, but for a single chunk that is larger than it: a chunk whose
    every cell might change must still fit.
    """
    if group is None:
        return "first"
    if group.ended:
        return group.ended
    if group.grid != grid:
        return "resize"
    if t1 - group.started_s > policy.interval_s + 1e-6:
        return "interval"
    cells = grid[0] * grid[1]
    if group.tokens + tubelets * cells > policy.budget * cells:
        return "budget"
    return None
