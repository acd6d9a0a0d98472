"""patchify in torch: gathered first, normalised after, so that only what is kept costs."""

from dataclasses import dataclass

import torch
from torch import Tensor

Channels = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a video is cut up."""

    tubelet: int
    patch: int
    merge: int

    @property
    def cell(self) -> int:
        """Edge of a cell in pixels."""
        return self.patch * self.merge


def patchify(
    frames: Tensor, index: Tensor, layout: Layout, mean: Channels, std: Channels, dtype: torch.dtype
) -> Tensor:
    s, p, m = layout.tubelet, layout.patch, layout.merge
    t, height, width, _ = frames.shape
    h, w = height // layout.cell, width // layout.cell
    blocks = frames.reshape(t // s, s, h, m, p, w, m, p, 3).permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    kept = blocks[index // (h * w), index // w % h, index % w]  # [N, m, m, 3, s, p, p]
    return normalised(kept, mean, std).to(dtype).reshape(-1, 3 * s * p * p)


def normalised(pixels: Tensor, mean: Channels, std: Channels) -> Tensor:
    """`[..., 3, s, p, p]` grey levels -> fp32"""
    shape = (3, 1, 1, 1)
    grey_mean = torch.tensor(mean, device=pixels.device).view(shape) * 255
    grey_std = torch.tensor(std, device=pixels.device).view(shape) * 255
    return (pixels.float() - grey_mean) / grey_std
