"""Packed features of many pictures, in the sizes that the service sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Segments of equal length: tubelets and their cells."""

    segments: int
    cells: int
    channels: int

    @property
    def title(self) -> str:
        return f"{self.segments} × {self.cells} × {self.channels}"

    def features(self, device: str) -> Tensor:
        """fp32 `[N, D]`, the same on every call."""
        generator = torch.Generator(device).manual_seed(0)
        shape = (self.segments * self.cells, self.channels)
        return torch.randn(shape, generator=generator, device=device)

    def offsets(self, device: str) -> Tensor:
        return torch.arange(self.segments + 1, device=device) * self.cells


def sizes(device: str) -> Iterator[Size]:
    """A clip of 16 × 224², two tubelets of 64 streams of 448², and of 16 of 1080p (on a CPU, 2)."""
    yield Size(segments=8, cells=49, channels=1024)
    yield Size(segments=128, cells=196, channels=1024)
    yield Size(segments=4 if device == "cpu" else 32, cells=2040, channels=2048)
