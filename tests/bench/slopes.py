"""Whether a figure creeps: its slope with a 95 % interval that trusts no single outlier.

Values are first put into bins, of which the trimmed means count; the slope is Theil and Sen's, the
median of those between any two bins. Its interval comes from a bootstrap that draws runs of
neighbouring bins (a moving block), because neighbours are alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
TRIM = 0.1
"""Of the values of a bin, left out at either end."""
FEWEST = 8
"""Bins for an interval."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """How much y changes when x grows by one."""

    each: float
    low: float
    high: float
    level: float
    """Median of y."""

    def times(self, factor: float) -> Slope:
        """Of y in other units."""
        low, high = sorted((self.low * factor, self.high * factor))
        return Slope(each=self.each * factor, low=low, high=high, level=self.level * factor)

    def over(self, span: float) -> Slope:
        """When x grows by `span`."""
        return Slope(
            each=self.each * span, low=self.low * span, high=self.high * span, level=self.level
        )

    def within(self, limit: float) -> bool:
        """Whether the whole interval lies within ± limit."""
        return -limit <= self.low and self.high <= limit


def trimmed_mean(values: Values) -> float:
    """Without the outermost at either end."""
    out = int(TRIM * len(values))
    return float(np.sort(values)[out : len(values) - out].mean())


def binned(
    x: Values, y: Values, width: float, of_bin: Callable[[Values], float] = trimmed_mean
) -> tuple[Values, Values]:
    """The middles of the bins of x that hold anything, and of the values of y in each, one."""
    place = np.floor((x - x.min()) / width).astype(np.int64)
    places = np.unique(place)
    middles = np.array([x[place == one].mean() for one in places])
    return middles, np.array([of_bin(y[place == one]) for one in places])


def slope(x: Values, y: Values, *, width: float, block: int = 4, seed: int = 0) -> Slope:
    """Of bins of that width in x; block: neighbouring bins that are drawn together."""
    at, means = binned(x, y, width)
    if len(at) < FEWEST:
        raise ValueError(
            f"{len(at)} bins of {width:g} are too few for an interval, {FEWEST} are needed: "
            "measure for longer or take narrower bins"
        )
    i, j = np.triu_indices(len(at), 1)
    run = at[j] - at[i]
    each = float(np.median((means[j] - means[i]) / run))
    residuals = means - each * at
    residuals -= residuals.mean()
    block = min(block, len(at) // 4)
    # two degrees of freedom went into the line, and blocks are fewer than bins
    residuals *= np.sqrt(len(at) / (len(at) - 2 * block))
    random = np.random.default_rng(seed)
    starts = random.integers(0, len(at) - block + 1, (DRAWS, -(-len(at) // block)))
    picked = (starts[:, :, None] + np.arange(block)).reshape(DRAWS, -1)[:, : len(at)]
    drawn = np.array([np.median((noise[j] - noise[i]) / run) for noise in residuals[picked]])
    low, high = np.quantile(drawn, (0.025, 0.975))
    # the noise's own slope is as likely on either side: what was found may be off by as much
    return Slope(
        each=each, low=each - float(high), high=each - float(low), level=float(np.median(means))
    )
