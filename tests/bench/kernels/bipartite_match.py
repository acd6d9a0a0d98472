"""bipartite_match beside ToMe's matching of a padded batch: all scores, all of them sorted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from kernels import Match, bipartite_match
from tests.bench.kernels.harness import Case
from tests.bench.kernels.implementations import implementations
from tests.bench.kernels.packed import Size, sizes


def straightforward(metric: Tensor, r: int) -> Tensor:
    """metric `[S, n, D]`; the target of each token, packed."""
    segments, n, _ = metric.shape
    unit = metric / metric.norm(dim=-1, keepdim=True)
    score, partner = (unit[:, ::2] @ unit[:, 1::2].mT).max(dim=-1)
    merged = score.argsort(dim=-1, descending=True)[:, :r]
    target = torch.arange(segments * n, device=metric.device).view(segments, n)
    into = target[:, 1::2].gather(1, partner.gather(1, merged))
    return target.scatter(1, 2 * merged, into).flatten()


def cases(device: str) -> Iterator[Case]:
    for size in sizes(device):
        yield case(size, device)


def case(size: Size, device: str) -> Case:
    metric, offsets, removed = size.features(device), size.offsets(device), size.cells // 4
    padded = metric.view(size.segments, size.cells, size.channels)
    r = torch.full((size.segments,), removed, device=device)
    return Case(
        kernel="bipartite_match",
        scenario=f"{removed} of {size.title}",
        ways={
            "straightforward": lambda: straightforward(padded, removed),
            **implementations(lambda: bipartite_match(metric, offsets, r), device, native=False),
        },
        bytes_moved=metric.nbytes + 12 * len(metric),
        agree=same_targets,
    )


def same_targets(results: Mapping[str, object]) -> None:
    """But for one in a thousand: scores may be nearer than fp32 sums in another order tell."""
    expected = results["straightforward"]
    assert isinstance(expected, Tensor)
    for name, match in results.items():
        if isinstance(match, Match):
            differ = int((match.target != expected).sum())
            assert differ <= len(expected) // 1000, f"{name}: {differ} of {len(expected)} differ"
