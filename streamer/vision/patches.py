"""Kept cells to encoder input: gathered first, normalized after, so only the kept cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamer.vision.geometry import Geometry


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patches:
    """What the vision tower is given for N kept cells, in (t, h, w) order."""

    pixels: Tensor
    """(N·merge², 3·tubelet·patch²) normalized, float32; the patches of a cell are neighbours."""
    cells: Tensor
    """(N, 3) int64: tubelet (counted from the chunk's first), row, column."""
    per_tubelet: list[int]
    """Kept cells of each tubelet."""


def patchify(frames: Tensor, keep: Tensor, geometry: Geometry) -> Patches:
    """Cuts the kept cells out of `frames`.

    frames: (T, H, W, 3) uint8, T a multiple of the tubelet, H and W of the cell.
    keep: (T / tubelet, h, w) bool.
    """
    p, m, s = geometry.patch_size, geometry.merge_size, geometry.tubelet
    t, h, w = keep.shape
    if frames.shape != (t * s, h * m * p, w * m * p, 3):
        raise ValueError(f"frames {tuple(frames.shape)} do not match a keep mask {(t, h, w)}")
    blocks = frames.view(t, s, h, m, p, w, m, p, 3).permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    kept = blocks[keep]  # [N, m, m, 3, s, p, p]
    # mean and std brought to grey levels first, as transformers' processors do: equal to the bit
    mean = torch.tensor(geometry.mean, device=frames.device).view(3, 1, 1, 1) * 255
    std = torch.tensor(geometry.std, device=frames.device).view(3, 1, 1, 1) * 255
    pixels = (kept.float() - mean) / std
    return Patches(
        pixels=pixels.reshape(-1, 3 * s * p * p),
        cells=keep.nonzero(),
        per_tubelet=keep.flatten(1).sum(1).tolist(),
    )
