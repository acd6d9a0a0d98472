"""When there is something new to say about a stream: what changed, held against what usually does.

A chunk's `changed` is the share of its cells that are new. Three things speak:

- a *rise*: more is new than is usual. Something came, or left, or began to move;
- the *calm* after it: what is true now is not what was true while it moved;
- a *sum*: what is new since the last word adds up to a whole picture, for a second long. So motion
  that never ends is spoken of every few seconds, and a change too slow or small to be a rise is
  spoken of in the end; both the less often, the less they change.

A first picture, one after a gap and one after a cut speak whatever was before. What is usual
follows `changed` with the media time: up slowly, so that a rise lasts as long as what caused it;
down fast, so that the next one is a rise too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

RISE = 1.5
"""Times what is usual, above which something is going on …"""
STILL = 0.06
"""… and so much of the picture more: what noise and a mouse pointer may change."""
SUM_S = 1.0
"""Pictures × seconds that may change unsaid."""
SLOW_S = 15.0
FAST_S = 3.0
"""In which what is usual follows up, and down."""

Why = Literal["new", "cut", "rise", "calm", "sum"]

_WITHOUT_A_PAST = frozenset({"first", "restart", "gap", "resize"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaking:
    """What must be known of the chunks so far; a function of their heads, and nothing else."""

    usual: float = 0.0
    """Share of a picture that changes from one to the next."""
    busy: bool = False
    """Whether something is going on."""
    unsaid: float = 0.0
    """What changed since the last word, in pictures × seconds."""
    lost: bool = True
    """Whether what was shown last is not known, so that the next chunk speaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Of one chunk."""

    why: Why | None
    """Why there is something to say; None when there is nothing."""
    after: Speaking


def decide(
    before: Speaking, *, changed: float, seconds: float, keyframe: str | None = None
) -> Decision:
    """Whether a chunk of so many media seconds speaks.

    changed: the share of its cells that are new. keyframe: why it is an I-chunk, if it is.
    """
    if before.lost or keyframe in _WITHOUT_A_PAST:
        return Decision(why="new", after=replace(before, busy=False, unsaid=0.0, lost=False))
    unsaid = before.unsaid + changed * seconds
    why: Why | None = None
    busy = before.busy
    if keyframe == "cut":
        why = "cut"
    elif not busy and changed > RISE * before.usual + STILL:
        why, busy = "rise", True
    elif busy and changed <= before.usual + STILL / 2:
        why, busy = "calm", False
    elif unsaid >= SUM_S - 1e-9:
        why = "sum"
    lag_s = SLOW_S if changed > before.usual else FAST_S
    usual = before.usual + (1 - math.exp(-seconds / lag_s)) * (changed - before.usual)
    return Decision(
        why=why, after=Speaking(usual=usual, busy=busy, unsaid=0.0 if why else unsaid, lost=False)
    )


def lost(before: Speaking) -> Speaking:
    """After an entry without pictures, or one that could not be read."""
    return replace(before, lost=True)
