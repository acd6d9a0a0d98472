"""What exposure and white balance do to a picture: a line per channel, fitted robustly.

Pictures are `[P, 3, h, w]` fp32 in grey levels, P pairs of them at a time. Nothing waits for the
device.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

LARGEST_GAIN = 2.5  # and its inverse: more is an event, not exposure
CLOSE = 8.0  # grey levels: what a line explains, it explains up to here
SAME = 2.0  # grey levels within which a place has not changed at all
MOST_STILL = 0.1  # share of places that may stay the same while exposure would change them
WORTH = 0.9  # a line must leave less than this share of the difference
BANDS = 8  # of brightness, with equally many places in each
SAMPLES = 1024  # places looked at, at least, where there are so many
FLAT = 12.0  # grey levels: a picture of less contrast does not tell exposure from content
STIFF = 100.0  # grey levels²: holds the gain at 1 where brightness hardly varies
ROUNDS = 5  # of reweighting


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exposure:
    """The second picture as a line of the first, per channel: fp32 `[P, 3, 1, 1]` each."""

    gain: Tensor
    offset: Tensor
    low: Tensor
    """The line was fitted from this brightness …"""
    high: Tensor
    """… to this one."""

    @classmethod
    def between(cls, before: Tensor, after: Tensor) -> Self:
        """The line that takes `before` to `after`; gain 1 and offset 0 unless one is sure.

        The picture is parted into bands of brightness; a line goes through the bands' medians,
        reweighted so that bands in which most has moved count little. It is taken only if it holds
        for most of the picture, and if hardly anything stayed as it was that exposure would have
        changed: a large thing before the camera, or a turn of it, is not exposure.
        """
        h, w = before.shape[2:]
        step = max(1, math.isqrt(h * w // SAMPLES))
        x = before[:, :, ::step, ::step].flatten(2)  # [P, 3, N]
        y = after[:, :, ::step, ::step].flatten(2)
        per_band = x.shape[2] // BANDS
        if not per_band:
            one = torch.ones_like(x[:, :, :1, None])
            return cls(gain=one, offset=0 * one, low=0 * one, high=255 * one)
        sorted_x, order = x.sort(dim=2, stable=True)
        bands = (*x.shape[:2], BANDS, per_band)
        band_x = sorted_x[:, :, : BANDS * per_band].view(bands)[..., per_band // 2]
        band_y = y.gather(2, order[:, :, : BANDS * per_band]).view(bands).median(dim=3).values
        gain, offset = _line(band_x, band_y)
        contrast = band_x[:, :, -1:] - band_x[:, :, :1]
        sure = _sure(x, y, gain * x + offset) & (contrast > FLAT)  # [P, 3, 1]
        return cls(
            gain=torch.where(sure, gain, 1)[..., None],
            offset=torch.where(sure, offset, 0)[..., None],
            low=band_x[:, :, :1, None],
            high=band_x[:, :, -1:, None],
        )

    def applied(self, before: Tensor) -> Tensor:
        """`before` as it would look now."""
        return (before * self.gain).add_(self.offset).clamp_(0, 255)

    def unexplained(self, before: Tensor, after: Tensor) -> Tensor:
        """How far `after` is from what exposure makes of `before`; fp32 `[P, 3, h, w]`, >= 0.

        Brighter or darker than where the line was fitted, where sensors saturate, anything between
        the old value and the line's is explained.
        """
        line = self.applied(before)
        outside = (before < self.low) | (before > self.high)
        old = torch.where(outside, before, line)
        return after.clamp(torch.minimum(old, line), torch.maximum(old, line)).sub_(after).abs_()


def _line(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and offset `[P, 3, 1]` through points `[P, 3, BANDS]`."""
    weight = torch.ones_like(x)
    for _ in range(ROUNDS):
        total = weight.sum(2, keepdim=True)
        mean_x = (weight * x).sum(2, keepdim=True) / total
        mean_y = (weight * y).sum(2, keepdim=True) / total
        dx, dy = x - mean_x, y - mean_y
        slope = (weight * dx * dy).sum(2, keepdim=True) + STIFF
        gain = slope / ((weight * dx * dx).sum(2, keepdim=True) + STIFF)
        gain = gain.clamp(1 / LARGEST_GAIN, LARGEST_GAIN)
        offset = mean_y - gain * mean_x
        weight = 1 / (1 + ((y - gain * x - offset) / (CLOSE / 2)) ** 2)
    return gain, offset


def _sure(x: Tensor, y: Tensor, line: Tensor) -> Tensor:
    """Whether a channel's change, `[P, 3, N]` to the same, is the line's; bool `[P, 3, 1]`."""
    left, change = (line - y).abs_(), (x - y).abs_()
    most = (left < CLOSE).float().mean(2, keepdim=True) > 0.5
    cost = left.clamp(max=CLOSE).mean(2, keepdim=True)
    better = cost < WORTH * change.clamp(max=CLOSE).mean(2, keepdim=True)
    still = (change.amax(1) < SAME) & ((line - x).abs_().amax(1) > CLOSE)  # [P, N]
    return most & better & (still.float().mean(1) < MOST_STILL)[:, None, None]
