"""A change test that exposure, sensor noise and compression do not trip, and small things do.

Frames are compared as means of blocks of 4 x 4 pixels, in which noise averages out; what exposure
explains is taken off, then the noise floor of the picture. The fourth root of the mean fourth power
over a cell's blocks is its distance: a few blocks that changed much count, where a mean would
drown them. It is in the unit of the plain test, and where a cell changes evenly the same, less
the noise floor.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels import block_mean
from kernels.run_length import IMAGENET_WEIGHT
from operators.exposure import LARGEST_GAIN, Exposure

BLOCK = 4  # pixels; less where a cell does not divide by it
NOISE = 3.0  # times the median difference over a picture's blocks is its noise floor …
MOST_NOISE = 0.05  # … but at most this, 2.9 grey levels: a picture that moves all over is no noise
DARK = 8.0  # grey levels below which brightness does not matter
HUE = 1.8  # times brighter in one channel than in another is an event, not white balance


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RobustState:
    """What a chunk leaves for the next one; H' x W' blocks, h x w cells."""

    anchor: Tensor
    """fp32 `[3, H', W']`: block means that cells are compared with, in today's exposure."""
    brightness: Tensor
    """fp32 `[3, h, w]`: mean of each channel in each cell when it was sent."""
    unrest: Tensor
    """fp32 `[h, w]`: distance of the first from the last frame of the tubelet just sent; 0 where
    none was sent."""
    open_run: Tensor
    """int32 `[h, w]`: as in the plain test."""

    def __repr__(self) -> str:
        return f"RobustState(anchor={list(self.anchor.shape)}, cells={list(self.open_run.shape)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustTest:
    """The settings of `RLT` that the test needs."""

    tubelet: int
    cell: int
    threshold: float
    symmetric: bool
    from_head: bool
    refresh: int | None

    @property
    def block(self) -> int:
        """Edge of a block in pixels."""
        return math.gcd(self.cell, BLOCK)

    def decide(
        self, frames: Tensor, state: RobustState | None
    ) -> tuple[Tensor, Tensor, RobustState]:
        """keep bool and distance fp32, `[T', h, w]`, of frames uint8 `[T, H, W, 3]`."""
        means = block_mean(frames, self.block)
        fronts, backs = means[:: self.tubelet], means[self.tubelet - 1 :: self.tubelet]
        state = self._afresh(fronts[0]) if state is None else state
        keeps, distances = [], []
        for front, back in zip(fronts, backs, strict=True):
            keep, distance, state = self._step(front, back, state)
            keeps.append(keep)
            distances.append(distance)
        return torch.stack(keeps), torch.stack(distances), state

    def _step(
        self, front: Tensor, back: Tensor, state: RobustState
    ) -> tuple[Tensor, Tensor, RobustState]:
        before = torch.stack([state.anchor, state.anchor, front])
        after = torch.stack([front, back, back])
        exposure = Exposure.between(before, after)
        to_front, to_back, within = self._distances(exposure.unexplained(before, after))
        distance = to_back
        if self.symmetric:
            # A token that shows two states is followed by one that shows which of them lasts.
            distance = to_back.maximum(to_front).maximum(state.unrest)
        brightness = self._cells(front).mean((2, 4))
        brighter = (brightness + DARK) / (state.brightness + DARK)
        most, least = brighter.amax(0), brighter.amin(0)
        faded = (most > LARGEST_GAIN) | (least < 1 / LARGEST_GAIN) | (most > HUE * least)
        distance = torch.where(faded | (state.open_run == 0), torch.inf, distance)
        keep = distance > self.threshold
        if self.refresh is not None:
            keep = keep | (state.open_run >= self.refresh)
        if not self.from_head:
            anchor = front.clone()  # a view would hold the whole chunk
        else:
            anchor = torch.where(self._blocks(keep), front, exposure.applied(before)[0])
        return (
            keep,
            distance,
            RobustState(
                anchor=anchor,
                brightness=torch.where(keep, brightness, state.brightness),
                unrest=torch.where(keep, within, 0),
                open_run=torch.where(keep, 1, state.open_run + 1),
            ),
        )

    def _distances(self, apart: Tensor) -> Tensor:
        """`[P, h, w]` of differences in grey levels, `[P, 3, H', W']`."""
        red, green, blue = (weight / 3 for weight in IMAGENET_WEIGHT)
        mean = (apart[:, 0] * red).add_(apart[:, 1], alpha=green).add_(apart[:, 2], alpha=blue)
        noise = mean[:, ::2, ::2].flatten(1).median(dim=1).values * NOISE
        mean = mean.sub_(noise.clamp_(max=MOST_NOISE)[:, None, None]).relu_()
        fourth = self._cells(mean.square_().square_()).mean((2, 4))
        return fourth.sqrt_().sqrt_()

    def _cells(self, blocks: Tensor) -> Tensor:
        """`[…, H', W']` as `[…, h, n, w, n]`."""
        n = self.cell // self.block
        *lead, rows, columns = blocks.shape
        return blocks.view(*lead, rows // n, n, columns // n, n)

    def _blocks(self, cells: Tensor) -> Tensor:
        """`[h, w]` as `[H', W']`."""
        n = self.cell // self.block
        return cells.repeat_interleave(n, 0).repeat_interleave(n, 1)

    def _afresh(self, front: Tensor) -> RobustState:
        brightness = self._cells(front).mean((2, 4))
        return RobustState(
            anchor=front,
            brightness=brightness,
            unrest=torch.zeros_like(brightness[0]),
            open_run=torch.zeros_like(brightness[0], dtype=torch.int32),
        )
