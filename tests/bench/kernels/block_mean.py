"""Block means of clips, against pooling in floating point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import block_mean
from tests.bench.kernels.clips import SIZES, clip
from tests.bench.kernels.harness import Case
from tests.bench.kernels.implementations import implementations

BLOCK = 4


def straightforward(frames: Tensor) -> Tensor:
    return F.avg_pool2d(frames.permute(0, 3, 1, 2).float(), BLOCK)


def cases(device: str) -> Iterator[Case]:
    for size in SIZES:
        frames = clip(size, device).flatten(0, 1)
        yield Case(
            kernel="block_mean",
            scenario=size.name,
            ways={
                "straightforward": partial(straightforward, frames),
                **implementations(partial(block_mean, frames, BLOCK), device),
            },
            bytes_moved=frames.nbytes + frames.numel() // BLOCK**2 * 4,
            agree=_agree,
        )


def _agree(results: Mapping[str, object]) -> None:
    plain, reference, *others = results.values()
    assert isinstance(plain, Tensor)
    assert isinstance(reference, Tensor)
    torch.testing.assert_close(reference, plain, rtol=1e-6, atol=1e-4)  # of sums of floats
    for other in others:
        assert isinstance(other, Tensor)
        assert torch.equal(other, reference)
