"""What may leave a stream: entries that only make sense together go together, the oldest first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Consecutive entries of a stream that leave it together."""

    first: int
    last: int
    """Numbers of the first and the last one."""
    entries: int
    t0: float
    t1: float
    """Their span in media seconds."""
    size: int
    """Bytes of all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much of a stream is kept."""

    seconds: float
    """Of media time, before the newest entry's end."""
    size: int
    """Bytes."""


class Shelf:
    """A stream's stretches, oldest first, as far as its entries were looked at."""

    def __init__(self) -> None:
        self.stretches: deque[Stretch] = deque()
        self.size = 0
        self.seen = 0
        """Number of the last entry looked at."""

    def add(self, number: int, *, t0: float, t1: float, size: int, starts: bool) -> None:
        """The next entry. starts: whether a new stretch begins with it."""
        self.seen = number
        self.size += size
        if starts or not self.stretches:
            self.stretches.append(
                Stretch(first=number, last=number, entries=1, t0=t0, t1=t1, size=size)
            )
            return
        open_ = self.stretches[-1]
        self.stretches[-1] = replace(
            open_,
            last=number,
            entries=open_.entries + 1,
            t1=max(open_.t1, t1),
            size=open_.size + size,
        )

    @property
    def t1(self) -> float:
        """Where the newest entry ends, in media seconds."""
        return self.stretches[-1].t1 if self.stretches else 0.0

    def start_of(self, number: int) -> int:
        """The first number of the stretch that `number` lies in; 0 where that is before all."""
        starts = (stretch.first for stretch in reversed(self.stretches))
        return next((first for first in starts if first <= number), 0)

    def due(self, bounds: Bounds, *, before: int) -> list[Stretch]:
        """The oldest stretches that are beyond a bound; those that end before number `before`."""
        return list(self._due(bounds, before))

    def _due(self, bounds: Bounds, before: int) -> Iterator[Stretch]:
        size = self.size
        for stretch in self.stretches:
            old = self.t1 - stretch.t1 > bounds.seconds
            if stretch.last >= before or not (old or size > bounds.size):
                return
            size -= stretch.size
            yield stretch

    def drop(self, *, before: int) -> None:
        """Forgets the stretches that end before a number."""
        while self.stretches and self.stretches[0].last < before:
            self.size -= self.stretches.popleft().size
