"""What a rendered clip shows: shots of things that move before a camera that may move too.

Coordinates are pixels of the rendered picture, x to the right and y down; speeds are pixels per
sampled frame. A random clip is a function of its seed and of what is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Shape = Literal["disc", "square", "triangle"]
Camera = Literal["still", "left", "right", "up", "down", "in", "out", "shake"]
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
PAINTS = COLOURS | {"grey": (120, 120, 125), "brown": (110, 85, 65), "stone": (165, 160, 150)}
"""Scenery may be duller than what moves."""
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
PANS: dict[Camera, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}
ZOOMS: dict[Camera, int] = {"in": 1, "out": -1}
MOVES: tuple[Camera, ...] = (*PANS, *ZOOMS, "shake")
ZOOM_PER_SPEED = 0.008
"""Growth of the picture per frame, for each pixel of camera speed."""
SHAKE_PER_SPEED = 0.4
"""Standard deviation of the camera's place, in pixels, for each pixel of camera speed."""
ALWAYS = (0, 1 << 30)


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
    stretch: float = 1.0
    """Height over width, times; the area stays."""
    shading: float = 0.0
    """How much darker its lower edge is than its centre, as a share."""
    extra: bool = False
    """One of a crowd that nobody counts."""
    shown: tuple[int, int] = ALWAYS
    """The shot's frames, half-open, in which it is there at all."""

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
class Box:
    """A part of the picture, wherever the camera looks."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One background, its things from back to front, and the camera."""

    texture_seed: int
    origin: tuple[int, int]
    """Of the first frame's top left corner in the (endless) texture."""
    things: tuple[Thing, ...]
    camera: tuple[Camera, ...]
    """One entry per frame: how the camera came there from the frame before."""
    camera_speed: float
    slant: float = 0.0
    """How much a pan goes to the side, as a share of its speed."""
    leaves: Box | None = None
    """Where the background stirs from frame to frame, as leaves and water do."""

    @property
    def num_frames(self) -> int:
        return len(self.camera)

    def views(self) -> NDArray[np.float64]:
        """(T, 3): the camera's way (x, y) from the first frame, and its magnification."""
        views = np.zeros((self.num_frames, 3))
        views[:, 2] = 1
        rng = np.random.default_rng((self.texture_seed, 5))
        for t, move in enumerate(self.camera[1:], start=1):
            views[t] = views[t - 1]
            if pan := PANS.get(move):
                views[t, :2] += np.array(pan) * self.camera_speed
                views[t, :2] += np.array(pan[::-1]) * self.camera_speed * self.slant
            elif zoom := ZOOMS.get(move):
                views[t, 2] *= (1 + ZOOM_PER_SPEED * self.camera_speed) ** zoom
            elif move == "shake":
                views[t, :2] = rng.normal(0, SHAKE_PER_SPEED * self.camera_speed, 2)
        return views


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """How bright it is, and what the camera does about it."""

    flicker: float = 0.0
    """Relative amplitude of a slow change of gain."""
    step: tuple[int, float] | None = None
    """From this frame of the clip on it is so many times as bright."""
    exposure: float = 0.0
    """Share of a change of mean brightness that the camera evens out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Shots one after another, and what light, sensor and codec add."""

    seed: int
    size: Size
    """(height, width) in pixels, before scaling."""
    scale: int = 1
    """Pixels drawn for each pixel of the coordinates."""
    shots: tuple[Shot, ...]
    noise: float = 0.0
    """Standard deviation of the sensor noise, in grey levels."""
    light: Light = Light()
    crf: int | None = None
    """The H.264 quality at which the frames are encoded and decoded again; None for neither."""

    @property
    def num_frames(self) -> int:
        return sum(shot.num_frames for shot in self.shots)

    @property
    def still(self) -> bool:
        """Whether the camera never moves, not even by a cut."""
        return len(self.shots) == 1 and set(self.shots[0].camera) == {"still"}


Kind = Literal["still", "pan", "zoom", "shake", "start", "stop", "cut", "cuts"]
RADII = (7.0, 8.2, 9.7, 11.5, 13.6, 16.0)
COUNTS = (0.2, 0.28, 0.2, 0.14, 0.1, 0.08)
"""How often a shot has 0, 1, … 5 movers."""
SHOT_FRAMES = (2, 3, 4, 5, 6, 8)
"""How long shots are that follow each other in quick succession."""


def random_clip(
    seed: int,
    kind: Kind,
    *,
    size: Size,
    num_frames: int,
    textures: tuple[int, int] = (0, 1 << 30),
    counts: Sequence[float] = COUNTS,
    busy: bool = False,
) -> Clip:
    """A clip of `num_frames` frames whose camera is of that kind.

    textures: the half-open range of texture seeds to draw from. counts: how often a shot has 0, 1,
    … movers. busy: whether crowds of any form, size and speed move before a camera that may be
    moved by a hand.
    """
    rng = np.random.default_rng(seed)
    turn = int(rng.integers(2, max(3, num_frames - 1)))
    if kind == "cut" and num_frames >= 3:
        moves = [_steady(rng, n, 0.15) for n in (turn, num_frames - turn)]
    elif kind == "cuts":
        moves = [_steady(rng, n, 0.15) for n in _quick_lengths(rng, num_frames)]
    else:
        moves = [_moves(rng, kind, num_frames, turn)]
    shots = []
    for camera in moves:
        shot = _random_shot(rng, size, camera, textures, counts)
        shots.append(_crowded(rng, shot, size) if busy else shot)
    return Clip(
        seed=seed,
        size=size,
        shots=tuple(shots),
        noise=float(rng.uniform(0, 4)) if rng.random() < 0.8 else 0.0,
        light=_random_light(rng, num_frames),
        crf=int(rng.integers(16, 35)) if rng.random() < 0.85 else None,
    )


def _quick_lengths(rng: np.random.Generator, num_frames: int) -> list[int]:
    lengths = []
    while num_frames:
        lengths.append(min(num_frames, int(rng.choice(SHOT_FRAMES))))
        num_frames -= lengths[-1]
    return lengths


def _moves(rng: np.random.Generator, kind: Kind, num_frames: int, turn: int) -> tuple[Camera, ...]:
    pan = tuple(PANS)[rng.integers(len(PANS))]
    zoom = tuple(ZOOMS)[rng.integers(len(ZOOMS))]
    either = pan if rng.random() < 0.6 else zoom
    rest: Camera = "still"
    shake: Camera = "shake"
    whole: dict[str, tuple[Camera, ...]] = {
        "pan": (pan,) * num_frames,
        "zoom": (zoom,) * num_frames,
        "shake": (shake,) * num_frames,
        "start": (*(rest,) * turn, *(either,) * (num_frames - turn)),
        "stop": (*(either,) * turn, *(rest,) * (num_frames - turn)),
    }
    return whole.get(kind, (rest,) * num_frames)


def _steady(rng: np.random.Generator, num_frames: int, moving_share: float) -> tuple[Camera, ...]:
    moves = rng.random() < moving_share
    return ((MOVES[rng.integers(len(MOVES))] if moves else "still"),) * num_frames


def _random_light(rng: np.random.Generator, num_frames: int) -> Light:
    step = None
    if rng.random() < 0.12 and num_frames > 2:
        step = (int(rng.integers(1, num_frames)), float(np.exp(rng.uniform(-0.35, 0.3))))
    return Light(
        flicker=float(rng.uniform(0, 0.05)) if rng.random() < 0.25 else 0.0,
        step=step,
        exposure=float(rng.uniform(0.3, 1)) if rng.random() < 0.25 else 0.0,
    )


def _random_shot(
    rng: np.random.Generator,
    size: Size,
    camera: tuple[Camera, ...],
    textures: tuple[int, int],
    counts: Sequence[float],
) -> Shot:
    height, width = size
    num_frames = len(camera)
    scenery = [_random_scenery(rng, size, num_frames) for _ in range(rng.integers(0, 4))]
    radii = rng.permutation(RADII)[: int(rng.choice(len(counts), p=counts))]
    movers = [
        _random_mover(rng, float(r * rng.uniform(0.97, 1.03)), size, num_frames) for r in radii
    ]
    screens = [_random_screen(rng, size)] if movers and rng.random() < 0.25 else []
    leaves = None
    if rng.random() < 0.15:
        w, h = (int(rng.integers(16, side // 2)) for side in (width, height))
        x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
        leaves = Box(x=x, y=y, width=w, height=h)
    moving = {move for move in camera if move != "still"}
    slow = moving == {"shake"}
    return Shot(
        texture_seed=int(rng.integers(*textures)),
        origin=(int(rng.integers(1 << 12)), int(rng.integers(1 << 12))),
        things=(*scenery, *movers, *screens),
        camera=camera,
        camera_speed=float(rng.uniform(2.5, 9) if slow else rng.uniform(3, 10)),
        leaves=leaves,
    )


def _crowded(rng: np.random.Generator, shot: Shot, size: Size) -> Shot:
    crowd = [_random_extra(rng, size, shot.num_frames) for _ in range(rng.integers(1, 15))]
    fast = rng.random() < 0.5
    return replace(
        shot,
        things=(*(thing for thing in shot.things if not thing.moves), *crowd),
        camera_speed=float(rng.uniform(8, 32)) if fast else shot.camera_speed,
        slant=float(rng.uniform(-0.5, 0.5)),
    )


def _random_extra(rng: np.random.Generator, size: Size, num_frames: int) -> Thing:
    radius = float(np.exp(rng.uniform(1.1, 3.7)))
    mover = _random_mover(rng, radius, size, num_frames)
    names = tuple(PAINTS)
    quick = float(np.exp(rng.uniform(-1, 1.2)))
    middle = (num_frames - 1) / 2
    vx, vy = (v * quick for v in mover.velocity)
    return replace(
        mover,
        extra=True,
        colour=names[rng.integers(len(names))],
        stretch=float(np.exp(rng.uniform(-0.8, 1.4))),
        velocity=(vx, vy),
        x=mover.x + (mover.velocity[0] - vx) * middle,
        y=mover.y + (mover.velocity[1] - vy) * middle,
    )


def _random_scenery(rng: np.random.Generator, size: Size, num_frames: int) -> Thing:
    """A thing that stays where it is; one in eight comes or goes at once, without moving."""
    height, width = size
    shown = ALWAYS
    if rng.random() < 0.12 and num_frames > 2:
        turn = int(rng.integers(1, num_frames))
        shown = (turn, ALWAYS[1]) if rng.random() < 0.5 else (0, turn)
    return _random_thing(
        rng, float(rng.uniform(5, 16)), rng.uniform(0, width), rng.uniform(0, height), shown=shown
    )


def _random_screen(rng: np.random.Generator, size: Size) -> Thing:
    """A dull post or wall that things pass behind."""
    height, width = size
    dull = tuple(name for name in PAINTS if name not in COLOURS)
    tint = rng.integers(-25, 26, 3)
    return Thing(
        shape="square",
        colour=dull[rng.integers(len(dull))],
        radius=float(rng.uniform(8, 16)),
        x=float(rng.uniform(0.1, 0.9) * width),
        y=float(rng.uniform(0.1, 0.9) * height),
        tint=(int(tint[0]), int(tint[1]), int(tint[2])),
        stretch=float(np.exp(rng.uniform(-1.2, 1.6))),
        shading=float(rng.uniform(0, 0.3)),
    )


def _random_thing(
    rng: np.random.Generator,
    radius: float,
    x: float,
    y: float,
    *,
    velocity: tuple[float, float] = (0.0, 0.0),
    shown: tuple[int, int] = ALWAYS,
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
        shading=float(rng.uniform(0, 0.25)),
        shown=shown,
    )


def _random_mover(rng: np.random.Generator, radius: float, size: Size, num_frames: int) -> Thing:
    """A mover that is in the picture at a random moment of the shot, wherever it comes from."""
    height, width = size
    heading = (rng.integers(8) + rng.uniform(-0.2, 0.2)) * math.pi / 4
    speed = rng.uniform(2.5, 10)
    vx, vy = speed * math.cos(heading), speed * math.sin(heading)
    seen_at = rng.uniform(0, num_frames - 1)
    x = rng.uniform(0.05, 0.95) * width - vx * seen_at
    y = rng.uniform(0.05, 0.95) * height - vy * seen_at
    return _random_thing(rng, radius, x, y, velocity=(float(vx), float(vy)))
