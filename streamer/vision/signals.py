"""What is known of kept cells beside their features, for operators that ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from kernels import run_length
from streamer.vision.geometry import Geometry

GREY = (1 / 255, 1 / 255, 1 / 255)
"""Channel weights under which a distance is that of pixels in [0, 1]."""


@dataclass(slots=True)
class LastBlock:
    """Queries and keys of the tower's last block, before rotation."""

    qkv: Tensor | None = None
    """(P, 3·C), once the tower has run: a row per patch, heads side by side."""


@contextmanager
def last_block(tower: Qwen3VLVisionModel) -> Iterator[LastBlock]:
    """Notes queries and keys of the tower's last block while it runs inside the `with`."""
    noted = LastBlock()

    def note(_module: torch.nn.Module, _given: tuple[Tensor, ...], output: Tensor) -> None:
        noted.qkv = output

    handle = tower.blocks[-1].attn.qkv.register_forward_hook(note)
    try:
        yield noted
    finally:
        handle.remove()


def attention_and_keys(
    qkv: Tensor, per_tubelet: list[int], patches_per_cell: int
) -> tuple[Tensor, Tensor]:
    """fp32 (N,) attention that each cell receives and (N, C) its key.

    The tower has no [CLS] token, so it is the mean over the queries of the cell's tubelet, one
    softmax over the whole width as PruMerge has it. A cell's attention is the sum over its patches,
    its key their mean.
    """
    query, key, _ = qkv.float().chunk(3, dim=1)
    lengths = [count * patches_per_cell for count in per_tubelet if count]
    received = [
        (q @ k.T * q.shape[1] ** -0.5).softmax(dim=1).mean(dim=0)
        for q, k in zip(torch.split(query, lengths), torch.split(key, lengths), strict=True)
    ]
    patches = torch.cat(received).view(-1, patches_per_cell)
    return patches.sum(dim=1), key.view(len(patches), patches_per_cell, -1).mean(dim=1)


def pixel_change(frames: Tensor, before: Tensor | None, geometry: Geometry) -> Tensor:
    """fp32 (T', h, w): `Signals.change` of every cell.

    frames: (T, H, W, 3) uint8 on the grid. before: (H, W, 3), first frame of the tubelet before.
    """
    grid = (1, frames.shape[1] // geometry.cell_px, frames.shape[2] // geometry.cell_px)
    known = None if before is None else torch.ones(grid, dtype=torch.int32, device=frames.device)
    result = run_length(
        frames[None],
        tubelet=geometry.tubelet,
        cell=geometry.cell_px,
        threshold=0.0,
        front=None if before is None else before[None],
        open_run=known,
        channel_weight=GREY,
    )
    return result.distance[0]
