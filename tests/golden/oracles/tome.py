"""ToMe read literally: one token at a time."""

from pathlib import Path

import numpy as np

from tests.golden.oracles.arrays import Array, Named, single, write
from tests.golden.oracles.vit import attend, block_weights, dense, feed_forward, layer_norm


def match(metric: Array, r: int, cls: int, distill: int) -> list[list[int]]:
    """The tokens that go into each output, in output order; the one that stays comes first."""
    t = len(metric)
    r = min(r, (t - cls - distill) // 2)
    found = []
    for a in range(2 * cls, t, 2):
        others = range(1 + 2 * distill, t, 2)
        cosines = [
            metric[a] @ metric[b] / np.linalg.norm(metric[a]) / np.linalg.norm(metric[b])
            for b in others
        ]
        found.append((max(cosines), a, others[int(np.argmax(cosines))]))
    found.sort(reverse=True)
    stays = [a for _, a, _ in found[r:]]
    stays = sorted([0, *stays]) if cls else stays
    into = {b: [b, *sorted(a for _, a, best in found[:r] if best == b)] for b in range(1, t, 2)}
    left, right = [[a] for a in stays], list(into.values())
    return [left[0], right[0], *left[1:], *right[1:]] if distill else [*left, *right]


def weighted(x: Array, size: Array, slots: list[list[int]]) -> Array:
    return np.stack([(x[s] * size[s]).sum(0) / size[s].sum() for s in slots])


def summed(x: Array, slots: list[list[int]]) -> Array:
    return np.stack([x[s].sum(0) for s in slots])


def unmerged(y: Array, slots: list[list[int]], distill: int) -> Array:
    # The official unmerge forgets that the distillation token was put second.
    if distill:
        slots = [slots[0], *slots[2:], slots[1]]
        kept = [s for s in slots if s[0] % 2 == 0]
        slots = kept + sorted((s for s in slots if s[0] % 2), key=lambda s: s[0])
    out = np.zeros((sum(len(s) for s in slots), y.shape[1]))
    for row, s in zip(y, slots, strict=True):
        out[s] = row
    return out


def matching(rng: np.random.Generator) -> Named:
    cases = {
        "even_nocls": (2, 14, 8, 6, 5, 0, 0),
        "odd_cls": (2, 15, 8, 6, 4, 1, 0),
        "cls_r_too_big": (1, 13, 8, 6, 100, 1, 0),
        "cls_dist": (2, 16, 8, 6, 4, 1, 1),
        "even_r_half": (1, 10, 4, 4, 5, 0, 0),
    }
    out: Named = {}
    for case, (b, t, k, c, r, cls, distill) in cases.items():
        metric = single(rng.normal(size=(b, t, k)))
        x = single(rng.normal(size=(b, t, c)))
        size = rng.integers(1, 6, (b, t, 1)).astype(np.float64)
        one = np.ones_like(size)
        slots = [match(row, r, cls, distill) for row in metric]
        mean = np.stack([weighted(x[i], one[i], slots[i]) for i in range(b)])
        source = np.zeros((b, len(slots[0]), t))
        for i, row in enumerate(slots):
            for slot, members in enumerate(row):
                source[i, slot, members] = 1
        arrays = {
            "metric": metric,
            "x": x,
            "size": size,
            "r_cls_dist": np.array([r, cls, distill]),
            "merge_mean": mean,
            "merge_sum": np.stack([summed(x[i], slots[i]) for i in range(b)]),
            "wavg_x": np.stack([weighted(x[i], size[i], slots[i]) for i in range(b)]),
            "wavg_size": np.stack([summed(size[i], slots[i]) for i in range(b)]),
            "wavg_x_nosize": mean,
            "wavg_size_nosize": np.stack([summed(one[i], slots[i]) for i in range(b)]),
            "source": source,
            "unmerge_of_wavg": np.stack([unmerged(mean[i], slots[i], distill) for i in range(b)]),
        }
        out |= {f"{case}/{key}": value for key, value in arrays.items()}
    metric, x = rng.normal(size=(2, 11, 8)), rng.normal(size=(2, 11, 6))
    means = np.zeros((2, 3, 6))
    for i in range(2):
        unit = metric[i] / np.linalg.norm(metric[i], axis=1, keepdims=True)
        taken: list[list[int]] = [[2], [5], [8]]
        for n in (0, 1, 3, 4, 6, 7):  # 9 and 10 do not fill a group of three
            taken[int(np.argmax([unit[n] @ unit[k] for k in (2, 5, 8)]))].append(n)
        means[i] = np.stack([x[i, m].mean(0) for m in taken])
    out |= {"kth3/metric": metric, "kth3/x": x, "kth3/merge_mean": means}
    schedules = [
        [16] * 12,
        [32, 29, 26, 23, 20, 17, 14, 11, 8, 5, 2, 0],
        [int(16 / 23 * i) for i in range(24)],
        [6, 7, 8, 9, 11, 12, 13, 14, 16, 17, 18, 20],
        [3, 2, 0, 0],
    ]
    return out | {f"parse_r/{i}": np.array(r) for i, r in enumerate(schedules)}


def tome(folder: Path) -> None:
    rng = np.random.default_rng(25)
    write(folder / "matching.npz", matching(rng))
    d, p, blocks, classes = 16, 4, 3, 7

    def random(*shape: int) -> Array:
        return single(rng.normal(0, 0.2, shape))

    w: Named = {
        "cls_token": random(1, 1, d),
        "pos_embed": random(1, 65, d),
        "patch_embed.proj.weight": random(d, 3, p, p),
        "patch_embed.proj.bias": random(d),
        "norm.weight": random(d) + 1,
        "norm.bias": random(d),
        "head.weight": random(classes, d),
        "head.bias": random(classes),
    }
    for block in range(blocks):
        w |= block_weights(rng, block, d)
        w[f"blocks.{block}.attn.qkv.bias"] = random(3 * d)
    images = single(rng.normal(size=(2, 3, 32, 32)))

    def encode(image: Array, r: int, proportional: bool) -> tuple[Array, Array, Array]:
        rows = [w["cls_token"][0, 0]]
        for y, z in np.ndindex(8, 8):
            crop = image[:, y * p : y * p + p, z * p : z * p + p]
            product = (w["patch_embed.proj.weight"] * crop).sum((1, 2, 3))
            rows.append(product + w["patch_embed.proj.bias"])
        x = np.stack(rows) + w["pos_embed"][0]
        size, source = np.ones((65, 1)), np.eye(65)
        for block in range(blocks):
            name = f"blocks.{block}"
            bias = w[f"{name}.attn.qkv.bias"]
            x, key = attend(x, w, name, 4, bias, size[:, 0] if proportional else None)
            if r:
                slots = match(key, r, 1, 0)
                x, size, source = (
                    weighted(x, size, slots),
                    summed(size, slots),
                    summed(source, slots),
                )
            x = feed_forward(x, w, name)
        return dense(layer_norm(x[0], w, "norm"), w, "head"), size, source

    final = [encode(image, 8, True) for image in images]
    out: Named = {
        "x": images,
        "logits_base": np.stack([encode(image, 0, False)[0] for image in images]),
        "logits_tome_r8_prop": np.stack([logits for logits, _, _ in final]),
        "logits_tome_r8_noprop": np.stack([encode(image, 8, False)[0] for image in images]),
        "final_size": np.stack([size for _, size, _ in final]),
        "final_source": np.stack([source for _, _, source in final]).astype(np.uint8),
    }
    write(folder / "tiny_vit.safetensors", w)
    write(folder / "tiny_vit_io.npz", out)
