"""Asks: single questions on their way to a captioner, and what comes back.

They are handed over at least once: a captioner that dies leaves them to another. Whoever asked gets
one answer all the same, because replies only add to each other and the last one is the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

IDLE_S = 10.0
"""After so long without a sign of its captioner an ask is taken over."""
MOST_TAKES = 3
"""So many captioners may be lost over an ask; then it is refused."""
MOST_WAITING = 1000
KEPT_S = 120.0
"""Replies expire so long after the last one."""
GIVEN_UP = f"{MOST_TAKES} captioners were lost over this question; it is not tried again"

Refused = Literal["nothing_kept", "too_long", "gone", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRequest:
    """One question about now (t0 and t1 None) or about a span of media time."""

    id: str
    job: str
    prompt: str
    t0: float | None = None
    t1: float | None = None
    max_new_tokens: int | None = None
    """The model's setting if None."""
    deadline: float
    """Unix seconds after which nobody waits for the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What has been said so far; the last one is `done` and has either an `error` or the rest."""

    n: int
    """1, 2, 3 … of one captioner; where another takes over, those it repeats are not written."""
    text: str = ""
    """All of it up to here."""
    done: bool = False
    error: str | None = None
    refused: Refused | None = None
    """What kind of error; gone: the job was deleted."""
    t0: float | None = None
    t1: float | None = None
    """The span that the answer is about, in media seconds."""
    chunk0: int | None = None
    chunk1: int | None = None
    """Its first and last chunk."""
    wall0: float | None = None
    wall1: float | None = None
    """Of a live source: the span in Unix seconds."""
    visual_tokens: int | None = None
    dense_tokens: int | None = None
    """What the span would have been without any reduction."""
    input_tokens: int | None = None
    """Visual tokens and text."""
    output_tokens: int | None = None
    latency_ms: float | None = None
    """From when a captioner took it to its answer."""


class Asks(Protocol):
    """Any method may raise QueueError."""

    def put(self, request: AskRequest) -> None:
        """Raises NoRoom when MOST_WAITING others wait."""
        ...

    def take(self, worker: str, *, count: int) -> list[AskRequest]:
        """Up to `count` that nobody has, or that nobody has had for IDLE_S; none past its deadline.

        worker: who takes them; that it comes back is the sign that it lives.
        """
        ...

    def tell(self, ask_id: str, reply: Reply) -> None:
        """Nothing happens where a reply as late has been written already."""
        ...

    def hear(self, ask_id: str, *, after: int, block_s: float = 0.0) -> list[Reply]:
        """Replies with an n over `after`; waits up to `block_s` for the first."""
        ...

    def done(self, ask_id: str) -> None:
        """Nobody is to answer it any more: there is an answer, or nobody waits for one."""
        ...

    def wanted(self, ask_ids: Sequence[str]) -> set[str]:
        """Which of those that this side took are still to be answered."""
        ...
