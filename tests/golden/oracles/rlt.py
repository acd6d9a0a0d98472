"""RLT read literally: dense normalised floats, one cell at a time."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.golden.oracles.arrays import Array, Named, single, write
from tests.golden.oracles.vit import attend, block_weights, dense, feed_forward, layer_norm

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
MARGIN = 1e-4  # no distance may lie this near to a threshold: fp32 could decide otherwise


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
        return single(rng.normal(0, 0.2, shape))

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
