"""Times: from the times a file gives its pictures to even media times.

A picture stands from its time until the next one's. `mend` makes the times of a file trustworthy,
`sample` picks what is on screen at k/fps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_DISORDER_S = 1.0  # a step back by less is a misplaced picture, by more a clock that was set anew
_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timed(Generic[T]):
    """A picture with the time at which it appears."""

    time: float | None
    """Seconds from the first picture; None when the file does not say."""
    duration: float
    """Seconds that the file says it stays; 0 when it does not say."""
    picture: T
    after_damage: bool = False
    """Whether something before it could not be decoded."""


def mend(
    pictures: Iterable[Timed[T]], *, nominal_s: float, declared_s: float | None, max_hold_s: float
) -> Iterator[Timed[T]]:
    """The same pictures with known, strictly increasing times.

    A missing time is the previous one plus `nominal_s`. A picture that comes less than a second too
    late is dropped. A longer step back, and a step ahead by more than `max_hold_s` to beyond the
    declared duration, is a clock set anew: time goes on by `nominal_s`.
    """
    last: float | None = None
    shift = 0.0
    for item in pictures:
        if last is None:
            t = item.time or 0.0
        elif item.time is None:
            t = last + nominal_s
        else:
            t = item.time + shift
            covered = declared_s is not None and t <= declared_s + 1.0
            if t <= last and last - t < _DISORDER_S:
                continue
            if t <= last or (t - last > max_hold_s and not covered):
                shift += last + nominal_s - t
                t = last + nominal_s
        last = t
        if t == item.time:
            yield item
        else:
            yield Timed(
                time=t,
                duration=item.duration,
                picture=item.picture,
                after_damage=item.after_damage,
            )


class Sampler(Generic[T]):
    """Walks mended pictures once; afterwards `end_s` says when the last one goes."""

    def __init__(
        self,
        *,
        fps: float,
        start_s: float,
        nominal_s: float,
        declared_s: float | None,
        max_hold_s: float,
    ) -> None:
        self.end_s = 0.0
        self._fps = fps
        self._start_s = start_s
        self._nominal_s = nominal_s
        self._declared_s = declared_s
        self._max_hold_s = max_hold_s

    def sample(self, pictures: Iterable[Timed[T]]) -> Iterator[tuple[int, T]]:
        """(k, the picture on screen at k/fps), for k/fps from `start_s` to the end.

        A picture that comes up to 1 ms after the slot, or up to half its distance to the one
        before, whichever is less, counts as there: containers round times. Over a hole left by
        damage a picture stands for at most `max_hold_s`; the slots after that are left out.
        """
        slot = max(0, math.ceil(self._start_s * self._fps - _EPS))
        on_screen: Timed[T] | None = None
        for item in pictures:
            t = item.time
            if t is None:
                raise ValueError("sample needs mended times")
            if on_screen is not None and on_screen.time is not None:
                appears = t - min(0.001, (t - on_screen.time) / 2) - _EPS
                until = appears
                if item.after_damage:
                    until = min(appears, on_screen.time + self._max_hold_s)
                while slot / self._fps < until:
                    yield slot, on_screen.picture
                    slot += 1
                slot = max(slot, math.ceil(appears * self._fps))
            on_screen = item
        if on_screen is None or on_screen.time is None:
            return
        self.end_s = on_screen.time + self._last_duration(on_screen.time, on_screen.duration)
        while slot / self._fps < self.end_s - _EPS:
            yield slot, on_screen.picture
            slot += 1

    def _last_duration(self, t: float, duration: float) -> float:
        covered = self._declared_s is not None and t + duration <= self._declared_s + 1.0
        plausible = 0 < duration <= self._max_hold_s or (duration > 0 and covered)
        return duration if plausible else self._nominal_s
