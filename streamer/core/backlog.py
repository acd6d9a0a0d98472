"""What a job has written and nobody has captioned yet, in seconds and in bytes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    number: int
    seconds: float
    size: int


class Backlog:
    """Entries in the order of their numbers."""

    def __init__(self) -> None:
        self._entries: deque[_Entry] = deque()
        self.seconds = 0.0
        """Of media time."""
        self.size = 0
        """Bytes."""

    def add(self, number: int, *, seconds: float, size: int) -> None:
        """An entry was written."""
        self._entries.append(_Entry(number=number, seconds=seconds, size=size))
        self.seconds += seconds
        self.size += size

    def captioned(self, upto: int) -> None:
        """Entries up to this number have been captioned."""
        while self._entries and self._entries[0].number <= upto:
            done = self._entries.popleft()
            self.seconds -= done.seconds
            self.size -= done.size
        if not self._entries:
            self.seconds = 0.0  # sums of floats drift
