"""Cuts that captions claim, matched with those that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamer.evaluation.answers import CutClaim

SAYS_CUT = r"\bcuts?\b|\bnew scene\b|\bscene changes?\b"
"""What a caption that speaks of a cut says."""
CUT_SCORES = ("cut F1", "cut precision", "cut recall")
_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """The hard cuts of one clip."""

    times: tuple[float, ...]
    """Media seconds, rising."""
    tolerance_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How claims and cuts went together."""

    matched: int
    claimed: int
    there: int


def found(claims: Sequence[CutClaim], cuts: Cuts) -> Found:
    """Of the answers about one clip, those that claim a cut, against its cuts."""
    claimed = [claim.at_s for claim in claims if claim.claimed]
    return Found(
        matched=matched(claimed, cuts.times, tolerance_s=cuts.tolerance_s),
        claimed=len(claimed),
        there=len(cuts.times),
    )


def matched(claimed: Sequence[float], there: Sequence[float], *, tolerance_s: float) -> int:
    """The most pairs of a claim and a cut at most `tolerance_s` apart, each of them in one."""
    pairs = 0
    left = sorted(claimed)
    for cut in sorted(there):
        # the earliest claim within reach: whatever else it could serve, a later one could too
        while left and left[0] < cut - tolerance_s - _EPS:
            left.pop(0)
        if left and left[0] <= cut + tolerance_s + _EPS:
            left.pop(0)
            pairs += 1
    return pairs
