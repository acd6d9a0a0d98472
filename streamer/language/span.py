"""Tokens on their way through the layers of the LLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

from operators import Tokens
from streamer.language.cache import padding
from streamer.language.layout import Piece


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Visual:
    """The N visual tokens of a span, and what they stand for."""

    places: Tensor
    """(N,) int64: where they are in the span, its rows counted on one after another."""
    pos: Tensor
    """(N, 3) int32: (t, h, w) in cells, t counted since the job's start."""
    size: Tensor
    """(N,) fp32."""
    run: Tensor
    """(N,) int32."""
    deepstack: Tensor | None
    """(L, N, D): what is added to their hidden states after each of the first L layers."""

    def tokens(self, hidden: Tensor) -> Tokens:
        """As operators take them, in one segment; hidden: (n, D) of the whole span."""
        return Tokens(
            data=hidden[self.places],
            pos=self.pos,
            size=self.size,
            run=self.run,
            offsets=torch.tensor([0, len(self.places)], device=hidden.device),
            deepstack=self.deepstack,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Span:
    """B rows of n tokens between two layers; n differs between layers where tokens are reduced."""

    hidden: Tensor
    """(B, n, D)."""
    positions: Tensor
    """(3, B, n) int64: M-RoPE. They stay as they are when neighbours go."""
    bias: Tensor
    """(B, n): as of LayerCache."""
    visual: Visual | None = None
    """None in text."""


def text_span(network: Qwen3VLTextModel, pieces: Sequence[Piece]) -> Span:
    """Pieces of text side by side, padded on the left, before the first layer."""
    like = network.embed_tokens.weight
    widest = max(len(piece) for piece in pieces)
    pads = [widest - len(piece) for piece in pieces]
    ids = [functional.pad(p.ids, (pad, 0)) for p, pad in zip(pieces, pads, strict=True)]
    at = [functional.pad(p.positions, (pad, 0)) for p, pad in zip(pieces, pads, strict=True)]
    padded = torch.arange(widest) < torch.tensor(pads)[:, None]
    return Span(
        hidden=network.embed_tokens(torch.stack(ids).to(like.device)),
        positions=torch.stack(at, dim=1).to(like.device),
        bias=torch.where(padded, padding(like.dtype), 0.0).to(like),
    )


def side_by_side(spans: Sequence[Span]) -> Span:
    """Spans of one row each, padded on the left."""
    widest = max(span.hidden.shape[1] for span in spans)
    pads = [widest - span.hidden.shape[1] for span in spans]
    seen = [
        replace(span.visual, places=span.visual.places + n * widest + pad)
        for n, (span, pad) in enumerate(zip(spans, pads, strict=True))
        if span.visual is not None
    ]
    like = spans[0].bias.dtype
    return Span(
        hidden=torch.cat(
            [functional.pad(s.hidden, (0, 0, p, 0)) for s, p in zip(spans, pads, strict=True)]
        ),
        positions=torch.cat(
            [functional.pad(s.positions, (p, 0)) for s, p in zip(spans, pads, strict=True)], dim=1
        ),
        bias=torch.cat(
            [
                functional.pad(s.bias, (p, 0), value=padding(like))
                for s, p in zip(spans, pads, strict=True)
            ]
        ),
        visual=_join_visual(seen) if seen else None,
    )


def join(spans: Sequence[Span]) -> Span:
    """Spans of one row one after another."""
    ends = accumulate((span.hidden.shape[1] for span in spans), initial=0)
    seen = [
        replace(span.visual, places=span.visual.places + start)
        for span, start in zip(spans, ends, strict=False)
        if span.visual is not None
    ]
    return Span(
        hidden=torch.cat([span.hidden for span in spans], dim=1),
        positions=torch.cat([span.positions for span in spans], dim=2),
        bias=torch.cat([span.bias for span in spans], dim=1),
        visual=_join_visual(seen) if seen else None,
    )


def _join_visual(parts: Sequence[Visual]) -> Visual:
    stacks = [part.deepstack for part in parts if part.deepstack is not None]
    return Visual(
        places=torch.cat([part.places for part in parts]),
        pos=torch.cat([part.pos for part in parts]),
        size=torch.cat([part.size for part in parts]),
        run=torch.cat([part.run for part in parts]),
        deepstack=torch.cat(stacks, dim=1) if stacks else None,
    )
