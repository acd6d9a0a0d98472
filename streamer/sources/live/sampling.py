"""Sampling of a stream without an end: which picture is on screen at k/fps, as soon as it is known.

A picture stays until the next one, unless that is long in coming: then something was lost, and the
picture stands for no longer than usual.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

HOLD_S = 2.0
"""A picture that is not followed for longer is not on screen any more."""

_SLOWEST_S = 5.0  # between two pictures of a source that is nothing but slow
_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown(Generic[T]):
    """A picture that is on screen at one or more slots."""

    slot: int
    """The first: media time times fps."""
    count: int
    picture: T


class LiveSampler(Generic[T]):
    """Takes pictures in the order of their media times, which increase."""

    def __init__(self, *, fps: float, nominal_s: float = 0.04) -> None:
        self._fps = fps
        self._period_s = min(nominal_s, _SLOWEST_S)
        self._next = 0
        self._on_screen: tuple[float, T] | None = None

    def push(self, t: float, picture: T) -> Iterator[Shown[T]]:
        """What is known now that a picture appears at `t`."""
        tolerance = _EPS
        before = self._on_screen
        self._on_screen = t, picture
        if before is None:
            self._next = max(self._next, math.ceil(t * self._fps - _EPS))
        else:
            since, old = before
            step = t - since
            tolerance += min(0.001, step / 2)
            until = t - tolerance
            if step > max(HOLD_S, 2 * self._period_s):
                until = min(until, since + self._period_s)
            self._period_s += 0.1 * (min(step, _SLOWEST_S) - self._period_s)
            count = math.ceil(until * self._fps) - self._next
            if count > 0:
                yield Shown(slot=self._next, count=count, picture=old)
                self._next += count
            self._next = max(self._next, math.ceil((t - tolerance) * self._fps))
        if self._next / self._fps <= t + _EPS:
            yield Shown(slot=self._next, count=1, picture=picture)
            self._next += 1
