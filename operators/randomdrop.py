"""RandomDrop: a baseline that keeps a fixed share of each tubelet's cells, chosen by chance.

Baseline: no paper's method. Differs: from no original; like RLT it never drops in a first tubelet.
Shapes: [T, H, W, 3] uint8 -> keep, run, distance [T/tubelet, H/cell, W/cell]; of n cells
    max(1, round(keep * n)) are kept, halves to even. Stage: pixel.
Raises: ShapeError if frames do not divide into tubelets and cells, or differ from the state in
    size or device; BadParameter for a setting that is not allowed.

Which cells hangs on the seed and on the number of the tubelet since the state was None, not on how
it is cut into chunks, nor on the device: a replay keeps the same, and every group begins alike.
"""

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from operators.blind import BlindOperator
from operators.settings import setting


@dataclass(frozen=True)
class RandomDrop(BlindOperator):
    keep: float = setting(
        0.5, "the fraction of cells kept of each tubelet, e.g. 0.25", within="(0, 1]"
    )
    seed: int = setting(0, "which cells are chosen: another seed, others", within="[0, inf)")

    def chosen(self, number: int, grid: tuple[int, int]) -> Tensor:
        cells = grid[0] * grid[1]
        count = max(1, round(self.keep * cells))
        kept = torch.zeros(cells, dtype=torch.bool)
        kept[Random(f"{self.seed} {number}").sample(range(cells), count)] = True
        return kept.view(grid)
