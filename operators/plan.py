"""Pure helpers that make and combine reductions."""

import torch
from torch import Tensor

from kernels import top_k
from operators.types import Reduction, Tokens


def identity(weight: Tensor, offsets: Tensor) -> Reduction:
    """Every token stays as it is."""
    group = torch.arange(weight.shape[0], device=weight.device)
    return Reduction(group=group, weight=weight, offsets=offsets)


def keep_top(score: Tensor, tokens: Tokens, budget: Tensor) -> Reduction:
    """The `budget[s]` tokens of the highest score of each segment; the others are dropped.

    score fp32 `[N]`, budget int64 `[S]`. What stays keeps its order.
    """
    kept = top_k(score, tokens.offsets, budget)
    return Reduction(group=kept.group, weight=tokens.size, offsets=kept.offsets)


def keep_where(keep: Tensor, tokens: Tokens) -> Reduction:
    """The tokens for which `keep`, bool `[N]`, holds; the others are dropped."""
    ahead = torch.cat([keep.new_zeros(1, dtype=torch.int64), keep.cumsum(0)])  # [N+1]
    group = torch.where(keep, ahead[:-1], -1)
    return Reduction(group=group, weight=tokens.size, offsets=ahead[tokens.offsets])


def merge_into(target: Tensor, weight: Tensor, offsets: Tensor) -> Reduction:
    """Each token merges into the token `target` names; one that names itself stays.

    `target` int64 `[N]` points to tokens that stay, in the same segment. What stays keeps its
    order.
    """
    stays = target == torch.arange(target.shape[0], device=target.device)
    ahead = torch.cat([stays.new_zeros(1, dtype=torch.int64), stays.cumsum(0)])  # [N+1]
    return Reduction(group=ahead[target], weight=weight, offsets=ahead[offsets])


def compose(first: Reduction, second: Reduction) -> Reduction:
    """One reduction that does `second` after `first`.

    Weights are those of `first`: right where `second` weighs a merged token by the sum of what
    went into it, as sizes do.
    """
    assert first.mixing is None  # a mixing of means is not one of the tokens
    assert second.mixing is None
    padded = torch.cat([second.group, second.group.new_full((1,), -1)])  # [-1] stays dropped
    return Reduction(group=padded[first.group], weight=first.weight, offsets=second.offsets)
