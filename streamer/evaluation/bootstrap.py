"""Intervals by resampling clips, which are independent; the chunks of one clip are not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SAMPLES = 2000
LEVEL = 0.95
LEAST = 2
"""Clips without which there is nothing to resample."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one clip adds to a ratio, e.g. right answers over answers."""

    of: float
    over: float


Tally = Mapping[str, Part]
"""By clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A ratio over all clips, or the difference of two, and its interval."""

    value: float
    low: float | None
    high: float | None
    """None of fewer than LEAST clips, and where all samples are alike: that nothing was wrong, say,
    does not tell how much could be."""


def ratio(tally: Tally, *, seed: int) -> Estimate | None:
    """The ratio of the sums; None where there is nothing to divide by."""
    clips = sorted(tally)
    of, over = _columns(tally, clips)
    if not over.sum():
        return None
    ratios = _ratios(of, over, _weights(len(clips), seed))
    return _estimate(float(of.sum() / over.sum()), ratios, clips=int(np.count_nonzero(over)))


def difference(tally: Tally, reference: Tally, *, seed: int) -> Estimate | None:
    """By how much the ratio is above that of the reference, over clips that both have.

    Both are resampled alike, so what makes a clip hard for both does not widen the interval.
    """
    clips = sorted(tally.keys() & reference.keys())
    (a, a_over), (b, b_over) = _columns(tally, clips), _columns(reference, clips)
    if not a_over.sum() or not b_over.sum():
        return None
    weights = _weights(len(clips), seed)
    return _estimate(
        float(a.sum() / a_over.sum() - b.sum() / b_over.sum()),
        _ratios(a, a_over, weights) - _ratios(b, b_over, weights),
        clips=int(min(np.count_nonzero(a_over), np.count_nonzero(b_over))),
    )


def _columns(tally: Tally, clips: list[str]) -> tuple[Floats, Floats]:
    parts = [tally[clip] for clip in clips]
    return (
        np.array([part.of for part in parts], np.float64),
        np.array([part.over for part in parts], np.float64),
    )


@lru_cache(maxsize=4)
def _weights(clips: int, seed: int) -> Floats:
    """(SAMPLES, clips): how often each clip is in each sample."""
    drawn = np.random.default_rng(seed).multinomial(clips, [1 / clips] * clips, SAMPLES)
    return drawn.astype(np.float64)


def _ratios(of: Floats, over: Floats, weights: Floats) -> Floats:
    """(SAMPLES,): NaN of samples with nothing to divide by."""
    below = weights @ over
    empty: Floats = np.full(len(weights), np.nan)
    return np.divide(weights @ of, below, out=empty, where=below > 0)


def _estimate(value: float, sampled: Floats, *, clips: int) -> Estimate:
    sampled = sampled[~np.isnan(sampled)]
    if clips < LEAST or not len(sampled):
        return Estimate(value=value, low=None, high=None)
    low, high = np.quantile(sampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if low == high:
        return Estimate(value=value, low=None, high=None)
    return Estimate(value=value, low=float(low), high=float(high))
