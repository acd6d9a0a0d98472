"""What a rendered clip shows: shots of things that move before a camera that may move too.

Coordinates are pixels of the rendered picture, x to the right and y down; speeds are pixels per
sampled frame. A clip is a function of its seed and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Shape = Literal["disc", "square", "triangle"]
Camera = Literal["still", "left", "right", "up", "down"]
Size = tuple[int, int]

SHAPES: tuple[Shape, ...] = ("disc", "square", "triangle")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 30, 35),
    "orange": (240, 135, 20),
    "yellow": (240, 225, 40),
    "green": (35, 160, 55),
    "blue": (35, 75, 215),
    "purple": (150, 45, 175),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
}
DIRECTIONS: tuple[str, ...] = (
    "right",
    "down right",
    "down",
    "down left",
    "left",
    "up left",
    "up",
    "up right",
)
CAMERA_STEP: dict[Camera, tuple[int, int]] = {
    "still": (0, 0),
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A coloured shape; velocity (0, 0) makes it part of the scenery."""

    shape: Shape
    colour: str
    radius: float
    """Of the disc with the same area, in pixels."""
    x: float
    y: float
    """Centre at the shot's first frame, in world coordinates."""
    velocity: tuple[float, float] = (0.0, 0.0)
    tint: tuple[int, int, int] = (0, 0, 0)
    """Added to the nominal colour, per channel."""
    angle: float = 0.0

    @property
    def moves(self) -> bool:
        return self.velocity != (0.0, 0.0)

    @property
    def area(self) -> float:
        return math.pi * self.radius**2

    @property
    def direction(self) -> int:
        """Index into DIRECTIONS, nearest of eight."""
        vx, vy = self.velocity
        return round(math.atan2(vy, vx) / (math.pi / 4)) % 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One background, its things (scenery first, then movers, back to front) and the camera."""

    texture_seed: int
    origin: tuple[int, int]
    """Of the first frame's top left corner in the (endless) texture."""
    things: tuple[Thing, ...]
    camera: tuple[Camera, ...]
    """One entry per frame: how the camera came there from the frame before."""
    camera_speed: float

    @property
    def num_frames(self) -> int:
        return len(self.camera)

    def offsets(self) -> NDArray[np.float64]:
        """(T, 2) camera displacement (x, y) from the first frame."""
        steps = np.array([CAMERA_STEP[move] for move in self.camera], dtype=np.float64)
        steps[0] = 0
        return np.cumsum(steps * self.camera_speed, axis=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Shots one after another, and what the sensor adds."""

    seed: int
    size: Size
    """(height, width) in pixels, before scaling."""
    scale: int = 1
    """Pixels drawn for each pixel of the coordinates."""
    shots: tuple[Shot, ...]
    noise: float = 0.0
    """Standard deviation of the sensor noise, in grey levels."""
    flicker: float = 0.0
    """Relative amplitude of a slow change of gain."""

    @property
    def num_frames(self) -> int:
        return sum(shot.num_frames for shot in self.shots)


RADII = (7.5, 10.0, 13.0, 17.0)


Kind = Literal["still", "pan", "start", "stop", "cut"]


def random_clip(
    seed: int, kind: Kind, *, size: Size, num_frames: int, textures: tuple[int, int] = (0, 1 << 30)
) -> Clip:
    """A clip of `num_frames` frames whose camera is still, pans, starts or stops panning, or cuts.

    textures: the half-open range of texture seeds to draw from.
    """
    rng = np.random.default_rng(seed)
    turn = int(rng.integers(2, max(3, num_frames - 1)))
    if kind == "cut" and num_frames >= 3:
        lengths = [turn, num_frames - turn]
        shots = tuple(_random_shot(rng, size, _steady(rng, n, 0.15), textures) for n in lengths)
    else:
        moving = _moving(rng)
        steady: Camera = "still"
        still = (steady,) * num_frames
        cameras: dict[str, tuple[Camera, ...]] = {
            "pan": (moving,) * num_frames,
            "start": (*still[:turn], *(moving,) * (num_frames - turn)),
            "stop": (*(moving,) * turn, *still[turn:]),
        }
        shots = (_random_shot(rng, size, cameras.get(kind, still), textures),)
    return Clip(
        seed=seed,
        size=size,
        shots=shots,
        noise=float(rng.uniform(0, 3)) if rng.random() < 0.8 else 0.0,
        flicker=float(rng.uniform(0, 0.04)) if rng.random() < 0.3 else 0.0,
    )


def _moving(rng: np.random.Generator) -> Camera:
    directions: tuple[Camera, ...] = ("left", "right", "up", "down")
    return directions[rng.integers(4)]


def _steady(rng: np.random.Generator, num_frames: int, pan_share: float) -> tuple[Camera, ...]:
    return ((_moving(rng) if rng.random() < pan_share else "still"),) * num_frames


def _random_shot(
    rng: np.random.Generator, size: Size, camera: tuple[Camera, ...], textures: tuple[int, int]
) -> Shot:
    height, width = size
    num_frames = len(camera)
    scenery = [
        _random_thing(rng, float(rng.uniform(6, 16)), rng.uniform(0, width), rng.uniform(0, height))
        for _ in range(rng.integers(0, 4))
    ]
    count = int(rng.choice([0, 1, 2, 3], p=[0.18, 0.4, 0.27, 0.15]))
    radii = rng.permutation(RADII)[:count]
    movers = [
        _random_mover(rng, float(r * rng.uniform(0.95, 1.05)), size, num_frames) for r in radii
    ]
    return Shot(
        texture_seed=int(rng.integers(*textures)),
        origin=(int(rng.integers(1 << 12)), int(rng.integers(1 << 12))),
        things=(*scenery, *movers),
        camera=camera,
        camera_speed=int(rng.integers(4, 10)),
    )


def _random_thing(
    rng: np.random.Generator,
    radius: float,
    x: float,
    y: float,
    velocity: tuple[float, float] = (0.0, 0.0),
) -> Thing:
    names = tuple(COLOURS)
    tint = rng.integers(-14, 15, 3)
    return Thing(
        shape=SHAPES[rng.integers(len(SHAPES))],
        colour=names[rng.integers(len(names))],
        radius=radius,
        x=float(x),
        y=float(y),
        velocity=velocity,
        tint=(int(tint[0]), int(tint[1]), int(tint[2])),
        angle=float(rng.uniform(-0.2, 0.2)),
    )


def _random_mover(rng: np.random.Generator, radius: float, size: Size, num_frames: int) -> Thing:
    """A mover that is in the picture at a random moment of the shot, wherever it comes from."""
    height, width = size
    heading = (rng.integers(8) + rng.uniform(-0.18, 0.18)) * math.pi / 4
    speed = rng.uniform(3, 9)
    vx, vy = speed * math.cos(heading), speed * math.sin(heading)
    seen_at = rng.uniform(0, num_frames - 1)
    x = rng.uniform(0.05, 0.95) * width - vx * seen_at
    y = rng.uniform(0.05, 0.95) * height - vy * seen_at
    return _random_thing(rng, radius, x, y, (float(vx), float(vy)))
