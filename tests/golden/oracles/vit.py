"""A ViT block in numpy, shared by the tiny encoders."""

import math

import numpy as np

from tests.golden.oracles.arrays import Array, Named, single


def layer_norm(x: Array, w: Named, name: str) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    out: Array = scaled * w[f"{name}.weight"] + w[f"{name}.bias"]
    return out


def dense(x: Array, w: Named, name: str) -> Array:
    out: Array = x @ w[f"{name}.weight"].T + w[f"{name}.bias"]
    return out


def attend(
    x: Array, w: Named, name: str, heads: int, bias: Array, size: Array | None = None
) -> tuple[Array, Array]:
    """Attention with its residual, and the mean key over heads."""
    n, d = x.shape
    width = d // heads
    qkv = layer_norm(x, w, f"{name}.norm1") @ w[f"{name}.attn.qkv.weight"].T + bias
    out, keys = np.zeros((n, d)), np.zeros((heads, n, width))
    for i in range(heads):
        q, k, v = (qkv[:, p * d + i * width : p * d + (i + 1) * width] for p in range(3))
        e = np.exp(q @ k.T / math.sqrt(width)) * (1 if size is None else size)
        out[:, i * width : (i + 1) * width] = e / e.sum(1, keepdims=True) @ v
        keys[i] = k
    return x + dense(out, w, f"{name}.attn.proj"), keys.mean(0)


def feed_forward(x: Array, w: Named, name: str) -> Array:
    hidden = dense(layer_norm(x, w, f"{name}.norm2"), w, f"{name}.mlp.fc1")
    gelu = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    return x + dense(gelu, w, f"{name}.mlp.fc2")


def block_weights(rng: np.random.Generator, block: int, d: int) -> Named:
    def random(*shape: int) -> Array:
        # Rounded here, so that the oracle computes with what the file holds.
        return single(rng.normal(0, 0.2, shape))

    shapes = {
        "norm1": (d,),
        "norm2": (d,),
        "attn.proj": (d, d),
        "mlp.fc1": (4 * d, d),
        "mlp.fc2": (d, 4 * d),
    }
    out: Named = {f"blocks.{block}.attn.qkv.weight": random(3 * d, d)}
    for name, shape in shapes.items():
        out[f"blocks.{block}.{name}.weight"] = random(*shape) + (len(shape) == 1)
        out[f"blocks.{block}.{name}.bias"] = random(shape[0])
    return out
