"""DTD read literally: one token at a time."""

from pathlib import Path

import numpy as np

from tests.golden.oracles.arrays import Array, Named, single, write

MARGIN = 1e-4  # no distance may lie this near to a threshold: fp32 could decide otherwise
PATCH, MERGE = 14, 2
START, END, VIDEO = 90, 91, 93


def cosines(hidden: Array, cells: int) -> Array:
    """[T-1, cells]"""
    out = np.zeros((len(hidden) // cells - 1, cells))
    for t, c in np.ndindex(*out.shape):
        a, b = hidden[(t + 1) * cells + c], hidden[t * cells + c]
        out[t, c] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return out


def changes(frames: Array, h: int, w: int) -> Array:
    """[T-1, h*w]: second sub-frame against the first one of the tubelet before."""
    out = np.zeros((len(frames) - 1, h * w))
    side = PATCH * MERGE
    for t, c in np.ndindex(*out.shape):
        y, x = c // w * side, c % w * side
        area = np.s_[:, y : y + side, x : x + side]
        out[t, c] = np.abs(frames[t + 1, 1][area] - frames[t, 0][area]).mean()
    return out


def kept(likeness: Array, threshold: float, relative: bool, by: float) -> Array:
    """[T, cells], all of the first tubelet; `likeness` above `by` is dropped."""
    cells = likeness.shape[1]
    drop = likeness > by
    if relative:
        drop = np.zeros_like(drop)
        k = int(cells * threshold)
        for row, values in zip(drop, likeness, strict=True):
            row[np.argsort(-values)[:k]] = True
    else:
        assert np.abs(likeness - by).min() > MARGIN
    return np.concatenate([np.ones((1, cells), np.bool_), ~drop])


def dtd(folder: Path) -> None:
    rng = np.random.default_rng(27)
    t, h, w = 4, 2, 3
    cells = h * w
    hidden = rng.normal(size=(t, cells, 16))
    for i in range(1, t):
        hidden[i] = hidden[i - 1] + hidden[i] * rng.choice([0.1, 1, 3], (cells, 1))
    hidden = single(hidden).reshape(t * cells, 16)
    side = PATCH * MERGE
    level = rng.uniform(0.2, 0.8, (t, 1, 1, h, w)) * rng.choice([0.01, 0.1, 1], (t, 1, 1, h, w))
    level = 0.1 + np.repeat(level, 2, axis=1) + rng.uniform(0, 0.04, (t, 2, 3, h, w))
    frames = np.kron(level, np.ones((side, side))).astype(np.float16)

    ids = [1, 2, START, *[VIDEO] * (t * cells), END, 3]
    position = [np.full(3, i) for i in range(3)]
    position += [3 + np.array([2 * i, y, x]) for i, y, x in np.ndindex(t, h, w)]
    after = int(np.max(position)) + 1
    position += [np.full(3, after), np.full(3, after + 1)]
    places = np.stack(position, axis=1)[:, None]  # [3, 1, L]
    out: Named = {
        "ids": np.array([ids]),
        "position_ids": places,
        "hidden": np.zeros((1, len(ids), 16)),
        "grid": np.array([[t, h * MERGE, w * MERGE]]),
        "frames01": frames,
    }
    visual = np.array(ids) == VIDEO
    out["hidden"][0, visual] = hidden
    cosine, change = cosines(hidden, cells), changes(frames.astype(np.float64), h, w)
    masks = {f"feature_{x}_abs": kept(cosine, x, False, x) for x in (0.25, 0.5, 0.7)}
    masks |= {f"pixel_{x}_abs": kept(-change, x, False, -x) for x in (0.02, 0.05, 0.1)}
    masks["feature_0.5_rel"] = kept(cosine, 0.5, True, 0)
    masks["pixel_0.6_rel"] = kept(-change, 0.6, True, 0)
    for name, mask in masks.items():
        keep = ~visual
        keep[visual] = mask.flatten()
        out |= {f"{name}/keep": keep, f"{name}/pos": places[..., keep]}
    write(folder / "dtd.npz", out)
