"""FastV read literally, in a tiny Llama: one query at a time."""

import math
from pathlib import Path

import numpy as np

from tests.golden.oracles.arrays import Array, Named, single, write

MARGIN = 1e-5  # of attention at the cut: fp32 could err
LAYERS, HEADS, D, INNER = 3, 2, 16, 24
LENGTH, SYSTEM, VISUAL = 16, 3, 8


def rms_norm(x: Array, weight: Array) -> Array:
    out: Array = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight
    return out


def turned(x: Array, position: int) -> Array:
    """Channel i with channel i + C/2, as one complex number."""
    half = len(x) // 2
    pairs = x[:half] + 1j * x[half:]
    pairs = pairs * np.exp(1j * position * 10000.0 ** (-np.arange(half) / half))
    return np.concatenate([pairs.real, pairs.imag])


def layer(
    x: Array, position: list[int], w: Named, index: int, hidden: frozenset[int] = frozenset()
) -> tuple[Array, Array]:
    """Hidden states after the layer, and its attention [heads, L, L]."""
    name, width = f"param.layers.{index}", D // HEADS
    normed = rms_norm(x, w[f"{name}.input_layernorm.weight"])
    q, k, v = (normed @ w[f"{name}.self_attn.{part}_proj.weight"].T for part in "qkv")
    attention = np.zeros((HEADS, len(x), len(x)))
    mixed = np.zeros_like(x)
    for head, i in np.ndindex(HEADS, len(x)):
        part = np.s_[head * width : (head + 1) * width]
        seen = [j for j in range(i + 1) if position[j] not in hidden]
        query = turned(q[i, part], position[i])
        e = np.array([query @ turned(k[j, part], position[j]) for j in seen])
        e = np.exp(e / math.sqrt(width))
        attention[head, i, seen] = e / e.sum()
        mixed[i, part] = attention[head, i] @ v[:, part]
    x = x + mixed @ w[f"{name}.self_attn.o_proj.weight"].T
    normed = rms_norm(x, w[f"{name}.post_attention_layernorm.weight"])
    gate = normed @ w[f"{name}.mlp.gate_proj.weight"].T
    up = normed @ w[f"{name}.mlp.up_proj.weight"].T
    out: Array = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"{name}.mlp.down_proj.weight"].T
    return out, attention


def fastv(folder: Path) -> None:
    rng = np.random.default_rng(5)

    def random(*shape: int) -> Array:
        return single(rng.normal(0, 0.3, shape) + (len(shape) == 1))

    w: Named = {"param.norm.weight": random(D)}
    for index in range(LAYERS):
        name = f"param.layers.{index}"
        w |= {f"{name}.self_attn.{part}_proj.weight": random(D, D) for part in "qkvo"}
        w |= {f"{name}.mlp.{part}_proj.weight": random(INNER, D) for part in ("gate", "up")}
        w[f"{name}.mlp.down_proj.weight"] = random(D, INNER)
        w[f"{name}.input_layernorm.weight"] = random(D)
        w[f"{name}.post_attention_layernorm.weight"] = random(D)
    embeds = single(rng.normal(size=(LENGTH, D)))
    everything = list(range(LENGTH))

    def run(
        x: Array, position: list[int], layers: range, hidden: frozenset[int] = frozenset()
    ) -> tuple[Array, list[Array]]:
        attentions = []
        for index in layers:
            x, attention = layer(x, position, w, index, hidden)
            attentions.append(attention)
        return x, attentions

    x, attentions = run(embeds, everything, range(LAYERS))
    baseline: Named = {
        "in.inputs_embeds": embeds[None],
        "out.attn_l0": attentions[0][None],
        "out.attn_l1": attentions[1][None],
        "out.last_hidden": rms_norm(x, w["param.norm.weight"])[None],
    }
    write(folder / "baseline.safetensors", w | baseline, metadata={"heads": HEADS})

    for before, keep in ((2, 4), (1, 3), (2, 8)):
        x, attentions = run(embeds, everything, range(before))
        received = attentions[-1][:, -1].mean(0)
        visual = sorted(range(SYSTEM, SYSTEM + VISUAL), key=lambda i: -received[i])
        if keep < VISUAL:
            assert received[visual[keep - 1]] - received[visual[keep]] > MARGIN
        gone = frozenset(visual[keep:])
        left = [i for i in everything if i not in gone]
        rest = range(before, LAYERS)
        dropped, _ = run(x[left], left, rest)
        masked, _ = run(x, everything, rest, gone)
        out: Named = {
            "out.keep_idx": np.array(left, np.int32),
            "out.last_hidden": rms_norm(dropped, w["param.norm.weight"])[None],
            "out.masked_last_hidden": rms_norm(masked, w["param.norm.weight"])[None],
        }
        told = {"K": before, "keep": keep, "sys": SYSTEM, "img": VISUAL, "L": LENGTH}
        write(folder / f"K{before}_keep{keep}.safetensors", out, metadata=told)
