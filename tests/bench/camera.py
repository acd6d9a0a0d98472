"""Rendered scenes of which the truth is known, and what a bad camera makes of them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

SIDE = 448
FRAMES = 24
LEVEL = 15  # grey levels, mean over channels, that are a difference
Levels = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """What happens to a picture between the scene and us."""

    name: str
    noise: float = 0.0
    """Standard deviation in grey levels, of each pixel by itself."""
    flicker: float = 0.0
    """Standard deviation of the gain from picture to picture."""
    exposure: bool = False
    """Now and then another gain, between a half and 1.2."""
    crf: int | None = None
    """H.264 at this quality, from five noisy pictures for each sampled one."""

    def films(self, scene: Levels, seed: int) -> NDArray[np.uint8]:
        """(T, H, W, 3) uint8 of a scene of the same shape."""
        rng = np.random.default_rng((seed, 1))
        level, pictures = 1.0, []
        for clean in scene:
            if self.exposure and rng.random() < 0.2:
                level = rng.uniform(0.5, 1.2)
            gain = np.float32(level * (1 + self.flicker * rng.normal()))
            for _ in range(5 if self.crf else 1):
                noise = self.noise * rng.standard_normal(clean.shape, np.float32)
                pictures.append(np.clip(clean * gain + noise + 0.5, 0, 255).astype(np.uint8))
        return np.stack(_coded(pictures, self.crf)[3::5] if self.crf else pictures)


CAMERAS = (
    Camera(name="no fault"),
    Camera(name="noise 4", noise=4),
    Camera(name="noise 12 (night)", noise=12),
    Camera(name="flicker 5 %", noise=2, flicker=0.05),
    Camera(name="auto-exposure", noise=2, exposure=True),
    Camera(name="H.264 crf 28", noise=4, crf=28),
    Camera(name="H.264 crf 35, flicker", noise=8, flicker=0.04, crf=35),
)


def scene(seed: int) -> Levels:
    """(T, H, W, 3): discs and squares before a textured wall.

    Edges are 8 to 120 pixels, contrasts 12 to 90 grey levels, speeds from 1 pixel a picture on.
    """
    rng = np.random.default_rng(seed)
    wall = np.full((SIDE, SIDE, 3), rng.uniform(80, 150), np.float32)
    for cells, strength in ((4, 25), (14, 14), (56, 10), (224, 6)):
        grid = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        wall += grid.repeat(SIDE // cells, 0).repeat(SIDE // cells, 1)
    frames = np.clip(wall, 20, 235)[None].repeat(FRAMES, 0)
    y, x = np.mgrid[:SIDE, :SIDE]
    for _ in range(8):
        radius = np.exp(rng.uniform(np.log(4), np.log(60)))
        at, speed = rng.uniform(0, SIDE, 2), rng.normal(0, 1, 2) * rng.choice([1, 5, 20])
        colour = rng.choice([-1, 1]) * rng.uniform(12, 90) + rng.normal(0, 15, 3)
        square = rng.random() < 0.5
        for t, frame in enumerate(frames):
            dy, dx = y - (at[0] + speed[0] * t) % SIDE, x - (at[1] + speed[1] * t) % SIDE
            far = np.maximum(abs(dy), abs(dx)) if square else np.hypot(dy, dx)
            frame += (np.clip(radius - far + 0.5, 0, 1)[:, :, None] * colour).astype(np.float32)
    return np.clip(frames, 0, 255)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """What changed in a scene."""

    scene: Levels
    cell: int

    def changed(self, a: int, b: int) -> NDArray[np.float64]:
        """(h, w) share of each cell that differs between pictures a and b."""
        apart = np.abs(self.scene[a] - self.scene[b]).mean(axis=2) > LEVEL
        cells = SIDE // self.cell
        shares: NDArray[np.float64] = apart.reshape(cells, self.cell, cells, self.cell).mean((1, 3))
        return shares


def _coded(pictures: list[NDArray[np.uint8]], crf: int) -> list[NDArray[np.uint8]]:
    held = io.BytesIO()
    # One thread each, so that the same pictures give the same bytes.
    alone = "threads=1:lookahead-threads=1:sync-lookahead=0"
    options = {"crf": str(crf), "g": "30", "x264-params": alone}
    with av.open(held, "w", format="mp4") as out:
        stream: Any = out.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        stream.codec_context.thread_count = 1
        for picture in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    held.seek(0)
    with av.open(held) as coded:
        return [frame.to_ndarray(format="rgb24") for frame in coded.decode(video=0)]
