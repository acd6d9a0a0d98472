"""FrameDrop: a baseline that keeps every n-th tubelet whole and none between, a lower frame rate.

Baseline: no paper's method. Differs: from no original; what is dropped stays in the last token's
run, as in RLT.
Shapes: [T, H, W, 3] uint8 -> keep, run, distance [T/tubelet, H/cell, W/cell]. Stage: pixel.
Raises: ShapeError if frames do not divide into tubelets and cells, or differ from the state in
    size or device; BadParameter for a setting that is not allowed.

Tubelets are counted since the state was None, across chunks: a whole chunk may keep nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from operators.blind import BlindOperator
from operators.settings import setting


@dataclass(frozen=True)
class FrameDrop(BlindOperator):
    every: int = setting(2, "the n of every n-th tubelet, e.g. 4; 1 keeps all", within="[1, inf)")

    def chosen(self, number: int, grid: tuple[int, int]) -> Tensor:
        return torch.full(grid, number % self.every == 0)
