"""Attention over packed segments of uneven length, without a Python loop over segments.

transformers calls an attention function whose name contains "flash" with the packed sequence and
its `cu_seqlens`. This one pads segments of similar length together and uses batched products, which
on CPU is several times faster, forward and backward, than one call per segment.

A segment may also be a whole group of which each token sees what was valid at its time: its own
tubelet, and the last token of every other cell. That is what a stream with a cached context sees,
all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

NAME = "flash_padded_segments"
_lives: ContextVar[tuple[Tensor, Tensor] | None] = ContextVar("lives", default=None)
STEP = 32


def padded_segments(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    cu_seq_lens_q: Tensor,
    **_: Any,
) -> tuple[Tensor, None]:
    """query, key, value: (1, heads, S, d); returns (1, S, heads, d). Within each segment."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [S, heads, d]
    lengths = cu_seq_lens_q.diff()
    steps = (lengths + STEP - 1) // STEP
    lives = _lives.get()
    pieces, rows = [], []
    for step in torch.unique(steps).tolist():
        chosen = (steps == step).nonzero()[:, 0]
        at = torch.arange(step * STEP, device=q.device)
        inside = at < lengths[chosen, None]  # [n, L]
        index = torch.where(inside, cu_seq_lens_q[chosen, None] + at, cu_seq_lens_q[chosen, None])
        n, length = index.shape
        qs, ks, vs = (
            x.index_select(0, index.flatten()).view(n, length, *x.shape[1:]).transpose(1, 2)
            for x in (q, k, v)
        )
        scores = (qs @ ks.transpose(2, 3)) * scaling
        seen = inside[:, None, :]
        if lives is not None:
            born, until = lives[0][index], lives[1][index]  # [n, L]
            valid = (born[:, None, :] <= born[..., None]) & (until[:, None, :] > born[..., None])
            seen = seen & (valid | ~inside[..., None])
        scores = scores.masked_fill(~seen[:, None], float("-inf"))
        mixed = (scores.float().softmax(-1).to(vs.dtype) @ vs).transpose(1, 2)
        pieces.append(mixed.reshape(n * length, *mixed.shape[2:])[inside.flatten()])
        rows.append(index[inside])
    order = torch.cat(rows).argsort()
    out = torch.cat(pieces).index_select(0, order)
    return out[None], None


@contextmanager
def packed_attention(tower: Qwen3VLVisionModel) -> Iterator[None]:
    """Uses padded_segments in a vision tower while the context is open."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, padded_segments)
    config = tower.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


@contextmanager
def valid_only(born: Tensor, until: Tensor) -> Iterator[None]:
    """Inside segments a token sees what was valid in its tubelet; both (S,), as samples.lives."""
    token = _lives.set((born, until))
    try:
        yield
    finally:
        _lives.reset(token)
