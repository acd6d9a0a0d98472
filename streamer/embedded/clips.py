"""Which clips there are: random ones of any shape, kind and length, in mixes for each purpose."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from streamer.embedded.architecture import CELL_PX, GRIDS
from streamer.embedded.scene import COUNTS, Clip, Kind, random_clip

FPS = 2.0
CHUNK_FRAMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """How often clips are of which kind, and where their backgrounds come from."""

    kinds: dict[Kind, float]
    textures: tuple[int, int]
    """The half-open range of texture seeds."""
    counts: tuple[float, ...] = COUNTS
    busy: float = 0.0
    """Share of clips that are told of by their camera alone, as real footage is too rich for these
    words."""


TEST = Mix(
    kinds={
        "still": 0.58,
        "pan": 0.1,
        "zoom": 0.06,
        "shake": 0.08,
        "start": 0.02,
        "stop": 0.02,
        "cut": 0.14,
    },
    textures=(1 << 20, 1 << 30),
)
VALIDATION = replace(TEST, textures=(1 << 16, 1 << 20))
TRAIN = Mix(
    kinds={
        "still": 0.54,
        "pan": 0.05,
        "zoom": 0.06,
        "shake": 0.13,
        "start": 0.02,
        "stop": 0.02,
        "cut": 0.1,
        "cuts": 0.08,
    },
    textures=(0, 1024),
    counts=(0.15, 0.24, 0.2, 0.17, 0.14, 0.1),
    busy=0.12,
)
"""A panning camera is soon learnt, and costs several times the tokens; crowds, shakes and cuts in
quick succession are learnt last."""


def held_out_clip(seed: int) -> Clip:
    """A clip with backgrounds that training never saw."""
    return any_clip(seed, np.random.default_rng((seed, 3)), TEST)


def any_clip(seed: int, rng: np.random.Generator, mix: Mix) -> Clip:
    """A clip of random shape, kind, length and content; rng decides all but the last."""
    rows, columns = GRIDS[rng.choice(len(GRIDS), p=[0.35, 0.25, 0.15, 0.1, 0.08, 0.07])]
    kind = tuple(mix.kinds)[rng.choice(len(mix.kinds), p=tuple(mix.kinds.values()))]
    # a moving camera makes every chunk a group of its own: longer clips would only repeat that
    long = kind in ("still", "start", "stop", "cut", "cuts")
    share = [0.05, 0.15, 0.2, 0.25, 0.2, 0.15] if long else [0.35, 0.45, 0.2, 0, 0, 0]
    chunks = int(rng.choice([1, 2, 3, 4, 6, 8], p=share))
    frames = chunks * CHUNK_FRAMES - (int(rng.integers(1, 3)) if rng.random() < 0.1 else 0)
    return random_clip(
        seed,
        kind,
        size=(rows * CELL_PX, columns * CELL_PX),
        num_frames=frames,
        textures=mix.textures,
        counts=mix.counts,
        busy=rng.random() < mix.busy,
    )
