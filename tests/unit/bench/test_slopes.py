"""A slope is found in noise, and its interval is neither too narrow nor useless."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.slopes import Values, binned, slope


def walk(random: np.random.Generator, count: int, likeness: float) -> Values:
    """Noise in which neighbours are alike."""
    noise = np.zeros(count)
    for n in range(1, count):
        noise[n] = likeness * noise[n - 1] + random.normal()
    return noise


def test_a_line_without_noise_is_found_exactly() -> None:
    x = np.arange(100.0)
    found = slope(x, 3 + 0.5 * x, width=5.0)
    assert (found.each, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert found.over(10).each == pytest.approx(5.0)


def test_outliers_do_not_move_it() -> None:
    x = np.arange(300.0)
    y = 100 + 0.1 * x
    y[::20] += 1000  # one of ten in a bin, and none in the next
    assert slope(x, y, width=10.0).each == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("likeness", [0.0, 0.6])
def test_its_interval_holds_the_truth_as_often_as_it_says(likeness: float) -> None:
    random, x, held = np.random.default_rng(1), np.arange(0, 1620, 5.0), 0
    for seed in range(100):
        y = 50 + 0.002 * x + walk(random, len(x), likeness)
        found = slope(x, y, width=30.0, seed=seed)
        held += found.low <= 0.002 <= found.high
    assert held >= 88  # 95 expected; fewer than 88 would be a matter of 1 in 500


def test_it_lies_within_a_limit_only_with_its_whole_interval() -> None:
    random, x = np.random.default_rng(2), np.arange(0, 600, 5.0)
    found = slope(x, 10 + walk(random, len(x), 0.3), width=20.0)
    assert found.within(max(abs(found.low), abs(found.high)))
    assert not found.within(0.9 * max(abs(found.low), abs(found.high)))


def test_too_few_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        slope(np.arange(10.0), np.arange(10.0), width=5.0)


def test_bins_have_the_means_of_what_they_hold_without_the_outermost() -> None:
    y = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 1000, 5, 7])
    middles, means = binned(np.array([*range(10), 20.0, 21]), y, 10.0)
    assert middles.tolist() == [4.5, 20.5]
    assert means.tolist() == [5.5, 6.0]
