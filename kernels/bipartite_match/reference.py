"""bipartite_match in torch: one small score matrix per segment."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Match:
    """Who merges into whom, by packed index."""

    target: Tensor
    """int64 `[N]`: the token this one merges into; itself if it stays."""
    score: Tensor
    """fp32 `[N]`: an A token's cosine to its best partner, merged or not; -inf for B tokens and
    for A tokens that cannot merge."""


def bipartite_match(
    metric: Tensor,
    norm: Tensor,
    offsets: Tensor,
    r: Tensor,
    protect_first: bool,
    protect_second: bool,
) -> Match:
    n = metric.shape[0]
    target = torch.arange(n, device=metric.device)
    score = torch.full((n,), -torch.inf, device=metric.device)
    borders = pairwise(offsets.tolist())
    for (start, end), remove in zip(borders, r.tolist(), strict=True):
        if end - start < 2:
            continue
        a, b = slice(start, end, 2), slice(start + 1, end, 2)
        # The norms divide the product: normalised rows would be as many bytes again.
        similarity = (metric[a] @ metric[b].T) / (norm[a, None] * norm[b])  # [A, B]
        similarity = similarity.masked_fill(similarity.isnan(), -torch.inf)
        if protect_first:
            similarity[0] = -torch.inf
        if protect_second:
            similarity[:, 0] = -torch.inf
        partner = similarity.argmax(dim=1)
        value = similarity.gather(1, partner[:, None])[:, 0]
        # Stable: equal scores must resolve alike on CPU and GPU.
        merged = value.sort(descending=True, stable=True).indices[:remove]
        merged = merged[value[merged] > -torch.inf]
        score[a] = value
        target[start + 2 * merged] = start + 2 * partner[merged] + 1
    return Match(target=target, score=score)
