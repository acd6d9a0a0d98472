"""The same work done in several ways, checked first, then timed side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Way = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kernel or operator on one input."""

    kernel: str
    scenario: str
    """Size of the input, for people: `64 × 4 × 448²`."""
    ways: Mapping[str, Way]
    """By name: straightforward, reference, native, triton, …; each returns its result."""
    bytes_moved: int
    """The least that must be read and written."""
    agree: Callable[[Mapping[str, object]], None]
    """Raises AssertionError if the results, by way, are not the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds a call, over all rounds."""

    low: float
    median: float
    high: float
    """20th and 80th percentiles around the median."""


def measure(case: Case, device: str, *, budget_s: float) -> dict[str, Timing]:
    """Times every way of the case in turn, round after round, for `budget_s` or three rounds.

    Raises AssertionError, before anything is timed, if the ways disagree.
    """
    case.agree({name: way() for name, way in case.ways.items()})
    seconds: dict[str, list[float]] = {name: [] for name in case.ways}
    until = time.perf_counter() + budget_s
    while len(next(iter(seconds.values()))) < 3 or time.perf_counter() < until:
        for name, way in case.ways.items():
            way()  # untimed: caches and pages are then its own, not those of the way before
            seconds[name].append(_timed(way, device))
    return {name: _timing(taken) for name, taken in seconds.items()}


def copy_bandwidth(device: str) -> float:
    """Bytes read and written a second by copying a large tensor: what memory can do."""
    source = torch.zeros(1 << (28 if device == "cpu" else 30), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    taken = [_timed(lambda: target.copy_(source), device) for _ in range(10)]
    return 2 * source.numel() / min(taken)


def _timed(way: Way, device: str) -> float:
    if device == "cpu":
        started = time.perf_counter()
        way()
        return time.perf_counter() - started
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    start.record()
    way()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def _timing(taken: list[float]) -> Timing:
    low, *_, high = statistics.quantiles(taken, n=5, method="inclusive")
    return Timing(low=low, median=statistics.median(taken), high=high)
