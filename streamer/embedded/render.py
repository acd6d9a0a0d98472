"""Pictures of a clip, and what is where in them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from streamer.embedded.scene import COLOURS, Clip, Shot, Thing

TEXTURE_SIZE = 384


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rendering:
    """The frames of a clip and their exact truth."""

    frames: NDArray[np.uint8]
    """(T, H, W, 3) RGB."""
    owner: NDArray[np.int8]
    """(T, H, W): index into the shot's movers of the one seen at a pixel, −1 for none."""
    shot: NDArray[np.int64]
    """(T,) index of the frame's shot."""
    at: NDArray[np.int64]
    """(T,) index of the frame within its shot."""
    scale: int = 1

    def every(self, step: int) -> Rendering:
        """What a sampler that takes every step-th frame sees."""
        return Rendering(
            frames=self.frames[::step],
            owner=self.owner[::step],
            shot=self.shot[::step],
            at=self.at[::step],
            scale=self.scale,
        )


def render(clip: Clip) -> Rendering:
    """Draws every frame; the same clip always gives the same bytes."""
    height, width = clip.size[0] * clip.scale, clip.size[1] * clip.scale
    rng = np.random.default_rng((clip.seed, 1))
    frames = np.empty((clip.num_frames, height, width, 3), np.uint8)
    owner = np.full((clip.num_frames, height, width), -1, np.int8)
    phase, period = rng.uniform(0, 2 * math.pi), rng.uniform(8, 40)
    row = 0
    for shot in clip.shots:
        background = texture(shot.texture_seed)
        movers = [thing for thing in shot.things if thing.moves]
        for t, (dx, dy) in enumerate(shot.offsets()):
            x, y = shot.origin[0] + float(dx), shot.origin[1] + float(dy)
            frame = _crop(background, x, y, height, width, clip.scale)
            for thing in shot.things:
                index = movers.index(thing) if thing.moves else -1
                at = (thing.x + t * thing.velocity[0] - dx, thing.y + t * thing.velocity[1] - dy)
                _draw(frame, owner[row], thing, index, at, clip.scale)
            gain = 1 + clip.flicker * math.sin(phase + 2 * math.pi * row / period)
            frames[row] = _sense(frame, gain, clip.noise, rng)
            row += 1
    lengths = [shot.num_frames for shot in clip.shots]
    return Rendering(
        frames=frames,
        owner=owner,
        shot=np.repeat(np.arange(len(lengths)), lengths),
        at=np.concatenate([np.arange(n) for n in lengths]),
        scale=clip.scale,
    )


@lru_cache(maxsize=1024)
def texture(seed: int) -> NDArray[np.uint8]:
    """(S, S, 3) muted, detailed background that repeats endlessly in both directions."""
    rng = np.random.default_rng((seed, 2))
    size = TEXTURE_SIZE
    picture = np.zeros((size, size, 3), np.float32)
    for cells, strength in ((3, 22.0), (6, 16.0), (16, 12.0), (48, 9.0), (128, 6.0)):
        grid = rng.normal(0, 1, (cells, cells, 1 if cells > 6 else 3)).astype(np.float32)
        picture += strength * rng.uniform(0.3, 1.2) * _upsample(grid, size)
    for _ in range(rng.integers(4, 14)):
        h, w = rng.integers(12, 120, 2)
        y, x = rng.integers(0, size - h), rng.integers(0, size - w)
        picture[y : y + h, x : x + w] += rng.normal(0, 16, 3)
    for _ in range(rng.integers(0, 6)):
        at, thick = rng.integers(0, size - 4), rng.integers(1, 4)
        line = picture[at : at + thick] if rng.random() < 0.5 else picture[:, at : at + thick]
        line += rng.normal(0, 30)
    grey = picture.mean(axis=2, keepdims=True)
    picture = grey + 0.5 * (picture - grey) + rng.uniform(85, 165) + rng.uniform(-12, 12, 3)
    drawn: NDArray[np.uint8] = np.clip(picture, 40, 215).astype(np.uint8)
    return drawn


def _upsample(grid: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Bilinear, wrapping at the edges."""
    cells = grid.shape[0]
    at = np.arange(size, dtype=np.float32) * cells / size
    low = at.astype(np.int64)
    high, f = (low + 1) % cells, (at - low).astype(np.float32)
    rows = grid[low] * (1 - f)[:, None, None] + grid[high] * f[:, None, None]
    mixed = rows[:, low] * (1 - f)[None, :, None] + rows[:, high] * f[None, :, None]
    grown: NDArray[np.float32] = mixed.astype(np.float32)
    return grown


def _crop(
    background: NDArray[np.uint8], x: float, y: float, height: int, width: int, scale: int
) -> NDArray[np.float32]:
    """(height, width, 3) of the endless texture from (x, y) on, enlarged `scale` times."""
    size = len(background)
    if scale == 1:
        rows, columns = np.arange(height) + round(y), np.arange(width) + round(x)
        return background.take(rows % size, 0).take(columns % size, 1).astype(np.float32)
    at_y, at_x = y + (np.arange(height) + 0.5) / scale, x + (np.arange(width) + 0.5) / scale
    picture = background.astype(np.float32)
    for axis, at in ((0, at_y - 0.5), (1, at_x - 0.5)):
        low = np.floor(at).astype(np.int64)
        f = (at - low).astype(np.float32)
        f = f[:, None, None] if axis == 0 else f[None, :, None]
        picture = (
            picture.take(low % size, axis) * (1 - f) + picture.take((low + 1) % size, axis) * f
        )
    return picture


def _draw(
    frame: NDArray[np.float32],
    owner: NDArray[np.int8],
    thing: Thing,
    index: int,
    at: tuple[float, float],
    scale: int,
) -> None:
    height, width = owner.shape
    x, y, radius = at[0] * scale, at[1] * scale, thing.radius * scale
    reach = 1.8 * radius + 2
    x0, x1 = max(0, int(x - reach)), min(width, int(x + reach) + 1)
    y0, y1 = max(0, int(y - reach)), min(height, int(y + reach) + 1)
    if x0 >= x1 or y0 >= y1:
        return
    cover = _cover(thing, radius, np.arange(x0, x1) - x + 0.5, np.arange(y0, y1) - y + 0.5)
    colour = np.array(COLOURS[thing.colour], np.float32) + np.array(thing.tint, np.float32)
    patch = frame[y0:y1, x0:x1]
    patch += cover[..., None] * (colour - patch)
    mine = cover > 0.5
    if index >= 0:
        owner[y0:y1, x0:x1][mine] = index


def _cover(
    thing: Thing, radius: float, dx: NDArray[np.float64], dy: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(len(dy), len(dx)) share of each pixel that the shape covers, from its signed distance."""
    c, s = math.cos(thing.angle), math.sin(thing.angle)
    u = c * dx[None, :] + s * dy[:, None]
    v = -s * dx[None, :] + c * dy[:, None]
    if thing.shape == "disc":
        distance = np.hypot(u, v) - radius
    elif thing.shape == "square":
        half = radius * math.sqrt(math.pi) / 2
        distance = np.maximum(np.abs(u), np.abs(v)) - half
    else:
        # equilateral, pointing up, centroid at the origin: inradius = sqrt(area / (3 sqrt 3))
        inradius = radius * math.sqrt(math.pi / (3 * math.sqrt(3)))
        slant = math.sqrt(3) / 2 * np.abs(u) - 0.5 * v
        distance = np.maximum(slant, v) - inradius
    return np.clip(0.5 - distance, 0, 1).astype(np.float32)


@lru_cache(maxsize=1)
def _noise_pool() -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(0, 1, (512, 512, 3)).astype(np.float32)


def _sense(
    frame: NDArray[np.float32], gain: float, noise: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    if gain != 1:
        frame = frame * np.float32(gain)
    if noise:
        height, width = frame.shape[:2]
        pool = _noise_pool()
        y, x = rng.integers(0, max(1, 512 - height + 1)), rng.integers(0, max(1, 512 - width + 1))
        rows, columns = (np.arange(y, y + height) % 512, np.arange(x, x + width) % 512)
        frame = frame + np.float32(noise) * pool[rows[:, None], columns[None, :]]
    seen: NDArray[np.uint8] = np.clip(frame + 0.5, 0, 255).astype(np.uint8)
    return seen


def movers_of(shot: Shot) -> list[Thing]:
    """The shot's moving things, in the order that Rendering.owner counts them."""
    return [thing for thing in shot.things if thing.moves]
