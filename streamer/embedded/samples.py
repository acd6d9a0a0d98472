"""Training samples: rendered clips, planned as the service plans streams, laid out as it prompts.

A sample is one group. Its context is the trunk a caption session would hold after the last chunk;
every chunk's answers hang off it as branches that see the trunk up to that chunk and themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators import RLT
from streamer.core.keyframes import KeyframePolicy
from streamer.core.planner import ChunkPlan, PlanState, plan_chunk
from streamer.embedded.architecture import CELL_PX, GRIDS
from streamer.embedded.render import Rendering, movers_of, render
from streamer.embedded.scene import COLOURS, Camera, Clip, Kind, random_clip
from streamer.embedded.truth import (
    QUESTION,
    QUESTIONS,
    Description,
    answer,
    caption,
    describe,
    region_of,
)
from streamer.language.layout import Layout, Piece, join
from streamer.vision.geometry import Geometry, Grid
from streamer.vision.patches import Patches, patchify

FPS = 2.0
CHUNK_FRAMES = 4
IGNORE = -100
TEST_KINDS: dict[Kind, float] = {
    "still": 0.6,
    "pan": 0.16,
    "start": 0.03,
    "stop": 0.03,
    "cut": 0.18,
}
TRAIN_KINDS: dict[Kind, float] = {
    "still": 0.74,
    "pan": 0.08,
    "start": 0.03,
    "stop": 0.03,
    "cut": 0.12,
}
"""A moving camera is soon learnt, and costs several times the tokens."""
TRAIN_TEXTURES = (0, 1000)
TEST_TEXTURES = (1 << 20, 1 << 30)
CAMERAS: tuple[Camera | str, ...] = ("still", "left", "right", "up", "down", "cut")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellTruth:
    """What each kept cell shows, 0 for nothing that moves; and what each tubelet's camera does."""

    colour: Tensor
    region: Tensor
    direction: Tensor
    camera: Tensor
    """(tubelets,) index into CAMERAS."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One group, ready for the model."""

    patches: Patches
    grid: Grid
    ids: Tensor
    positions: Tensor
    branch: Tensor
    """(L,) 0 for the trunk, 1, 2, … for the branches."""
    limit: Tensor
    """(L,) how many trunk tokens this token may see."""
    labels: Tensor
    """(L,) the token itself where it is to be predicted, else IGNORE."""
    cells: CellTruth


def group_samples(
    seed: int, layout: Layout, geometry: Geometry, *, textures: tuple[int, int] = TRAIN_TEXTURES
) -> list[Sample]:
    """The groups of one random clip, with a random way of thinning."""
    rng = np.random.default_rng((seed, 3))
    clip = any_clip(seed, rng, TRAIN_KINDS, textures)
    threshold = -1.0 if rng.random() < 0.15 else float(rng.choice([0.05, 0.08, 0.1, 0.1, 0.12]))
    rendering = render(clip)
    groups = plan_groups(clip, rendering, RLT(threshold=threshold), geometry)
    return [_sample(clip, rendering, group, layout, geometry, rng) for group in groups]


def held_out_clip(seed: int) -> Clip:
    """A clip with backgrounds that training never saw."""
    return any_clip(seed, np.random.default_rng((seed, 3)), TEST_KINDS, TEST_TEXTURES)


def any_clip(
    seed: int, rng: np.random.Generator, kinds: dict[Kind, float], textures: tuple[int, int]
) -> Clip:
    """A clip of random shape, kind, length and content; rng decides the first three."""
    rows, columns = GRIDS[rng.choice(len(GRIDS), p=[0.35, 0.25, 0.15, 0.1, 0.08, 0.07])]
    kind = tuple(kinds)[rng.choice(len(kinds), p=tuple(kinds.values()))]
    # a moving camera makes every chunk a group of its own: longer clips would only repeat that
    share = [0.15, 0.3, 0.25, 0.15, 0.08, 0.07] if kind == "still" else [0.4, 0.4, 0.2, 0, 0, 0]
    chunks = int(rng.choice([1, 2, 3, 4, 6, 8], p=share))
    frames = chunks * CHUNK_FRAMES - (int(rng.integers(1, 3)) if rng.random() < 0.1 else 0)
    return random_clip(
        seed,
        kind,
        size=(rows * CELL_PX, columns * CELL_PX),
        num_frames=frames,
        textures=textures,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlannedChunk:
    """A chunk of a clip: its frames and the plan for it."""

    start: int
    stop: int
    frames: Tensor
    plan: ChunkPlan


def plan_groups(
    clip: Clip, rendering: Rendering, operator: RLT, geometry: Geometry
) -> list[list[PlannedChunk]]:
    """Cuts a clip into chunks and groups exactly as the service would."""
    groups: list[list[PlannedChunk]] = []
    state: PlanState | None = None
    for start in range(0, clip.num_frames, CHUNK_FRAMES):
        stop = min(start + CHUNK_FRAMES, clip.num_frames)
        taken = rendering.frames[start : stop + (stop - start) % geometry.tubelet]
        if len(taken) % geometry.tubelet:
            taken = np.concatenate([taken, taken[-1:]])
        frames = torch.from_numpy(taken)
        plan, state = plan_chunk(
            frames,
            [t / FPS for t in range(start, stop)],
            state,
            t0=start / FPS,
            t1=stop / FPS,
            operator=operator,
            policy=KeyframePolicy(),
            tubelet=geometry.tubelet,
            cell_px=geometry.cell_px,
        )
        if plan.kind == "I":
            groups.append([])
        groups[-1].append(PlannedChunk(start=start, stop=stop, frames=frames, plan=plan))
    return groups


def trunk_pieces(
    plan: ChunkPlan, grid: Grid, layout: Layout, *, group_start_s: float, base: int
) -> list[Piece]:
    """The tubelets of one chunk as a session would append them."""
    pieces = []
    for j, seconds in enumerate(plan.tubelet_s):
        piece = layout.tubelet(
            seconds - group_start_s, plan.keep[j].nonzero(), max(grid.h, grid.w), base
        )
        pieces.append(piece)
        base = piece.next_base
    return pieces


def _sample(
    clip: Clip,
    rendering: Rendering,
    group: Sequence[PlannedChunk],
    layout: Layout,
    geometry: Geometry,
    rng: np.random.Generator,
) -> Sample:
    grid = Grid(h=group[0].plan.keep.shape[1], w=group[0].plan.keep.shape[2])
    trunk = [layout.head()]
    branches: list[tuple[int, Piece, Piece]] = []
    for chunk in group:
        trunk += trunk_pieces(
            chunk.plan,
            grid,
            layout,
            group_start_s=group[0].start / FPS,
            base=trunk[-1].next_base,
        )
        truth = describe(clip, rendering, chunk.start, chunk.stop, since=group[0].start)
        if truth is not None:
            question, told = _asked(truth, rng)
            asked = layout.question(question, trunk[-1].next_base)
            seen = sum(len(piece) for piece in trunk)
            branches.append((seen, asked, layout.answer(told, asked.next_base)))
    whole = join([*trunk, *(piece for _, q, a in branches for piece in (q, a))])
    length = sum(len(piece) for piece in trunk)
    branch = [torch.zeros(length, dtype=torch.long)]
    limit = [torch.arange(1, length + 1)]
    labels = [torch.full((length,), IGNORE)]
    for number, (seen, asked, told_piece) in enumerate(branches, start=1):
        size = len(asked) + len(told_piece)
        branch.append(torch.full((size,), number))
        limit.append(torch.full((size,), seen))
        labels += [torch.full((len(asked),), IGNORE), told_piece.ids]
    keep = torch.cat([chunk.plan.keep for chunk in group])
    patches = patchify(torch.cat([chunk.frames for chunk in group]), keep, geometry)
    return Sample(
        patches=patches,
        grid=grid,
        ids=whole.ids,
        positions=whole.positions,
        branch=torch.cat(branch),
        limit=torch.cat(limit),
        labels=torch.cat(labels),
        cells=_cell_truth(clip, rendering, group, keep, geometry),
    )


def _asked(truth: Description, rng: np.random.Generator) -> tuple[str, str]:
    if rng.random() < 0.25:
        question = QUESTIONS[rng.integers(len(QUESTIONS))]
        if told := answer(truth, question):
            return question, told
    return QUESTION, caption(truth)


def _cell_truth(
    clip: Clip,
    rendering: Rendering,
    group: Sequence[PlannedChunk],
    keep: Tensor,
    geometry: Geometry,
) -> CellTruth:
    size, span = geometry.cell_px, geometry.tubelet
    maps = np.zeros((3, *keep.shape), np.int64)
    cameras = np.full(len(keep), IGNORE, np.int64)
    names = tuple(COLOURS)
    row = 0
    for chunk in group:
        for first in range(chunk.start, chunk.stop, span):
            last = min(first + span - 1, chunk.stop - 1)
            shot = clip.shots[rendering.shot[last]]
            if rendering.shot[first] != rendering.shot[last]:
                cameras[row] = CAMERAS.index("cut")
            elif first != last:
                cameras[row] = CAMERAS.index(shot.camera[rendering.at[last]])
            least: NDArray[np.float64] = np.full(keep.shape[1:], 0.15 * size * size)
            for i, thing in enumerate(movers_of(shot)):
                shown = rendering.owner[last] == i
                if not shown.any():
                    continue
                covered = _per_cell(shown, size)
                mine = covered > least
                least = np.where(mine, covered, least)
                for channel, value in enumerate(
                    (names.index(thing.colour), region_of(shown), thing.direction)
                ):
                    maps[channel, row][mine] = value + 1
            row += 1
    kept = keep.numpy()
    return CellTruth(
        colour=torch.from_numpy(maps[0][kept]),
        region=torch.from_numpy(maps[1][kept]),
        direction=torch.from_numpy(maps[2][kept]),
        camera=torch.from_numpy(cameras),
    )


def _per_cell(mask: NDArray[np.bool_], size: int) -> NDArray[np.float64]:
    h, w = mask.shape[0] // size, mask.shape[1] // size
    counts: NDArray[np.float64] = mask.reshape(h, size, w, size).sum((1, 3), dtype=np.float64)
    return counts
