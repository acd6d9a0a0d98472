"""The two halves of a pre-norm ViT block, on one packed sequence, from its weights."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6


def norm(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(
        x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=EPS
    )


def linear(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def attention(
    x: Tensor,
    segment: Tensor,
    weights: Mapping[str, Tensor],
    block: int,
    *,
    heads: int,
    log_size: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """x `[N, D]` plus its attention inside each `segment`; and the mean key over heads `[N, K]`."""
    name = f"blocks.{block}"
    n, d = x.shape
    if f"{name}.attn.qkv.bias" in weights:
        bias = weights[f"{name}.attn.qkv.bias"]
    else:  # no bias on the keys
        q_bias, v_bias = weights[f"{name}.attn.q_bias"], weights[f"{name}.attn.v_bias"]
        bias = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
    qkv = F.linear(norm(x, weights, f"{name}.norm1"), weights[f"{name}.attn.qkv.weight"], bias)
    q, k, v = qkv.view(n, 3, heads, d // heads).permute(1, 2, 0, 3)  # each [heads, N, K]
    logits = q @ k.transpose(1, 2) * (d // heads) ** -0.5
    if log_size is not None:
        logits = logits + log_size
    logits = logits.masked_fill(segment[:, None] != segment[None, :], -torch.inf)
    mixed = (logits.softmax(dim=-1) @ v).transpose(0, 1).reshape(n, d)
    return x + linear(mixed, weights, f"{name}.attn.proj"), k.mean(dim=0)


def mlp(x: Tensor, weights: Mapping[str, Tensor], block: int) -> Tensor:
    name = f"blocks.{block}"
    hidden = F.gelu(linear(norm(x, weights, f"{name}.norm2"), weights, f"{name}.mlp.fc1"))
    return x + linear(hidden, weights, f"{name}.mlp.fc2")


def depth(weights: Mapping[str, Tensor]) -> int:
    return len({key.split(".")[1] for key in weights if key.startswith("blocks.")})
