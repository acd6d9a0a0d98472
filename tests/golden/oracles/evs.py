"""EVS read literally: one token at a time, positions by counting."""

from pathlib import Path

import numpy as np

from tests.golden.oracles.arrays import Array, Named, single, write

MARGIN = 1e-5  # no difference may lie this near to the cut, nor another one: fp32 could err
START, END, IMAGE, VIDEO = 90, 91, 92, 93


def bfloat16(x: Array) -> Array:
    """Rounded to the nearest, halves to even."""
    bits: Array = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    out: Array = bits.astype(np.uint32).view(np.float32).astype(np.float64)
    return out


def differences(emb: Array, cells: int) -> Array:
    out = np.full(len(emb), 255.0)
    for i in range(cells, len(emb)):
        a, b = emb[i], emb[i - cells]
        out[i] = 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return out


def count(cells: int, tubelets: int, q: float) -> int:
    return max(cells, int(tubelets * cells * (1 - q)))


def mask(emb: Array, tubelets: int, q: float) -> Array:
    cells = len(emb) // tubelets
    found, k = differences(emb, cells), count(cells, tubelets, q)
    ranked = sorted(range(len(emb)), key=lambda i: (-found[i], i))
    if cells < k < len(emb):
        assert found[ranked[k - 1]] - found[ranked[k]] > MARGIN, q
    out = np.zeros(len(emb), np.bool_)
    out[ranked[:k]] = True
    return out


def places(t: int, h: int, w: int, step: int) -> Array:
    return np.array([(i * step, y, x, w) for i, y, x in np.ndindex(t, h, w)])


def evs(folder: Path) -> None:
    rng = np.random.default_rng(26)
    t, h, w, merge = 4, 4, 6, 2
    cells = (h // merge) * (w // merge)
    emb = single(rng.normal(size=(t, cells, 8)))
    for i in range(1, t):
        emb[i] = single(emb[i - 1] + emb[i] * rng.choice([0.05, 0.4, 2], (cells, 1)))
    emb = emb.reshape(t * cells, 8)
    rates = (0.0, 0.25, 0.5, 0.75, 0.9)
    still = np.tile(single(rng.normal(size=(cells, 8))), (t, 1))
    half = mask(emb, t, 0.5)

    media = places(t, h // merge, w // merge, step=2)
    image = places(1, 2, 2, step=1)
    parts: list[list[int] | Array] = [
        [1, 2, 3, START],
        media[half],
        [END, 4, 5, START],
        image,
        [END, 6],
    ]
    ids: list[int] = []
    position: list[Array] = []
    base = 0
    for part in parts:
        if isinstance(part, list):
            position += [np.full(3, base + i) for i in range(len(part))]
            ids += part
            base += len(part)
        else:
            position += [base + row[:3] for row in part]
            ids += [IMAGE if part is image else VIDEO] * len(part)
            base += int(part[0, 3])
    laid_out = np.stack(position, axis=1)

    table = [
        (c, n, q, count(c, n, q))
        for c in (1, 5, 100, 196)
        for n in (1, 2, 20, 32)
        for q in (0.0, 0.1, 0.5, 0.9, 0.99)
    ]
    masks = {f"mask_q{q:.4f}": mask(emb, t, q) for q in rates}
    coarse = {f"mask_bf16_q{q:.4f}": mask(bfloat16(emb), t, q) for q in rates}
    out: Named = {
        "emb": emb,
        "thw_merge": np.array([t, h, w, merge]),
        **masks,
        **coarse,
        "static_emb": still,
        "static_mask_q0.5": np.arange(t * cells) < count(cells, t, 0.5),
        "mrope_media": media,
        "re_ids": np.array(ids),
        "re_init": np.tile(np.arange(len(ids)), (3, 1)),
        "re_pos": laid_out,
        "re_delta": np.array(laid_out.max() + 1 - len(ids)),
        "re_video_pos": media[half],
        "re_image_pos": image,
        "re_special": np.array([START, END, IMAGE, VIDEO]),
        "count_table": np.array(table),
    }
    write(folder / "evs.npz", out, doubles=["count_table"])
