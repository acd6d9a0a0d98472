"""A layer of a Llama on one sequence, from its weights."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6
ROPE_BASE = 10000.0


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], weight, eps=EPS)


def layer(
    x: Tensor,
    position: Tensor,
    weights: Mapping[str, Tensor],
    index: int,
    *,
    heads: int,
    hidden: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """x `[L, D]` after a layer, and its attention `[heads, L, L]`.

    Tokens attend to those at or before their own place, but not to `hidden` ones, bool `[L]`.
    """
    name = f"param.layers.{index}"
    length, d = x.shape
    normed = rms_norm(x, weights[f"{name}.input_layernorm.weight"])
    q, k, v = (
        (normed @ weights[f"{name}.self_attn.{part}_proj.weight"].T)
        .view(length, heads, d // heads)
        .transpose(0, 1)
        for part in "qkv"
    )
    logits = rotated(q, position) @ rotated(k, position).transpose(1, 2) * (d // heads) ** -0.5
    masked = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
    if hidden is not None:
        masked = masked | hidden
    attention = logits.masked_fill(masked, -torch.inf).softmax(dim=-1)
    mixed = (attention @ v).transpose(0, 1).reshape(length, d)
    x = x + mixed @ weights[f"{name}.self_attn.o_proj.weight"].T
    normed = rms_norm(x, weights[f"{name}.post_attention_layernorm.weight"])
    gate = F.silu(normed @ weights[f"{name}.mlp.gate_proj.weight"].T)
    up = normed @ weights[f"{name}.mlp.up_proj.weight"].T
    return x + (gate * up) @ weights[f"{name}.mlp.down_proj.weight"].T, attention


def rotated(x: Tensor, position: Tensor) -> Tensor:
    """x `[heads, L, C]`: channel i and i + C/2 are turned together."""
    half = x.shape[-1] // 2
    turn = ROPE_BASE ** -(torch.arange(half, device=x.device) / half)
    angle = position[:, None] * turn
    cos, sin = angle.cos(), angle.sin()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def depth(weights: Mapping[str, Tensor]) -> int:
    return len({key.split(".")[2] for key in weights if key.startswith("param.layers.")})
