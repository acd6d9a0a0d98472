"""top_k beside torch.topk and a sort, on segments of equal length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from kernels import TopK, top_k
from tests.bench.kernels.harness import Case
from tests.bench.kernels.implementations import implementations
from tests.bench.kernels.packed import Size, sizes


def straightforward(score: Tensor, kept: int) -> Tensor:
    """score `[S, n]`; the kept rows, packed, in order."""
    rows = score.topk(kept, dim=1).indices.sort(dim=1).values
    first = torch.arange(len(score), device=score.device) * score.shape[1]
    return (rows + first[:, None]).flatten()


def cases(device: str) -> Iterator[Case]:
    for size in sizes(device):
        yield case(size, device)


def case(size: Size, device: str) -> Case:
    n, kept = size.segments * size.cells, size.cells // 4
    score = torch.randperm(n, generator=torch.Generator().manual_seed(0)).float().to(device)
    padded, offsets = score.view(size.segments, size.cells), size.offsets(device)
    k = torch.full((size.segments,), kept, device=device)
    return Case(
        kernel="top_k",
        scenario=f"{kept} of {size.segments} × {size.cells}",
        ways={
            "straightforward": lambda: straightforward(padded, kept),
            **implementations(lambda: top_k(score, offsets, k), device),
        },
        bytes_moved=score.nbytes + 8 * n,
        agree=same_rows,
    )


def same_rows(results: Mapping[str, object]) -> None:
    expected = results["straightforward"]
    assert isinstance(expected, Tensor)
    for name, kept in results.items():
        if isinstance(kept, TopK):
            assert torch.equal((kept.group >= 0).nonzero()[:, 0], expected), name
