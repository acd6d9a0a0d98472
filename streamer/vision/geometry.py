"""How a model cuts pictures up: patches, cells, tubelets, and the grid a picture is resized to."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Rows and columns of cells."""

    h: int
    w: int

    @property
    def cells(self) -> int:
        return self.h * self.w


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Read from a checkpoint's processor; see docs/architecture.md for the words."""

    patch_size: int
    """Pixels along a patch's side."""
    merge_size: int
    """Patches along a cell's side."""
    tubelet: int
    """Sampled frames per tubelet (temporal_patch_size)."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    max_cells: int
    """Most cells a frame may have."""

    @property
    def cell_px(self) -> int:
        return self.patch_size * self.merge_size

    @property
    def patches_per_cell(self) -> int:
        return self.merge_size**2

    def fit(self, height: int, width: int) -> Grid:
        """The grid for a picture of `height` × `width` pixels: its shape kept, within max_cells.

        The arithmetic of Qwen's smart_resize for one frame. Pictures longer than 1 : max_cells
        become a single row or column.
        """
        if height < 1 or width < 1:
            raise ValueError(f"a picture of {width} × {height} pixels has nothing to see")
        h, w = round(height / self.cell_px), round(width / self.cell_px)
        if max(h, 1) * max(w, 1) > self.max_cells:
            shrink = math.sqrt(height * width / (self.max_cells * self.cell_px**2))
            h = math.floor(height / shrink / self.cell_px)
            w = math.floor(width / shrink / self.cell_px)
        h, w = max(h, 1), max(w, 1)
        return Grid(h=min(h, self.max_cells // min(w, self.max_cells)), w=min(w, self.max_cells))
