"""PruMerge read literally: one kept token at a time."""

from pathlib import Path

import numpy as np

from tests.golden.oracles.arrays import Array, Named, single, write

MARGIN = 1e-6  # of attention to what decides over it: fp32 could err
NEIGHBORS = 32


def attention(q: Array, k: Array) -> Array:
    """[N]: of the first row to the others, one softmax over all."""
    e = np.exp(q[0] @ k.T / np.sqrt(k.shape[1]))
    out: Array = (e / e.sum())[1:]
    return out


def bound(values: Array) -> float:
    low, high = np.percentile(values, [25, 75])
    return float(high + 1.5 * (high - low))


def ranked(a: Array, count: int) -> list[int]:
    order = sorted(range(len(a)), key=lambda i: -a[i])
    assert 0 < count < len(a)
    assert a[order[count - 1]] - a[order[count]] > MARGIN
    return order[:count]


def merged(features: Array, keys: Array, a: Array, entries: list[int], rest: list[int]) -> Array:
    unit = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    out = []
    for place, i in enumerate(entries):
        others = entries[:place] + entries[place + 1 :] + rest
        near = sorted(others, key=lambda j: -(unit[i] @ unit[j]))[:NEIGHBORS]
        out.append(features[i] + sum(a[j] * features[j] for j in near))
    last = sum((a[j] * features[j] for j in rest), start=np.zeros(features.shape[1]))
    return np.stack([*out, last])


def case(
    images: int, plus: bool, ratio: float | None, seed: int
) -> tuple[Named, dict[str, object]]:
    rng = np.random.default_rng(seed)
    n, c = 64, 8
    features = single(rng.normal(size=(images, n, c)))
    q, k = (single(rng.normal(0, 1.5, (images, n + 1, c))) for _ in range(2))
    a = np.stack([attention(q[i], k[i]) for i in range(images)])
    limit = bound(a)
    assert np.abs(a - limit).min() > MARGIN
    iqr = float((a > limit).mean())
    share = iqr if ratio is None else ratio
    count, step = int(n * share), int(1 / share)
    out = []
    for i in range(images):
        entries = ranked(a[i], count)
        if plus and ratio is None:
            entries += [j for j in range(0, n - 1, max(1, step // 3)) if j not in entries]
        elif plus:
            entries += range(step // 2, n - 1, step)
        rest = [j for j in range(n) if j not in entries]
        rest = rest[len(entries) - len(set(entries)) :]  # the official loss
        out.append(merged(features[i], k[i, 1:], a[i], entries, rest))
    arrays = {
        "in.features": features,
        "in.q": q,
        "in.k": k,
        "out.cls_attn": a,
        "out.y": np.stack(out),
    }
    told: dict[str, object] = {
        "plus": int(plus),
        "adaptive": ratio is None,
        "reduction_ratio": ratio,
        "iqr_ratio": iqr,
    }
    return arrays, told


def prumerge(folder: Path) -> None:
    cases = {
        "prumerge_adaptive": case(1, False, None, 1),
        "prumerge_adaptive_b2": case(2, False, None, 2),
        "prumerge_fixed8": case(2, False, 1 / 8, 3),
        "plus_adaptive": case(1, True, None, 4),
        "plus_fixed8": case(2, True, 1 / 8, 5),
    }
    for name, (arrays, told) in cases.items():
        write(folder / f"{name}.safetensors", arrays, metadata=told)
