"""run_length in torch: one tubelet after the other, differences summed as integers."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunLength:
    """What changed, per cell of every tubelet, and what the next call needs."""

    keep: Tensor
    """bool `[B, T', h, w]`: the cell's token is sent."""
    run: Tensor
    """int32 `[B, T', h, w]`: tubelets until the next kept one or the end of the call; 0 if not
    kept."""
    distance: Tensor
    """fp32 `[B, T', h, w]`: to the picture compared with; inf where there is none."""
    index: Tensor
    """int64 `[B * T' * h * w]`: flat places of the kept cells, rising; -1 after `count`."""
    count: Tensor
    """int64 `[]`: how many cells are kept."""
    open_run: Tensor
    """int32 `[B, h, w]`: length so far of each cell's open run, counted from its kept tubelet,
    whichever call that was in."""
    front: Tensor
    """uint8 `[B, H, W, 3]`: the picture that the next tubelet is compared with; a copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How cells are judged, in numbers that every implementation computes with."""

    tubelet: int
    cell: int
    threshold: float
    weight: tuple[float, float, float]
    """Of a channel's sum of absolute differences in the distance."""
    symmetric: bool
    from_head: bool
    """Compare with the head of the run, not with the tubelet before."""
    refresh: int
    """Tubelets after which an open run ends."""


def run_length(frames: Tensor, front: Tensor | None, open_run: Tensor, rule: Rule) -> RunLength:
    """`front` may be None where no run is open."""
    front = torch.zeros_like(frames[:, 0]) if front is None else front
    shape = (len(frames), frames.shape[1] // rule.tubelet, *open_run.shape[1:])
    keep = torch.empty(shape, dtype=torch.bool, device=frames.device)
    distance = torch.empty(shape, dtype=torch.float32, device=frames.device)
    for t in range(shape[1]):
        first, last = frames[:, t * rule.tubelet], frames[:, (t + 1) * rule.tubelet - 1]
        apart = _distance(last, front, rule)
        if rule.symmetric:
            apart = torch.maximum(apart, _distance(first, front, rule))
        apart = torch.where(open_run == 0, torch.inf, apart)
        kept = (apart > rule.threshold) | (open_run >= rule.refresh)
        open_run = torch.where(kept, 1, open_run + 1)
        front = torch.where(_pixels(kept, rule.cell), first, front) if rule.from_head else first
        keep[:, t], distance[:, t] = kept, apart
    count = keep.sum()
    order = (~keep).flatten().sort(stable=True).indices  # the kept come first
    place = torch.arange(keep.numel(), device=keep.device)
    return RunLength(
        keep=keep,
        run=_runs(keep),
        distance=distance,
        index=torch.where(place < count, order, -1),
        count=count,
        open_run=open_run.clone(),
        front=front.clone(),
    )


def _distance(a: Tensor, b: Tensor, rule: Rule) -> Tensor:
    streams, height, width, _ = a.shape
    cell, weight = rule.cell, rule.weight
    difference = (a.to(torch.int16) - b.to(torch.int16)).abs()
    cells = difference.view(streams, height // cell, cell, width // cell, cell, 3)
    sad = cells.sum(dim=(2, 4), dtype=torch.int32).float()  # [B, h, w, 3]
    return sad[..., 0] * weight[0] + sad[..., 1] * weight[1] + sad[..., 2] * weight[2]


def _pixels(cells: Tensor, cell: int) -> Tensor:
    """[B, h, w] -> [B, H, W, 1]"""
    return cells.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[..., None]


def _runs(keep: Tensor) -> Tensor:
    run = torch.zeros_like(keep, dtype=torch.int32)
    length = torch.zeros_like(run[:, 0])
    for t in reversed(range(keep.shape[1])):
        length = length + 1
        run[:, t] = torch.where(keep[:, t], length, 0)
        length = torch.where(keep[:, t], 0, length)
    return run
