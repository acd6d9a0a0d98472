"""Frames to the model's grid."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from streamer.vision.geometry import Geometry, Grid


def resize(frames: Tensor, grid: Grid, geometry: Geometry) -> Tensor:
    """(T, H, W, 3) uint8 to (T, h·cell, w·cell, 3) uint8, bicubic with antialiasing.

    The same call that the checkpoints' processors make; a picture that fits already is unchanged.
    """
    height, width = grid.h * geometry.cell_px, grid.w * geometry.cell_px
    if frames.shape[1:3] == (height, width):
        return frames
    resized: Tensor = tvf.resize(
        frames.movedim(3, 1),
        [height, width],
        interpolation=tvf.InterpolationMode.BICUBIC,
        antialias=True,
    )
    return resized.movedim(1, 3).contiguous()


def whole_tubelets(frames: Tensor, tubelet: int) -> Tensor:
    """Repeats the last frame until the last tubelet is complete."""
    missing = -len(frames) % tubelet
    if not missing:
        return frames
    return torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
