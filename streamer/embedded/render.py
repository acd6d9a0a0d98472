"""Pictures of a clip, and what is where in them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from streamer.embedded.compression import through_codec
from streamer.embedded.scene import PAINTS, Box, Clip, Light, Shot, Size, Thing
from streamer.embedded.texture import texture

View = tuple[float, float, float]
"""A place (x, y), and a magnification."""
DARKEST, BRIGHTEST = 0.7, 1.3
"""Most that light changes: with more, orange becomes yellow, and white grey."""


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
    views: NDArray[np.float64]
    """(T, 3): the camera's way (x, y) since the shot's start, and its magnification."""
    scale: int = 1

    def every(self, step: int) -> Rendering:
        """What a sampler that takes every step-th frame sees."""
        return Rendering(
            frames=self.frames[::step],
            owner=self.owner[::step],
            shot=self.shot[::step],
            at=self.at[::step],
            views=self.views[::step],
            scale=self.scale,
        )


def render(clip: Clip) -> Rendering:
    """Draws every frame; the same clip always gives the same bytes."""
    height, width = clip.size[0] * clip.scale, clip.size[1] * clip.scale
    rng = np.random.default_rng((clip.seed, 1))
    frames = np.empty((clip.num_frames, height, width, 3), np.uint8)
    owner = np.full((clip.num_frames, height, width), -1, np.int8)
    gain = _Gain(clip.light, rng)
    views = np.concatenate([shot.views() for shot in clip.shots])
    row = 0
    for shot in clip.shots:
        movers = movers_of(shot)
        stage = _Stage(shot, clip, rng)
        gain.begin()
        for t in range(shot.num_frames):
            view = views[row]
            frame = stage.background(view)
            for thing in shot.things:
                if thing.shown[0] <= t < thing.shown[1]:
                    index = movers.index(thing) if thing.moves else -1
                    _draw(
                        frame,
                        owner[row],
                        thing,
                        index,
                        placed(thing, t, view, clip.size),
                        clip.scale,
                    )
            frames[row] = _sense(frame, gain.of(frame, row), clip.noise, rng)
            row += 1
    lengths = [shot.num_frames for shot in clip.shots]
    return Rendering(
        frames=frames if clip.crf is None else through_codec(frames, crf=clip.crf),
        owner=owner,
        shot=np.repeat(np.arange(len(lengths)), lengths),
        at=np.concatenate([np.arange(n) for n in lengths]),
        views=views,
        scale=clip.scale,
    )


def movers_of(shot: Shot) -> list[Thing]:
    """The shot's moving things, in the order that Rendering.owner counts them."""
    return [thing for thing in shot.things if thing.moves]


def placed(thing: Thing, t: int, view: NDArray[np.float64], size: Size) -> View:
    """Its centre in frame t of the shot, in pixels of the coordinates, and its magnification."""
    height, width = size
    x = thing.x + t * thing.velocity[0] - view[0] - width / 2
    y = thing.y + t * thing.velocity[1] - view[1] - height / 2
    zoom = float(view[2])
    return float(x * zoom + width / 2), float(y * zoom + height / 2), zoom


class _Stage:
    """A shot's background, as the camera sees it."""

    def __init__(self, shot: Shot, clip: Clip, rng: np.random.Generator) -> None:
        self.shot = shot
        self.texture = texture(shot.texture_seed)
        self.size = clip.size
        self.scale = clip.scale
        self.rng = rng
        self._seen: tuple[View, NDArray[np.float32]] | None = None

    def background(self, view: NDArray[np.float64]) -> NDArray[np.float32]:
        """(H, W, 3), to be drawn on."""
        at: View = (float(view[0]), float(view[1]), float(view[2]))
        if self._seen is None or self._seen[0] != at:
            self._seen = (at, self._sampled(at))
        picture = self._seen[1].copy()
        if box := self.shot.leaves:
            self._stir(picture, box)
        return picture

    def _sampled(self, view: View) -> NDArray[np.float32]:
        """The endless texture from the camera's place on, bilinear."""
        picture = self.texture.astype(np.float32)
        for axis, (origin, side) in enumerate(zip(self.shot.origin[::-1], self.size, strict=True)):
            along = (np.arange(side * self.scale) + 0.5) / self.scale
            at = (along - side / 2) / view[2] + side / 2 + origin + view[1 - axis] - 0.5
            low = np.floor(at).astype(np.int64)
            f = (at - low).astype(np.float32)
            f = f[:, None, None] if axis == 0 else f[None, :, None]
            size = len(self.texture)
            picture = (
                picture.take(low % size, axis) * (1 - f) + picture.take((low + 1) % size, axis) * f
            )
        return picture

    def _stir(self, picture: NDArray[np.float32], box: Box) -> None:
        s = self.scale
        part = picture[box.y * s : (box.y + box.height) * s, box.x * s : (box.x + box.width) * s]
        dy, dx = self.rng.integers(-2 * s, 2 * s + 1, 2)
        part[:] = np.roll(part, (dy, dx), (0, 1))


def _draw(
    frame: NDArray[np.float32],
    owner: NDArray[np.int8],
    thing: Thing,
    index: int,
    at: View,
    scale: int,
) -> None:
    height, width = owner.shape
    x, y, radius = at[0] * scale, at[1] * scale, thing.radius * at[2] * scale
    reach = 1.8 * radius * max(thing.stretch, 1 / thing.stretch) ** 0.5 + 2
    x0, x1 = max(0, int(x - reach)), min(width, int(x + reach) + 1)
    y0, y1 = max(0, int(y - reach)), min(height, int(y + reach) + 1)
    if x0 >= x1 or y0 >= y1:
        return
    dx, dy = np.arange(x0, x1) - x + 0.5, np.arange(y0, y1) - y + 0.5
    cover = _cover(thing, radius, dx, dy)
    colour = np.array(PAINTS[thing.colour], np.float32) + np.array(thing.tint, np.float32)
    shade = (1 - thing.shading * dy / radius).astype(np.float32)
    patch = frame[y0:y1, x0:x1]
    patch += cover[..., None] * (colour * shade[:, None, None] - patch)
    owner[y0:y1, x0:x1][cover > 0.5] = index


def _cover(
    thing: Thing, radius: float, dx: NDArray[np.float64], dy: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(len(dy), len(dx)) share of each pixel that the shape covers, from its signed distance."""
    c, s = math.cos(thing.angle), math.sin(thing.angle)
    tall = math.sqrt(thing.stretch)
    u = (c * dx[None, :] + s * dy[:, None]) * tall
    v = (-s * dx[None, :] + c * dy[:, None]) / tall
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


class _Gain:
    """How bright each frame is, against the paint."""

    def __init__(self, light: Light, rng: np.random.Generator) -> None:
        self.light = light
        self.phase, self.period = rng.uniform(0, 2 * math.pi), rng.uniform(8, 40)
        self._usual: float | None = None

    def begin(self) -> None:
        """A new shot, whose brightness is the usual one."""
        self._usual = None

    def of(self, frame: NDArray[np.float32], row: int) -> float:
        light = self.light
        gain = 1 + light.flicker * math.sin(self.phase + 2 * math.pi * row / self.period)
        if light.step and row >= light.step[0]:
            gain *= light.step[1]
        if light.exposure:
            mean = float(frame[::4, ::4].mean()) * gain
            self._usual = self._usual or mean
            gain *= (self._usual / mean) ** light.exposure
        return min(max(gain, DARKEST), BRIGHTEST)


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
