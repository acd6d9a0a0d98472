"""Contexts that grow a token at a time, side by side: their keys and values stay where they are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

from streamer.language.cache import LayerCache, padding, side_by_side

ROOM = 32
"""Tokens of room with which buffers are made; when it is used up they are made anew."""


class Growing:
    """B contexts. It owns its memory: a trunk they were read from stays as it is.

    A token more costs the token, not a copy of what there is. Rows that come or go cost one.
    """

    def __init__(self) -> None:
        self._layers: list[_Layer] = []

    @property
    def lengths(self) -> list[int]:
        """Of each layer, with padding; they differ where an operator reduces."""
        return [layer.length for layer in self._layers]

    def join(self, contexts: Sequence[LayerCache]) -> None:
        """More rows, behind those there are."""
        self._take(side_by_side([self._caches(), contexts] if self._layers else [contexts]))

    def keep(self, rows: list[int]) -> None:
        """Only these rows stay, without the padding that none of them needs."""
        firsts: dict[int, int] = {}
        biases: dict[int, Tensor] = {}
        kept = []
        for cache in self._caches() if rows else []:
            known = id(cache.bias)  # of layers that share theirs, once
            if known not in firsts:
                bias = cache.bias[rows]
                firsts[known] = first = _first(bias)
                biases[known] = bias[:, first:]
            first = firsts[known]
            kept.append(
                LayerCache(
                    keys=cache.keys[rows, :, first:],
                    values=cache.values[rows, :, first:],
                    bias=biases[known],
                )
            )
        self._take(kept)

    def step(self, network: Qwen3VLTextModel, ids: Tensor, positions: Tensor) -> Tensor:
        """One token (B,) more for each row, at its position (B,); the last hidden states (B, D)."""
        if self._layers and self._layers[0].room == 0:
            self._take(self._caches())
        hidden = network.embed_tokens(ids[:, None])
        rotary = network.rotary_emb(hidden, positions[None, :, None].expand(3, -1, -1))
        for block, layer in zip(network.layers, self._layers, strict=True):
            hidden = block(
                hidden,
                position_embeddings=rotary,
                attention_mask=layer.bias.mask(layer.length + 1),
                past_key_values=layer,
                use_cache=True,
            )
        last: Tensor = hidden[:, 0]
        return last

    def _caches(self) -> list[LayerCache]:
        biases: dict[int, Tensor] = {}
        for layer in self._layers:
            if id(layer.bias) not in biases:
                biases[id(layer.bias)] = layer.bias.buffer[:, : layer.length]
        return [layer.cache(biases[id(layer.bias)]) for layer in self._layers]

    def _take(self, caches: Sequence[LayerCache]) -> None:
        biases: dict[int, _Bias] = {}
        for cache in caches:
            if id(cache.bias) not in biases:
                biases[id(cache.bias)] = _Bias(cache.bias)
        self._layers = [_Layer(cache, biases[id(cache.bias)]) for cache in caches]


def _first(bias: Tensor) -> int:
    """Where the first of some rows (B, L) begins."""
    return int((bias > padding(bias.dtype)).any(0).int().argmax())


class _Bias:
    """What is added to the logits of each key; layers of equal length share one."""

    def __init__(self, bias: Tensor) -> None:
        self.buffer = functional.pad(bias, (0, ROOM))

    def mask(self, length: int) -> Tensor:
        return self.buffer[:, None, None, :length]


class _Layer:
    """One layer's keys and values, as its attention wants a cache."""

    def __init__(self, cache: LayerCache, bias: _Bias) -> None:
        self.length = cache.length
        self.bias = bias
        self.keys = _with_room(cache.keys)
        self.values = _with_room(cache.values)

    @property
    def room(self) -> int:
        return self.keys.shape[2] - self.length

    def cache(self, bias: Tensor) -> LayerCache:
        return LayerCache(
            keys=self.keys[:, :, : self.length], values=self.values[:, :, : self.length], bias=bias
        )

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Takes what is new; all there is."""
        end = self.length + keys.shape[2]
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


def _with_room(tensor: Tensor) -> Tensor:
    rows, heads, length, channels = tensor.shape
    roomy = tensor.new_empty(rows, heads, length + ROOM, channels)
    roomy[:, :, :length] = tensor
    return roomy
