"""An operator between two layers of the LLM."""

from __future__ import annotations

import torch
from torch import Tensor

from operators import Planner, Signals
from streamer.language.span import Span, Visual


def reduced(span: Span, operator: Planner, attention: Tensor | None, *, proportional: bool) -> Span:
    """What an operator leaves of a span of one row.

    Text stays, and all that stays keeps its position; a merged token stands where the first of its
    sources stood.
    attention: (n,) fp32, where the operator needs it.
    proportional: whether sizes count in attention.
    """
    seen = span.visual
    if seen is None:
        return span
    signals = Signals(attention=None if attention is None else attention[seen.places])
    result = operator.reduce(seen.tokens(span.hidden[0]), signals)
    left, group = result.tokens, result.reduction.group
    slot = torch.where(group < 0, left.num_tokens, group)  # the last slot takes what is dropped
    first = slot.new_zeros(left.num_tokens + 1)
    first = first.scatter_reduce(0, slot, seen.places, "amin", include_self=False)[:-1]
    hidden, bias = span.hidden.clone(), span.bias.clone()
    hidden[0, first] = left.data
    if proportional:
        bias[0, first] = left.size.log().to(bias.dtype)
    stays = torch.ones_like(bias[0], dtype=torch.bool)
    stays[seen.places] = False
    stays[first] = True
    kept = stays.nonzero()[:, 0]  # waits for the device: the layers ahead are as long as it
    return Span(
        hidden=hidden[:, kept],
        positions=span.positions[:, :, kept],
        bias=bias[:, kept],
        visual=Visual(
            places=stays.cumsum(0)[first] - 1,
            pos=left.pos,
            size=left.size,
            run=left.run,
            deepstack=left.deepstack,
        ),
    )
