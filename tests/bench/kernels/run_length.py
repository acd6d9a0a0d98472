"""Run-length of clips in which about half of the cells change, against normalise-and-pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import RunLength, implementation, run_length
from kernels._dispatch import Implementation
from tests.bench.kernels.clips import CELL, SIZES, TUBELET, clip
from tests.bench.kernels.harness import Case

THRESHOLD = 0.1
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mask:
    """What the authors compute: which tokens stay and how long each run is."""

    keep: Tensor
    """bool `[B, T', h, w]`."""
    lengths: Tensor
    """int64 `[N]`, of the kept in (b, h, w, t) order."""


def straightforward(frames: Tensor) -> Mask:
    mean, std = (torch.tensor(of, device=frames.device).view(3, 1, 1) for of in (MEAN, STD))
    x = frames.permute(0, 1, 4, 2, 3).float().div_(255).sub_(mean).div_(std)
    difference = (x[:, TUBELET * 2 - 1 :: TUBELET] - x[:, :-TUBELET:TUBELET]).abs_()
    pooled = F.avg_pool2d(difference.flatten(0, 1), CELL).mean(1)
    distance = pooled.view(*difference.shape[:2], *pooled.shape[1:])
    keep = torch.cat([torch.full_like(distance[:, :1], 255), distance], dim=1) > THRESHOLD
    # Every cell's first tubelet is kept: a run ends where the next kept place begins.
    begin = keep.permute(0, 2, 3, 1).flatten().nonzero().squeeze(1)
    end = torch.cat([begin[1:], begin.new_tensor([keep.numel()])])
    return Mask(keep=keep, lengths=end - begin)


def cases(device: str) -> Iterator[Case]:
    for size in SIZES:
        frames = clip(size, device)
        picture, cells = frames[:, 0].nbytes, frames.numel() // (TUBELET * CELL * CELL * 3)
        faster: Implementation = "native" if device == "cpu" else "triton"
        yield Case(
            kernel="run_length",
            scenario=size.name,
            ways={
                "straightforward": partial(straightforward, frames),
                "reference": partial(_fused, "reference", frames),
                faster: partial(_fused, faster, frames),
            },
            # All pictures but the second are read, one is left for the next call; of a cell: bit,
            # run, distance and place.
            bytes_moved=picture * size.frames + cells * (1 + 4 + 4 + 8),
            agree=_agree,
        )


def _fused(how: Implementation, frames: Tensor) -> RunLength:
    with implementation(how):
        return run_length(frames, tubelet=TUBELET, cell=CELL, threshold=THRESHOLD)


def _agree(results: Mapping[str, object]) -> None:
    mask, reference, *others = results.values()
    assert isinstance(mask, Mask)
    assert isinstance(reference, RunLength)
    assert torch.equal(mask.keep, reference.keep)
    by_cell = (0, 2, 3, 1)
    lengths = reference.run.permute(by_cell)[reference.keep.permute(by_cell)]
    assert torch.equal(mask.lengths, lengths.long())
    for other in others:
        for field in fields(RunLength):
            assert torch.equal(getattr(other, field.name), getattr(reference, field.name))
