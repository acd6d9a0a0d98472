"""Patches of the kept cells, against normalising and cutting up everything before choosing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from kernels import implementation, patchify
from kernels._dispatch import Implementation
from tests.bench.kernels.clips import CELL, MERGE, PATCH, SIZES, TUBELET, clip
from tests.bench.kernels.harness import Case

MEAN = STD = (0.5, 0.5, 0.5)
SHARES = (0.1, 0.5, 1.0)
MOST = 1 << 30
"""Bytes of patches in one result: those of all ways are in memory together."""


def straightforward(frames: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    mean, std = (torch.tensor(of, device=frames.device) for of in (MEAN, STD))
    x = frames.float().div_(255).sub_(mean).div_(std)
    t, height, width, _ = x.shape
    h, w = height // CELL, width // CELL
    x = x.view(t // TUBELET, TUBELET, h, MERGE, PATCH, w, MERGE, PATCH, 3)
    cells = x.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(-1, MERGE**2, 3 * TUBELET * PATCH**2)
    return cells[index].flatten(0, 1).to(dtype)


def cases(device: str) -> Iterator[Case]:
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    faster: Implementation = "native" if device == "cpu" else "triton"
    for size in SIZES:
        frames = clip(size, device).flatten(0, 1)
        cells = frames.numel() // (TUBELET * CELL * CELL * 3)
        for share in SHARES:
            index = torch.randperm(cells, generator=torch.Generator().manual_seed(0))
            index = index[: round(share * cells)].sort().values.to(device)
            read = len(index) * TUBELET * CELL * CELL * 3
            written = read * dtype.itemsize
            if written > MOST:
                continue
            yield Case(
                kernel="patchify",
                scenario=f"{size.name}, {share:.0%} kept",
                ways={
                    "straightforward": partial(straightforward, frames, index, dtype),
                    "reference": partial(_fused, "reference", frames, index, dtype),
                    faster: partial(_fused, faster, frames, index, dtype),
                },
                bytes_moved=read + written + index.nbytes,
                agree=_agree,
            )


def _fused(how: Implementation, frames: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    with implementation(how):
        return patchify(
            frames,
            index,
            tubelet=TUBELET,
            patch=PATCH,
            merge=MERGE,
            mean=MEAN,
            std=STD,
            dtype=dtype,
        )


def _agree(results: Mapping[str, object]) -> None:
    plain, reference, *others = results.values()
    assert isinstance(reference, Tensor)
    # Values reach 1: (x / 255 - mean) / std rounds otherwise than what we compute.
    tolerance = 1e-6 if reference.dtype == torch.float32 else 2**-7
    torch.testing.assert_close(plain, reference, rtol=tolerance, atol=tolerance)
    for other in others:
        assert isinstance(other, Tensor)
        assert torch.equal(other, reference)
