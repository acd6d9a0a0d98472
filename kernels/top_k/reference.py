"""top_k in torch: two stable sorts, then ranks inside each segment."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TopK:
    """What is kept, compacted."""

    group: Tensor
    """int64 `[N]`: place among the kept rows of all segments, in order; -1 = not kept."""
    offsets: Tensor
    """int64 `[S+1]`: segment borders among the kept."""


def top_k(score: Tensor, offsets: Tensor, k: Tensor) -> TopK:
    n, lengths = score.shape[0], offsets.diff()
    segment = torch.repeat_interleave(lengths, output_size=n)  # [N]
    # Stable, twice: equal scores must resolve alike on CPU and GPU.
    score = torch.where(score.isnan(), -torch.inf, score.float())
    order = score.sort(descending=True, stable=True).indices
    order = order[segment[order].sort(stable=True).indices]
    keep = torch.zeros(n, dtype=torch.bool, device=score.device)
    rank = torch.arange(n, device=score.device) - offsets[:-1][segment]
    keep[order] = rank < k[segment]
    ahead = torch.cat([keep.new_zeros(1, dtype=torch.int64), keep.cumsum(0)])
    return TopK(group=torch.where(keep, ahead[:-1], -1), offsets=ahead[offsets])
