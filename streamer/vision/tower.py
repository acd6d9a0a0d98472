"""A Qwen-VL vision tower, run on kept cells only.

transformers lets the caller hand the tower its positions, its interpolation of the position table
and its attention segments, so nothing of the model is patched: tubelets whose cells are all kept
come out as in the plain run.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
)

from operators import Signals
from streamer.vision.context import Recall, Store, recalling
from streamer.vision.geometry import Geometry, Grid
from streamer.vision.patches import Patches
from streamer.vision.signals import LastBlock, attention_and_keys, last_block


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """(N, D) tokens, (L, N, D) what the LLM's first L layers add to them (DeepStack), and what else
    was asked for."""

    tokens: Tensor
    deepstack: Tensor
    signals: Signals = field(default_factory=Signals)
    store: Store | None = None
    """What there is to see for the next call, where it was given what there is for this one."""

    def of(self, kept: Tensor) -> Features:
        """Of some cells alone; kept: (N,) bool."""
        return Features(
            tokens=self.tokens[kept],
            deepstack=self.deepstack[:, kept],
            signals=Signals(
                attention=None if self.signals.attention is None else self.signals.attention[kept],
                keys=None if self.signals.keys is None else self.signals.keys[kept],
            ),
            store=self.store,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Places:
    """Per cell of a grid and patch of a cell, what the tower wants to know of its place."""

    position: Tensor  # [cells, merge², 2]
    taps: Tensor  # [cells, merge², 4]
    weights: Tensor  # [cells, merge², 4]


@lru_cache(maxsize=32)
def _places(
    grid: Grid, merge: int, side: int, mode: str, align_corners: bool, device: torch.device
) -> _Places:
    thw = torch.tensor([[1, grid.h * merge, grid.w * merge]], device=device)
    taps, weights = get_vision_interpolation_indices_and_weights(
        thw,
        num_grid_per_side=side,
        mode=mode,
        align_corners=align_corners,
        spatial_merge_size=merge,
    )
    return _Places(
        position=get_vision_position_ids(thw, merge).view(grid.cells, merge**2, 2),
        taps=taps.view(grid.cells, merge**2, -1),
        weights=weights.view(grid.cells, merge**2, -1),
    )


def encode(
    tower: Qwen3VLVisionModel,
    patches: Patches,
    grid: Grid | list[Grid],
    geometry: Geometry,
    *,
    signals: bool = False,
    store: Store | None = None,
) -> Features:
    """Runs the tower on kept cells; each tubelet with any is one attention segment.

    grid: of all tubelets, or one per tubelet (several streams packed into one call).
    signals: whether attention and keys of the last block are wanted. The attention is that of
        these cells among each other, whatever else they see.
    store: of the one stream that all tubelets are of, if cells see what is stored of the others.
    With no kept cell the tower is not called.
    """
    device, config = patches.pixels.device, tower.config
    grids = grid if isinstance(grid, list) else [grid] * len(patches.per_tubelet)
    if not len(patches.cells):
        nothing = torch.empty(0, config.out_hidden_size, device=device, dtype=tower.dtype)
        return Features(
            tokens=nothing,
            deepstack=nothing.expand(len(config.deepstack_visual_indexes), -1, -1),
            signals=_none_kept(config.hidden_size, device) if signals else Signals(),
            store=store,
        )
    segments = [
        (_places_of(tower, g, device), g, cells)
        for g, cells in zip(grids, torch.split(patches.cells, patches.per_tubelet), strict=True)
        if len(cells)
    ]
    rows = [cells[:, 1] * g.w + cells[:, 2] for _, g, cells in segments]
    lengths = torch.tensor([len(r) * geometry.patches_per_cell for r in rows], device=device)
    recall = None
    if store is not None:
        recall = Recall(
            store, rows, cells=grids[0].cells, patches_per_cell=geometry.patches_per_cell
        )
    with (
        last_block(tower) if signals else nullcontext() as noted,
        recalling(tower) if recall else nullcontext(),
    ):
        output = tower(
            patches.pixels,
            grid_thw=torch.tensor([[1, 1, 1]], device=device),
            position_ids=torch.cat(
                [p.position[r].flatten(0, 1) for (p, _, _), r in zip(segments, rows, strict=True)]
            ),
            interp_indices=torch.cat(
                [p.taps[r].flatten(0, 1) for (p, _, _), r in zip(segments, rows, strict=True)]
            ),
            interp_weights=torch.cat(
                [p.weights[r].flatten(0, 1) for (p, _, _), r in zip(segments, rows, strict=True)]
            ),
            cu_seqlens=torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0)),
            max_seqlen=max(map(len, rows)) * geometry.patches_per_cell,
            recall=recall,
        )
    tokens: Tensor = output.pooler_output
    layers: list[Tensor] = output.deepstack_features
    return Features(
        tokens=tokens,
        deepstack=torch.stack(layers) if layers else tokens.new_empty(0, *tokens.shape),
        signals=Signals() if noted is None else _noted(noted, patches, geometry),
        store=recall.left() if recall else None,
    )


def _noted(noted: LastBlock, patches: Patches, geometry: Geometry) -> Signals:
    assert noted.qkv is not None
    attention, keys = attention_and_keys(noted.qkv, patches.per_tubelet, geometry.patches_per_cell)
    return Signals(attention=attention, keys=keys)


def _none_kept(width: int, device: torch.device) -> Signals:
    return Signals(
        attention=torch.empty(0, device=device), keys=torch.empty(0, width, device=device)
    )


def _places_of(tower: Qwen3VLVisionModel, grid: Grid, device: torch.device) -> _Places:
    return _places(
        grid,
        int(tower.config.spatial_merge_size),
        int(tower.num_grid_per_side),
        str(tower.interpolation_mode),
        bool(tower.interpolation_align_corners),
        device,
    )
