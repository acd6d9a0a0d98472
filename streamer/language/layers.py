"""The layers of the LLM one after another, each with a cache of its own length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel, apply_rotary_pos_emb

from streamer.language.cache import LayerCache
from streamer.language.span import Span


def run_layers(
    network: Qwen3VLTextModel, span: Span, before: Sequence[LayerCache], *, first: int = 0
) -> tuple[Span, list[LayerCache]]:
    """The span after layers `first` and on, one for each cache in `before`; the caches then.

    Attention is causal: to everything in a layer's cache, and in the span to what is ahead.
    """
    rotary = network.rotary_emb(span.hidden, span.positions)
    hidden, after = span.hidden, []
    shared, bias, mask = None, span.bias, None
    for n, cache in enumerate(before, start=first):
        if cache.bias is not shared:  # layers of one trunk share theirs
            shared = cache.bias
            bias = torch.cat([shared, span.bias], dim=1)
            mask = attention_mask(bias, hidden.shape[1])
        longer = _Longer(cache)
        hidden = network.layers[n](
            hidden,
            position_embeddings=rotary,
            attention_mask=mask,
            past_key_values=longer,
            use_cache=True,
        )
        if span.visual is not None:
            stack = span.visual.deepstack
            if stack is not None and n < len(stack):
                hidden.view(-1, hidden.shape[2])[span.visual.places] += stack[n]
        after.append(LayerCache(keys=longer.keys, values=longer.values, bias=bias))
    return replace(span, hidden=hidden), after


def attention_mask(bias: Tensor, n: int) -> Tensor | None:
    """What is added to the logits of the last n of the keys that `bias` (B, L) is of.

    Returns (B, 1, n, L); None where it is causality alone, which needs no matrix.
    """
    length = bias.shape[1]
    if n == 1:
        return bias[:, None, None]
    if n == length and not bias.any():  # waits for the device, at the start of a context only
        return None
    later = bias.new_full((n, length), -torch.inf).triu(length - n + 1)
    return bias[:, None, None] + later


def last_attention(network: Qwen3VLTextModel, span: Span, cache: LayerCache, n: int) -> Tensor:
    """How the last token of a span of one row, entering layer n, attends in it to all L there are.

    cache: of layer n, with the span in it. Returns (L,) fp32, the mean over heads.
    """
    layer = network.layers[n]
    attention = layer.self_attn
    last = layer.input_layernorm(span.hidden[:, -1:])
    query = attention.q_proj(last).view(1, 1, -1, attention.head_dim)
    query = attention.q_norm(query).transpose(1, 2)  # [1, heads, 1, d]
    cos, sin = network.rotary_emb(last, span.positions[:, :, -1:])
    query, _ = apply_rotary_pos_emb(query, query, cos, sin)
    keys = cache.keys[0]  # [H, L, d], each for several heads
    logits = query.view(len(keys), -1, attention.head_dim) @ keys.mT * attention.scaling
    weights: Tensor = (logits + cache.bias[0]).float().softmax(-1)
    return weights.mean((0, 1))


class _Longer:
    """A cache as a layer's attention wants it: it gives keys and values, and gets all there are."""

    def __init__(self, cache: LayerCache) -> None:
        self.keys, self.values = cache.keys, cache.values

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        self.keys = torch.cat([self.keys, keys], dim=2)
        self.values = torch.cat([self.values, values], dim=2)
        return self.keys, self.values
