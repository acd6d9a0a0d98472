"""Timeline: media time of a live source that only goes forward, whatever its clocks do.

Time is counted from the first picture. Within a connection it follows the source's own stamps.
Where those cannot be trusted (they jump, or another connection counts anew) it follows our clock.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

_LEAP_S = 2.0  # stamps may go ahead by so much more than our clock did
_DISORDER_S = 1.0  # a step back by less is a misplaced picture
_OVERLAP_S = 60.0  # that a new connection may send again
_WINDOW_S, _BUCKET_S = 60.0, 5.0
_BURST_S = 10.0  # after which a connection has caught up with the present
_SLOWLY_S = 600.0  # in which a clock that drifts is followed


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Where media time is, for the connection that goes on with it. All in seconds."""

    t: float
    """Media time of the last picture."""
    arrival: float
    """When it came, by our clock."""
    epoch: float
    """What our clock showed at media time 0, by recent pictures that were delayed least."""
    steady: float
    """The same over many minutes: what errors of single connections do not move."""
    known_s: float = 0.0
    """How long that has been observed; no longer than it looks back."""
    burst_s: float = 0.0
    """How much later the first picture of a connection comes than that."""
    offset: float | None = None
    """Media time minus stamp, where the next connection goes on with the same stamps."""


class Timeline:
    """Gives each picture of one connection its media time, in order of arrival.

    Delays only ever make pictures late, so the least delay within a minute tells what our clock
    showed when a picture was sent.
    """

    def __init__(self, anchor: Anchor | None = None, *, behind_s: float = 0.0) -> None:
        """behind_s: how old the first picture is when it comes, where that is known."""
        self._before = anchor
        self._behind_s = behind_s
        self._t: float | None = None if anchor is None else anchor.t
        self._arrival = 0.0 if anchor is None else anchor.arrival
        self._stamp: float | None = None
        self._offset: float | None = None
        self._fresh = True
        self._follows = False
        self._missed_s = 0.0
        self._least: deque[tuple[float, float]] = deque()  # begin of a bucket, least lag in it
        self._opened: tuple[float, float] | None = None  # arrival and lag of the first picture
        self._burst_s = 0.0
        self._steady = 0.0 if anchor is None else anchor.steady
        self._known_s = 0.0 if anchor is None else anchor.known_s

    def begin(self, *, follows: bool, missed_s: float = 0.0) -> None:
        """The next picture is the first of a stretch with stamps of its own.

        follows: it comes right after the last one, but for `missed_s`.
        """
        self._fresh, self._follows, self._missed_s = True, follows, missed_s

    def place(self, stamp: float | None, arrival: float, *, nominal_s: float) -> float | None:
        """Media time of a picture; None for one that came too late to be shown."""
        last = self._t
        if last is None:
            t = 0.0
        elif self._opened is None and self._before is not None:
            t = self._resume(self._before, stamp, arrival, nominal_s)
            if t <= last:
                return None
        elif self._fresh and self._follows:
            t = last + nominal_s + self._missed_s
        else:
            found = self._step(last, stamp, arrival, nominal_s)
            if found is None:
                return None
            t = found
        if stamp is not None:
            self._stamp, self._offset = stamp, t - stamp
        passed_s = arrival - self._arrival
        self._t, self._arrival = t, arrival
        self._fresh, self._missed_s = False, 0.0
        self._note(arrival, arrival - t, passed_s)
        return t

    @property
    def epoch(self) -> float:
        """What our clock showed at media time 0."""
        own = min(lag for _, lag in self._least)
        if self._before is not None and not self._caught_up:
            return min(own, self._before.epoch)
        return own

    @property
    def anchor(self) -> Anchor | None:
        """Where the next connection goes on; None before the first picture."""
        if self._t is None or not self._least:
            return self._before
        return Anchor(
            t=self._t,
            arrival=self._arrival,
            epoch=self.epoch,
            steady=self._steady,
            known_s=self._known_s,
            burst_s=self._longest_burst_s,
            offset=self._offset,
        )

    @property
    def _longest_burst_s(self) -> float:
        """Of a connection that ended in its burst, what an earlier one knew."""
        if self._before is None or self._caught_up:
            return self._burst_s
        return max(self._burst_s, self._before.burst_s)

    def _resume(
        self, before: Anchor, stamp: float | None, arrival: float, nominal_s: float
    ) -> float:
        """The first picture of a connection that is not the first."""
        by_clock = arrival - before.steady
        if before.offset is None and stamp is not None and self._behind_s:
            offset = by_clock - self._behind_s - stamp
            before = self._before = replace(before, offset=offset)
        if before.offset is not None and stamp is not None:
            t = stamp + before.offset
            if before.t - _OVERLAP_S <= t <= by_clock + _LEAP_S:
                return t
        return max(before.t + nominal_s, by_clock - before.burst_s)

    def _step(
        self, last: float, stamp: float | None, arrival: float, nominal_s: float
    ) -> float | None:
        if stamp is None or self._stamp is None or self._offset is None:
            return last + nominal_s
        step, waited_s = stamp - self._stamp, arrival - self._arrival
        if not self._fresh and -_DISORDER_S < step <= 0:
            return None
        if 0 < step <= waited_s + _LEAP_S + self._missed_s:
            return stamp + self._offset
        # a wait that is no longer than usual tells nothing: the source has gone on at once
        waited_s = waited_s if waited_s > 3 * nominal_s + 0.2 else nominal_s
        return last + max(waited_s, nominal_s, self._missed_s)

    @property
    def _caught_up(self) -> bool:
        return self._opened is not None and self._arrival - self._opened[0] > _BURST_S

    def _note(self, arrival: float, lag: float, passed_s: float) -> None:
        if self._opened is None:
            self._opened = arrival, lag
            if self._before is None:
                lag -= self._behind_s
        begin = math.floor(arrival / _BUCKET_S) * _BUCKET_S
        if self._least and self._least[-1][0] >= begin:
            self._least[-1] = begin, min(lag, self._least[-1][1])
        else:
            self._least.append((begin, lag))
        while self._least[0][0] < begin - _WINDOW_S:
            self._least.popleft()
        _, first = self._opened
        if not self._caught_up:
            self._burst_s = max(self._burst_s, first - lag)
            if self._before is None:
                self._steady = self.epoch
        elif passed_s > 0:
            self._known_s = min(_SLOWLY_S, self._known_s + passed_s)
            share = min(1.0, passed_s / self._known_s)
            self._steady += share * (self.epoch - self._steady)
