"""Backoff: how long to wait before the next try, longer after each that failed, and never alike."""

from __future__ import annotations

import random


class Backoff:
    """Doubles from `first_s` to `most_s`; what is waited is between half of that and all of it."""

    def __init__(
        self, *, first_s: float, most_s: float, jitter: random.Random | None = None
    ) -> None:
        self._first_s = first_s
        self._most_s = max(first_s, most_s)
        self._jitter = jitter or random.Random()
        self._next_s = first_s

    def failed(self) -> float:
        """Seconds to wait now."""
        pause_s = self._next_s * self._jitter.uniform(0.5, 1.0)
        self._next_s = min(self._most_s, 2 * self._next_s)
        return pause_s

    def succeeded(self) -> None:
        self._next_s = self._first_s
