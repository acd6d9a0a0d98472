"""Clips for the kernels: noise in which about half of the cells change from tubelet to tubelet."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TUBELET = 2
PATCH, MERGE = 16, 2
CELL = PATCH * MERGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Streams, and what is given of each."""

    streams: int
    frames: int
    height: int
    width: int

    @property
    def name(self) -> str:
        square = self.height == self.width
        picture = f"{self.height}²" if square else f"{self.height} × {self.width}"
        return f"{self.streams} × {self.frames} × {picture}"


SIZES = (
    Size(streams=1, frames=16, height=224, width=224),
    Size(streams=1, frames=16, height=448, width=448),
    Size(streams=64, frames=4, height=448, width=448),
    Size(streams=16, frames=4, height=1088, width=1920),
)


def clip(size: Size, device: str) -> Tensor:
    """uint8 `[B, T, H, W, 3]`; a cell's pictures within a tubelet are equal."""
    generator = torch.Generator(device).manual_seed(0)
    shape = (size.streams, size.height, size.width, 3)
    grid = (size.streams, size.height // CELL, 1, size.width // CELL, 1, 1)
    frames = torch.empty((size.streams, size.frames, *shape[1:]), dtype=torch.uint8, device=device)
    picture = torch.zeros(shape, dtype=torch.uint8, device=device)
    for t in range(0, size.frames, TUBELET):
        noise = torch.randint(0, 256, shape, dtype=torch.uint8, device=device, generator=generator)
        changes = torch.rand(grid, device=device, generator=generator) < (0.5 if t else 1)
        cells = (*grid[:2], CELL, grid[3], CELL, 3)
        picture = torch.where(changes, noise.view(cells), picture.view(cells)).view(shape)
        frames[:, t : t + TUBELET] = picture[:, None]
    return frames
