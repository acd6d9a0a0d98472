"""Carry out a reduction on tokens and what is known of them: the only caller of segment_mean."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import segment_mean
from operators.errors import ShapeError
from operators.types import Mixing, Reduction, Signals, Tokens


def apply(tokens: Tokens, signals: Signals, reduction: Reduction) -> tuple[Tokens, Signals]:
    """Reduce `tokens` and `signals` as planned.

    `data` and `deepstack` become weighted means, or what the plan's mixing makes of them; `size`
    sums, `run` the least of the sources (a merged token is valid until its first source changes)
    and `pos` the weighted mean position, rounded down. Of the signals, `attention` is a share and
    sums, `keys` become weighted means, `change` the largest.
    """
    if reduction.group.shape[0] != tokens.num_tokens or reduction.offsets.shape != (
        tokens.num_segments + 1,
    ):
        raise ShapeError(f"{reduction} does not fit {tokens}: plan and apply on the same tokens.")
    m = int(reduction.offsets[-1])  # waits for the device: the output is allocated by it
    source = (reduction.group >= 0).nonzero()[:, 0]
    if reduction.mixing is None and source.shape[0] == m:
        index = torch.empty_like(source).scatter(0, reduction.group[source], source)
        return _picked(tokens, signals, index, reduction.offsets)
    return _merged(tokens, signals, reduction, m)


def _picked(
    tokens: Tokens, signals: Signals, index: Tensor, offsets: Tensor
) -> tuple[Tokens, Signals]:
    """Every output is one of the tokens: that of its `index`."""
    stack = tokens.deepstack
    given = {name: getattr(signals, name) for name in signals.present}
    return (
        Tokens(
            data=tokens.data.index_select(0, index),
            pos=tokens.pos.index_select(0, index),
            size=tokens.size.index_select(0, index),
            run=tokens.run.index_select(0, index),
            offsets=offsets,
            deepstack=None if stack is None else stack.index_select(1, index),
        ),
        Signals(**{name: signal.index_select(0, index) for name, signal in given.items()}),
    )


def _merged(
    tokens: Tokens, signals: Signals, reduction: Reduction, m: int
) -> tuple[Tokens, Signals]:
    group, weight = reduction.group, reduction.weight
    slot = torch.where(group < 0, m, group)  # the last slot takes what is dropped
    reduced = Tokens(
        data=_features(tokens.data, reduction, m),
        pos=_mean_position(tokens.pos, weight, slot, m),
        size=_sum(tokens.size, slot, m),
        run=_extreme(tokens.run, slot, m, "amin"),
        offsets=reduction.offsets,
        deepstack=_layers(tokens.deepstack, reduction, m),
    )
    return reduced, _signals(signals, weight, group, slot, m)


def _features(rows: Tensor, reduction: Reduction, m: int) -> Tensor:
    if reduction.mixing is None:
        return segment_mean(rows, reduction.weight, reduction.group, m)
    return _mixed(rows, reduction.mixing, m)


def _mixed(rows: Tensor, mixing: Mixing, m: int) -> Tensor:
    """`[M, D]` from `[N, D]` as the mixing says, summed in fp32; of slots without an entry, 0."""
    slot, order = mixing.slot.sort(stable=True)
    begin = torch.searchsorted(slot, torch.arange(m, device=slot.device))
    summed = F.embedding_bag(
        mixing.source[order],
        rows.float(),
        begin,
        mode="sum",
        per_sample_weights=mixing.weight[order],
    )
    return summed.to(rows.dtype)


def _layers(stack: Tensor | None, reduction: Reduction, m: int) -> Tensor | None:
    if stack is None:
        return None
    layers, n, channels = stack.shape
    rows = stack.transpose(0, 1).reshape(n, layers * channels)
    reduced = _features(rows, reduction, m)  # [M, L*D]
    return reduced.view(m, layers, channels).transpose(0, 1).contiguous()


def _signals(signals: Signals, weight: Tensor, group: Tensor, slot: Tensor, m: int) -> Signals:
    attention, keys, change = signals.attention, signals.keys, signals.change
    return Signals(
        attention=None if attention is None else _sum(attention, slot, m),
        keys=None if keys is None else segment_mean(keys, weight, group, m),
        change=None if change is None else _extreme(change, slot, m, "amax"),
    )


def _extreme(values: Tensor, slot: Tensor, m: int, which: str) -> Tensor:
    return values.new_zeros(m + 1).scatter_reduce(0, slot, values, which, include_self=False)[:m]


def _sum(values: Tensor, slot: Tensor, m: int) -> Tensor:
    return values.new_zeros(m + 1).index_add(0, slot, values)[:m]


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
