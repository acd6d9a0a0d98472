"""Backgrounds: painted, photographic-looking, streets and screens, with small text-like detail."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

TEXTURE_SIZE = 384
DARKEST, BRIGHTEST = 40, 215
"""So that black and white things stand out from any background."""

CACHED = 1024
"""Textures of 0.44 MB each, of which training has so many; they take longer than all else."""

Picture = NDArray[np.float32]


@lru_cache(maxsize=CACHED)
def texture(seed: int) -> NDArray[np.uint8]:
    """(S, S, 3) detailed background that repeats endlessly in both directions."""
    rng = np.random.default_rng((seed, 2))
    kind = rng.choice(4, p=[0.25, 0.35, 0.25, 0.15])
    picture = (_painted, _leaves, _street, _screen)[kind](rng)
    if rng.random() < 0.3:
        for _ in range(rng.integers(1, 5)):
            _write(rng, picture)
    grey = picture.mean(axis=2, keepdims=True)
    picture = grey + rng.uniform(0.3, 0.7) * (picture - grey)
    drawn: NDArray[np.uint8] = np.clip(picture, DARKEST, BRIGHTEST).astype(np.uint8)
    drawn.setflags(write=False)
    return drawn


def _painted(rng: np.random.Generator) -> Picture:
    """Soft blots at several scales, some boxes and lines."""
    size = TEXTURE_SIZE
    picture = rough(rng, ((3, 22.0), (6, 16.0), (16, 12.0), (48, 9.0), (128, 6.0)))
    for _ in range(rng.integers(4, 14)):
        h, w = rng.integers(12, 120, 2)
        y, x = rng.integers(0, size - h), rng.integers(0, size - w)
        picture[y : y + h, x : x + w] += rng.normal(0, 16, 3)
    for _ in range(rng.integers(0, 6)):
        at, thick = rng.integers(0, size - 4), rng.integers(1, 4)
        line = picture[at : at + thick] if rng.random() < 0.5 else picture[:, at : at + thick]
        line += rng.normal(0, 30)
    return picture + np.float32(rng.uniform(85, 165)) + _cast(rng, 12)


def _leaves(rng: np.random.Generator) -> Picture:
    """Dead leaves: overlapping pieces of all sizes, which photographs share their statistics with.

    Model: Lee, Mumford and Huang 2001, "Occlusion models for natural images".
    """
    size = TEXTURE_SIZE
    picture = np.full((size, size, 3), rng.uniform(70, 180), np.float32) + _cast(rng, 30)
    tone = _cast(rng, 22)
    for _ in range(rng.integers(60, 260)):
        # radii fall off with the cube of their size, as in natural scenes
        radius = min(4.0 / (1 - rng.random()) ** 0.5, 110.0)
        _piece(rng, picture, radius, rng.uniform(30, 225) + tone + _cast(rng, 14))
    picture += rough(rng, ((24, 5.0), (64, 5.0), (160, 5.0)))
    return _lit(rng, _soft(picture))


def _street(rng: np.random.Generator) -> Picture:
    """Sky, houses with windows, a road in perspective."""
    size = TEXTURE_SIZE
    picture = rough(rng, ((6, 6.0), (40, 6.0), (150, 7.0)))
    horizon = int(rng.uniform(0.25, 0.55) * size)
    down = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    sky = np.float32(rng.uniform(130, 215)) + _cast(rng, 12) - 40 * down
    ground = np.float32(rng.uniform(70, 150)) + _cast(rng, 14) + 30 * down
    picture[:horizon] += np.broadcast_to(sky, picture.shape)[:horizon]
    picture[horizon:] += np.broadcast_to(ground, picture.shape)[horizon:]
    for _ in range(rng.integers(3, 10)):
        w, h = int(rng.integers(24, 90)), int(rng.integers(30, 150))
        x, foot = int(rng.integers(0, size - w)), horizon + int(rng.integers(0, 30))
        top = max(0, foot - h)
        wall = np.float32(rng.uniform(70, 190)) + _cast(rng, 16)
        house = picture[top:foot, x : x + w]
        house[:] = wall + rng.normal(0, 3, house.shape)
        pane = np.float32(rng.uniform(-60, 60))
        step, gap = int(rng.integers(8, 18)), int(rng.integers(3, 7))
        if rng.random() < 0.7:
            for row in range(3, house.shape[0] - gap, step):
                for column in range(3, w - gap, step):
                    house[row : row + gap, column : column + gap] += pane
    vanish, width = rng.uniform(0.2, 0.8) * size, rng.uniform(0.2, 0.7) * size
    below = (np.arange(size, dtype=np.float32) - horizon).clip(0) / (size - horizon)
    across = np.abs(np.arange(size, dtype=np.float32)[None] - vanish)
    road = (across < (below * width)[:, None]) & (below > 0)[:, None]
    picture[road] += np.float32(rng.uniform(-45, 30))
    picture[(across < (below * 3)[:, None]) & road] += 50
    for _ in range(rng.integers(0, 8)):
        _piece(rng, picture, rng.uniform(8, 40), rng.uniform(40, 120) + _cast(rng, 20))
    return _lit(rng, picture)


def _screen(rng: np.random.Generator) -> Picture:
    """A flat desktop with panels and lines of text."""
    size = TEXTURE_SIZE
    base = np.float32(rng.choice([rng.uniform(45, 80), rng.uniform(170, 215)]))
    picture = np.full((size, size, 3), base, np.float32) + _cast(rng, 10)
    for _ in range(rng.integers(2, 8)):
        h, w = rng.integers(20, 180, 2)
        y, x = rng.integers(0, size - h), rng.integers(0, size - w)
        picture[y : y + h, x : x + w] = rng.uniform(45, 215) + _cast(rng, 12)
    for _ in range(rng.integers(6, 16)):
        _write(rng, picture)
    return picture


def _write(rng: np.random.Generator, picture: Picture) -> None:
    """A few lines of strokes as small as letters, in place."""
    size = len(picture)
    height = int(rng.integers(3, 9))
    lines, length = int(rng.integers(1, 8)), int(rng.integers(20, 140))
    y = int(rng.integers(0, size - 2 * height * lines))
    x = int(rng.integers(0, size - length))
    ink = np.float32(rng.choice([-1, 1]) * rng.uniform(50, 120))
    for line in range(lines):
        at = y + line * 2 * height
        strokes = rng.random((height, length)) < 0.45
        strokes[:, :: max(2, height - 1)] = False
        if rng.random() < 0.3:
            strokes[:, int(length * rng.uniform(0.3, 0.9)) :] = False
        picture[at : at + height, x : x + length][strokes] += ink


def _piece(
    rng: np.random.Generator, picture: Picture, radius: float, colour: NDArray[np.float32]
) -> None:
    """One disc, box or turned box, wrapped around the edges, in place."""
    size = len(picture)
    reach = int(1.5 * radius) + 1
    y, x = rng.integers(0, size, 2)
    along = np.arange(-reach, reach + 1, dtype=np.float32)
    angle = rng.uniform(0, np.pi)
    stretch = np.exp(rng.uniform(-0.6, 0.6))
    u = (np.cos(angle) * along[None] + np.sin(angle) * along[:, None]) * stretch
    v = (np.cos(angle) * along[:, None] - np.sin(angle) * along[None]) / stretch
    inside = np.hypot(u, v) < radius if rng.random() < 0.5 else np.maximum(abs(u), abs(v)) < radius
    rows, columns = np.nonzero(inside)
    shade = 1 + np.float32(rng.uniform(-0.25, 0.25)) * (v[rows, columns] / radius)
    picture[(y + rows) % size, (x + columns) % size] = colour * shade[:, None]


def _lit(rng: np.random.Generator, picture: Picture) -> Picture:
    """Unevenly, as by a sun or a lamp; the seam stays smooth."""
    size = len(picture)
    turn = np.arange(size, dtype=np.float32) * (2 * np.pi / size)
    wave = np.sin(turn + rng.uniform(0, 6.3))[:, None] + np.sin(turn + rng.uniform(0, 6.3))[None]
    lit: Picture = picture * (1 + np.float32(rng.uniform(0, 0.2)) * wave[..., None])
    return lit


def _soft(picture: Picture) -> Picture:
    near = (
        np.roll(picture, 1, 0) + np.roll(picture, -1, 0)
        + np.roll(picture, 1, 1) + np.roll(picture, -1, 1)
    )  # fmt: skip
    soft: Picture = 0.5 * picture + 0.125 * near
    return soft


def _cast(rng: np.random.Generator, strength: float) -> NDArray[np.float32]:
    return rng.normal(0, strength, 3).astype(np.float32)


def rough(rng: np.random.Generator, scales: tuple[tuple[int, float], ...]) -> Picture:
    """(S, S, 3) smooth noise; scales: bumps along a side, and their strength."""
    picture = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 3), np.float32)
    for cells, strength in scales:
        grid = rng.normal(0, 1, (cells, cells, 1 if cells > 6 else 3)).astype(np.float32)
        picture += np.float32(strength * rng.uniform(0.3, 1.2)) * _upsample(grid, TEXTURE_SIZE)
    return picture


def _upsample(grid: Picture, size: int) -> Picture:
    """Bilinear, wrapping at the edges."""
    cells = grid.shape[0]
    at = np.arange(size, dtype=np.float32) * cells / size
    low = at.astype(np.int64)
    high, f = (low + 1) % cells, (at - low).astype(np.float32)
    rows = grid[low] * (1 - f)[:, None, None] + grid[high] * f[:, None, None]
    mixed = rows[:, low] * (1 - f)[None, :, None] + rows[:, high] * f[None, :, None]
    grown: Picture = mixed.astype(np.float32)
    return grown
