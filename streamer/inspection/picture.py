"""A tubelet with the cells drawn that are kept of it."""

from __future__ import annotations

import torch
from torch import Tensor

SMALL = 480  # pixels: narrower pictures are enlarged
DIM = 0.35  # brightness of what is not kept
LINE = (255, 170, 0)
GAP_PX = 8  # between the tubelet's frames


def draw(frames: Tensor, keep: Tensor) -> Tensor:
    """The frames side by side, kept cells outlined, the others dimmed.

    frames: (T, H, W, 3) uint8. keep: (h, w) bool.
    Returns (H', W', 3) uint8; pictures narrower than SMALL are enlarged a whole number of times.
    """
    scale = -(-SMALL // frames.shape[2])
    large = frames.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    edge = large.shape[1] // keep.shape[0]
    inside = keep.repeat_interleave(edge, 0).repeat_interleave(edge, 1)
    dimmed = (large.float() * DIM).byte()
    drawn = torch.where(inside[:, :, None], large, dimmed)
    drawn[:, inside & _border(keep, edge)] = torch.tensor(LINE, dtype=torch.uint8)
    gap = drawn.new_full((drawn.shape[1], GAP_PX, 3), 255)
    parts = [part for frame in drawn for part in (gap, frame)][1:]
    return torch.cat(parts, dim=1)


def _border(keep: Tensor, edge: int) -> Tensor:
    """(H, W) bool: the pixels along the outline of every cell."""
    at = torch.arange(edge)
    line = (at == 0) | (at == edge - 1)
    cell = line[:, None] | line[None, :]
    return cell.repeat(keep.shape[0], keep.shape[1])
