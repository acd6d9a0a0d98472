"""run_length in torch: integer differences, one pass per tubelet for the runs."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunLength:
    """What changed, per cell of every tubelet."""

    keep: Tensor
    """bool `[B, T', h, w]`: the cell changed, its token is sent."""
    run: Tensor
    """int32 `[B, T', h, w]`: tubelets until the next kept one or the end of the call; 0 if not
    kept."""
    distance: Tensor
    """fp32 `[B, T', h, w]`: to the tubelet before; inf where there is none."""


def run_length(
    frames: Tensor,
    front: Tensor | None,
    tubelet: int,
    cell: int,
    threshold: float,
    weight: tuple[float, float, float],
    symmetric: bool,
) -> RunLength:
    fronts = frames[:, ::tubelet]  # [B, T', H, W, 3]
    backs = frames[:, tubelet - 1 :: tubelet]
    first = fronts[:, :1] if front is None else front[:, None]
    before = torch.cat([first, fronts], dim=1)[:, : fronts.shape[1]]
    distance = _distance(backs, before, cell, weight)
    if symmetric:
        distance = torch.maximum(distance, _distance(fronts, before, cell, weight))
    keep = distance > threshold
    if front is None:
        distance[:, :1] = torch.inf
        keep[:, :1] = True
    return RunLength(keep=keep, run=_runs(keep), distance=distance)


def _distance(a: Tensor, b: Tensor, cell: int, weight: tuple[float, float, float]) -> Tensor:
    clips, tubelets, height, width, _ = a.shape
    difference = (a.to(torch.int16) - b.to(torch.int16)).abs()
    cells = difference.view(clips, tubelets, height // cell, cell, width // cell, cell, 3)
    sad = cells.sum(dim=(3, 5), dtype=torch.int32).float()  # [B, T', h, w, 3]
    return sad[..., 0] * weight[0] + sad[..., 1] * weight[1] + sad[..., 2] * weight[2]


def _runs(keep: Tensor) -> Tensor:
    clips, tubelets, rows, columns = keep.shape
    run = keep.new_zeros(keep.shape, dtype=torch.int32)
    length = keep.new_zeros((clips, rows, columns), dtype=torch.int32)
    for j in reversed(range(tubelets)):
        length = length + 1
        run[:, j] = torch.where(keep[:, j], length, 0)
        length = torch.where(keep[:, j], 0, length)
    return run
