"""Kept cells to encoder input: gathered first, normalized after, so only the kept cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import kernels
from streamer.vision.geometry import Geometry


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patches:
    """What the vision tower is given for N kept cells, in (t, h, w) order."""

    pixels: Tensor
    """(N·merge², 3·tubelet·patch²) normalized; the patches of a cell are neighbours."""
    cells: Tensor
    """(N, 3) int64: tubelet (counted from the chunk's first), row, column."""
    per_tubelet: list[int]
    """Kept cells of each tubelet."""


def patchify(
    frames: Tensor, keep: Tensor, geometry: Geometry, *, dtype: torch.dtype = torch.float32
) -> Patches:
    """Cuts the kept cells out of `frames`, for a tower of this dtype.

    frames: (T, H, W, 3) uint8, T a multiple of the tubelet, H and W of the cell.
    keep: (T / tubelet, h, w) bool.
    """
    t, h, w = keep.shape
    cell, tubelet = geometry.cell_px, geometry.tubelet
    if frames.shape != (t * tubelet, h * cell, w * cell, 3):
        raise ValueError(f"frames {tuple(frames.shape)} do not match a keep mask {(t, h, w)}")
    cells = keep.nonzero()
    pixels = kernels.patchify(
        frames,
        (cells[:, 0] * h + cells[:, 1]) * w + cells[:, 2],
        tubelet=tubelet,
        patch=geometry.patch_size,
        merge=geometry.merge_size,
        mean=geometry.mean,
        std=geometry.std,
        dtype=dtype,
    )
    return Patches(
        pixels=pixels,
        cells=cells,
        per_tubelet=keep.flatten(1).sum(1).tolist(),
    )
