"""Write the small golden sets rlt/ and tome/: `python tests/golden/regen.py`.

An oracle that shares nothing with the product: numpy in fp64, loops, the methods read literally
(dense normalised floats for RLT, one token at a time for ToMe). File and array names are those of
the full sets made with the official code, so that one handler compares both.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
MARGIN = 1e-4  # no distance may lie this near to a threshold: fp32 could decide otherwise

Array = NDArray[Any]
Named = dict[str, Array]


def write(path: Path, arrays: Named) -> None:
    """As fp32 where they are fp64."""
    small = {
        key: np.ascontiguousarray(value.astype(np.float32) if value.dtype == np.float64 else value)
        for key, value in arrays.items()
    }
    if path.suffix == ".safetensors":
        save_file(small, path)
    else:
        np.savez_compressed(path, **small)  # type: ignore[arg-type]


# A ViT block, shared by both tiny encoders.


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
        return rng.normal(0, 0.2, shape).astype(np.float32).astype(np.float64)

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


# RLT


def normalised(frames: NDArray[np.uint8]) -> Array:
    """[B, T, H, W, 3] -> [B, 3, T, H, W]"""
    x: Array = (frames / 255 - MEAN) / STD
    return x.transpose(0, 4, 1, 2, 3)


def distances(x: Array, ts: int, p: int) -> Array:
    b, _, t, h, w = x.shape
    d = np.full((b, t // ts, h // p, w // p), 255.0)
    for i, j, y, z in np.ndindex(*d.shape):
        if j:
            area = np.s_[i, :, :, y * p : (y + 1) * p, z * p : (z + 1) * p]
            back, front = x[area][:, j * ts + ts - 1], x[area][:, (j - 1) * ts]
            d[i, j, y, z] = np.abs(back - front).mean()
    return d


def lengths_bhwt(keep: NDArray[np.bool_]) -> NDArray[np.int64]:
    b, t, h, w = keep.shape
    out = []
    for i, y, z in np.ndindex(b, h, w):
        heads = [j for j in range(t) if keep[i, j, y, z]]
        out += [after - head for head, after in zip(heads, [*heads[1:], t], strict=True)]
    return np.array(out, dtype=np.int64)


def masks(x: Array, p: int, taus: list[float], spans: list[int]) -> Named:
    out: Named = {}
    for tau in taus:
        for ts in spans:
            d = distances(x, ts, p)
            assert tau == 0 or np.abs(d - tau).min() > MARGIN, (tau, ts)
            keep = d > tau + 1e-12  # what should be 0 may be 1e-17 here
            out[f"mask_tau{tau}_ts{ts}"] = keep.reshape(len(x), -1)
            out[f"lengths_bhwt_tau{tau}_ts{ts}"] = lengths_bhwt(keep)
    return out


def noisy_clips(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Two clips of 8 frames in 2 x 3 cells of 16: each cell stands still, trembles or jumps."""
    frames = np.zeros((2, 8, 32, 48, 3), np.uint8)
    for i, y, z in np.ndindex(2, 2, 3):
        area = np.s_[y * 16 : y * 16 + 16, z * 16 : z * 16 + 16]
        base = rng.integers(60, 190, (16, 16, 3))
        for t in range(8):
            if rng.random() < 0.2:
                base = rng.integers(60, 190, (16, 16, 3))
            spread = int(rng.choice([0, 0, 4, 8, 16, 40]))
            frames[(i, t, *area)] = base
            if spread:
                frames[(i, t, *area)] = base + rng.integers(-spread, spread + 1)
                frames[i, t, y * 16, z * 16] += t  # distances are not whole, nor ties
    return frames


def events() -> NDArray[np.uint8]:
    """One clip of 16 frames in 2 x 3 cells of 8: step, two flashes, two drifts, ever new."""
    frames = np.full((1, 16, 16, 24, 3), 100, np.uint8)
    level = np.full((16, 2, 3), 100)
    time = np.arange(16)
    level[5:, 0, 0] = 180
    level[2, 1, 0] = 180
    level[1, 1, 1] = 180
    level[:, 0, 1] += time
    level[:, 0, 2] += 3 * time
    level[:, 1, 2] += 80 * (time * 7 % 5 % 2) + 5 * (time % 3)
    frames[0] = np.kron(level, np.ones((1, 8, 8)))[..., None]
    return frames


def sinusoid(rows: int, d: int, base: float) -> Array:
    table = np.zeros((rows, d))
    for n, i in np.ndindex(rows, d):
        angle = n / base ** ((i - i % 2) / d)
        table[n, i] = math.cos(angle) if i % 2 else math.sin(angle)
    return table


def rlt(folder: Path) -> None:
    rng = np.random.default_rng(22)
    frames = noisy_clips(rng)
    x = normalised(frames)
    mask = masks(x, 16, [0.0, 0.05, 0.1, 0.2, 0.5], [1, 2, 4])
    for threshold in (2, 8):
        raw = distances(frames.transpose(0, 4, 1, 2, 3).astype(float), 2, 16)
        assert np.abs(raw - threshold).min() > MARGIN
        mask[f"mask_raw255_thr{threshold}_ts2"] = (raw > threshold).reshape(2, -1)
    write(folder / "mask.npz", {"frames_uint8": frames, "normalized_bcthw": x, **mask})

    event_frames = events()
    event_masks = masks(normalised(event_frames), 8, [0.0, 0.1], [1, 2, 4])
    write(folder / "events_p8.npz", {"frames_uint8": event_frames, **event_masks})

    d, ts, p = 12, 2, 16
    keep = mask["mask_tau0.1_ts2"]
    grid = np.array([4, 2, 3])
    table = sinusoid(int(grid.prod()), d, 10000)
    crops, places = [], []
    for i, n in np.argwhere(keep):
        j, y, z = np.unravel_index(n, grid)
        area = np.s_[j * ts : j * ts + ts, y * p : y * p + p, z * p : z * p + p]
        crops.append(x[(i, slice(None), *area)])
        places.append(n)
    tokenizer: Named = {
        "frames_uint8": frames,
        "split_crops": np.stack(crops),
        "num_tokens": keep.sum(1),
        "pos_embeds": table[places],
        "token_mask": keep,
        "token_lengths": mask["lengths_bhwt_tau0.1_ts2"],
        "full_pos_embed": table,
        "unused_sinusoid_length_embed_base1000": sinusoid(4, d, 1000),
    }
    write(folder / "tokenizer_tau0.1_ts2.npz", tokenizer)

    def random(*shape: int) -> Array:
        return rng.normal(0, 0.2, shape).astype(np.float32).astype(np.float64)

    w: Named = {
        "patch_embed.proj.weight": random(d, 3, ts, p, p) / 8,
        "patch_embed.proj.bias": random(d),
        "length_embed": random(1, 4, d),
        "fc_norm.weight": random(d) + 1,
        "fc_norm.bias": random(d),
        "head.weight": random(5, d),
        "head.bias": random(5),
        **block_weights(rng, 0, d),
        "blocks.0.attn.q_bias": random(d),
        "blocks.0.attn.v_bias": random(d),
    }

    def encode(kept: NDArray[np.bool_], extra: Array) -> tuple[Array, Array]:
        logits, patches, used = [], [], 0
        for i in range(2):
            embedded = []
            for n in np.flatnonzero(kept[i]):
                j, y, z = np.unravel_index(n, grid)
                area = np.s_[j * ts : j * ts + ts, y * p : y * p + p, z * p : z * p + p]
                crop = x[(i, slice(None), *area)]
                embedded.append((w["patch_embed.proj.weight"] * crop).sum((1, 2, 3, 4)))
            patch = np.stack(embedded) + w["patch_embed.proj.bias"]
            patches.append(patch)
            h = patch + table[np.flatnonzero(kept[i])] + extra[used : used + len(patch)]
            used += len(patch)
            q_bias, v_bias = w["blocks.0.attn.q_bias"], w["blocks.0.attn.v_bias"]
            h, _ = attend(h, w, "blocks.0", 3, np.concatenate([q_bias, 0 * q_bias, v_bias]))
            h = feed_forward(h, w, "blocks.0")
            logits.append(dense(layer_norm(h.mean(0), w, "fc_norm"), w, "head"))
        return np.stack(logits)[:, None], np.concatenate(patches)[None]

    none = np.zeros((2 * keep.shape[1], d))
    plain, patches = encode(keep, none)
    # The official code adds lengths in (b, h, w, t) order to tokens in (b, t, h, w) order.
    lengths = mask["lengths_bhwt_tau0.1_ts2"].astype(np.int64)
    misordered, _ = encode(keep, w["length_embed"][0][lengths - 1])
    out: Named = {
        "logits_rlt_nolen": plain,
        "logits_rlt_officiallen": misordered,
        "logits_dense": encode(np.ones_like(keep, dtype=np.bool_), none)[0],
        "patch_embed_rlt": patches,
    }
    write(folder / "tiny_vit.safetensors", w)
    write(folder / "tiny_vit_out.npz", out)


# ToMe


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
        metric = rng.normal(size=(b, t, k)).astype(np.float32).astype(np.float64)
        x = rng.normal(size=(b, t, c)).astype(np.float32).astype(np.float64)
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
        return rng.normal(0, 0.2, shape).astype(np.float32).astype(np.float64)

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
    images = rng.normal(size=(2, 3, 32, 32)).astype(np.float32).astype(np.float64)

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


if __name__ == "__main__":
    rlt(HERE / "rlt")
    tome(HERE / "tome")
