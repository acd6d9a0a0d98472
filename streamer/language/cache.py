"""What one layer of the LLM remembers: keys and values, and how much each of them counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerCache:
    """One layer's keys and values of B contexts side by side, padded on the left to L tokens.

    Layers of one context may differ in length. Nothing changes a cache: a longer one is a new one.
    """

    keys: Tensor
    """(B, H, L, d), turned by their positions."""
    values: Tensor
    """(B, H, L, d)."""
    bias: Tensor
    """(B, L), of the same dtype: added to the logits of each key. 0, or log size, or `padding`."""

    @classmethod
    def empty(cls, network: Qwen3VLTextModel) -> LayerCache:
        """Of one context without tokens."""
        config, like = network.config, network.embed_tokens.weight
        nothing = like.new_empty(1, config.num_key_value_heads, 0, config.head_dim)
        return cls(keys=nothing, values=nothing, bias=like.new_empty(1, 0))

    @property
    def length(self) -> int:
        return self.bias.shape[1]

    def padded(self, length: int) -> LayerCache:
        """As long as `length`."""
        pad = length - self.length
        if not pad:
            return self
        return LayerCache(
            keys=functional.pad(self.keys, (0, 0, pad, 0)),
            values=functional.pad(self.values, (0, 0, pad, 0)),
            bias=functional.pad(self.bias, (pad, 0), value=padding(self.bias.dtype)),
        )


def side_by_side(contexts: Sequence[Sequence[LayerCache]]) -> list[LayerCache]:
    """All of them as one, layer by layer; each is a list of caches, one for each layer."""
    if len(contexts) == 1:
        return list(contexts[0])
    biases: dict[tuple[int, ...], Tensor] = {}
    return [_beside(caches, biases) for caches in zip(*contexts, strict=True)]


def _beside(caches: Sequence[LayerCache], biases: dict[tuple[int, ...], Tensor]) -> LayerCache:
    longest = max(cache.length for cache in caches)
    padded = [cache.padded(longest) for cache in caches]
    known = tuple(id(cache.bias) for cache in caches)  # layers that shared theirs go on to
    if known not in biases:
        biases[known] = torch.cat([cache.bias for cache in padded])
    return LayerCache(
        keys=torch.cat([cache.keys for cache in padded]),
        values=torch.cat([cache.values for cache in padded]),
        bias=biases[known],
    )


def padding(dtype: torch.dtype) -> float:
    """The bias of padding: nothing real sees it any more.

    It is finite, in the powers of two that kernels compute too: what sees padding alone is padding,
    and must not become NaN.
    """
    return torch.finfo(dtype).min / 4
