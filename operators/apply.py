"""Carry out a reduction on tokens: the only caller of segment_mean."""

import torch
from torch import Tensor

from kernels import segment_mean
from operators.errors import ShapeError
from operators.types import Reduction, Tokens


def apply(tokens: Tokens, reduction: Reduction) -> Tokens:
    """Reduce `tokens` as planned.

    `data` and `deepstack` become weighted means, `size` sums, `run` the least of the sources (a
    merged token is valid until its first source changes) and `pos` the weighted mean position,
    rounded down.
    """
    if reduction.group.shape[0] != tokens.num_tokens or reduction.offsets.shape != (
        tokens.num_segments + 1,
    ):
        raise ShapeError(f"{reduction} does not fit {tokens}: plan and apply on the same tokens.")
    group, weight = reduction.group, reduction.weight
    m = int(reduction.offsets[-1])  # waits for the device: the output is allocated by it
    slot = torch.where(group < 0, m, group)  # the last slot takes what is dropped
    return Tokens(
        data=segment_mean(tokens.data, weight, group, m),
        pos=_mean_position(tokens.pos, weight, slot, m),
        size=tokens.size.new_zeros(m + 1).index_add(0, slot, tokens.size)[:m],
        run=tokens.run.new_zeros(m + 1).scatter_reduce(
            0, slot, tokens.run, "amin", include_self=False
        )[:m],
        offsets=reduction.offsets,
        deepstack=_mean_layers(tokens.deepstack, weight, group, m),
    )


def _mean_position(pos: Tensor, weight: Tensor, slot: Tensor, m: int) -> Tensor:
    # fp64: sums of whole sizes times whole places are exact, and so is where their mean rounds.
    wide = weight.double()
    total = wide.new_zeros(m + 1).index_add(0, slot, wide)
    mean = wide.new_zeros(m + 1, 3).index_add(0, slot, pos * wide[:, None]) / total[:, None]
    # Where weights are not whole, rounding must not leave what the sources have in common.
    least = mean.new_zeros(m + 1, 3).scatter_reduce(
        0, slot[:, None].expand(-1, 3), pos.double(), "amin", include_self=False
    )
    return torch.maximum(mean.floor(), least)[:m].to(pos.dtype)


def _mean_layers(stack: Tensor | None, weight: Tensor, group: Tensor, m: int) -> Tensor | None:
    if stack is None:
        return None
    layers, n, channels = stack.shape
    rows = stack.transpose(0, 1).reshape(n, layers * channels)
    mean = segment_mean(rows, weight, group, m)  # [M, L*D]
    return mean.view(m, layers, channels).transpose(0, 1).contiguous()
