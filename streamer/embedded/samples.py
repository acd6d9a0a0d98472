"""Training samples: rendered clips, planned as the service plans streams, laid out as it prompts.

A sample is a group, or several that follow each other. Its context is the trunk a caption session
would hold after the last chunk; every chunk's answers hang off it as branches that see the trunk up
to that chunk and themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators import RLT, PixelOperator
from operators.framedrop import FrameDrop
from operators.randomdrop import RandomDrop
from streamer.config import DEFAULT_PIPELINE
from streamer.core.keyframes import KeyframePolicy
from streamer.core.pipeline import build_pipeline
from streamer.core.planner import ChunkPlan, PlanState, plan_chunk
from streamer.embedded.clips import CHUNK_FRAMES, FPS, TRAIN, Mix, any_clip
from streamer.embedded.render import Rendering, movers_of, render
from streamer.embedded.scene import COLOURS, MOVES, SHAPES, Camera, Clip
from streamer.embedded.truth import (
    QUESTION,
    QUESTIONS,
    STAYS,
    Description,
    answer,
    caption,
    describe,
    region_of,
)
from streamer.language.layout import Layout, Piece, join
from streamer.vision.geometry import Geometry, Grid
from streamer.vision.patches import Patches, patchify

IGNORE = -100


LENGTHS = (0.2, 0.65, 0.15)
"""How often training's chunks have 2, 4 and 6 frames."""
SEES_ALL = 0.12
"""Share of samples whose every cell the tower sees, so that what is told comes with all of its
context."""
ASKED_TOO = 0.45
"""Share of captions beside which a question is asked."""
NEVER = 1 << 30
"""When a token is followed whose cell is not sent again."""
JOINED_TOKENS = 600
"""Most tokens of several groups that are told of as one, as when a span is asked about."""
CAMERAS: tuple[Camera | str, ...] = ("still", *MOVES, "cut")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellTruth:
    """What each cell that the tower sees shows, 0 for nothing that moves and IGNORE for one of a
    crowd; and what each tubelet's camera does."""

    colour: Tensor
    shape: Tensor
    region: Tensor
    direction: Tensor
    camera: Tensor
    """(tubelets,) index into CAMERAS."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One group, or several that are told of as one, ready for the model."""

    patches: Patches
    """What the vision tower sees."""
    told: Tensor
    """(cells of patches,) bool: those whose tokens stand in the context."""
    born: Tensor
    until: Tensor
    """(cells of patches,) int64: the tubelet of a cell, and the one where it is sent again."""
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
    seed: int,
    layout: Layout,
    geometry: Geometry,
    *,
    mix: Mix = TRAIN,
) -> list[Sample]:
    """The groups of one random clip, with a random way of thinning."""
    rng = np.random.default_rng((seed, 3))
    clip = any_clip(seed, rng, mix)
    rendering = render(clip)
    groups = plan_groups(
        clip, rendering, any_operator(rng), geometry, frames=int(rng.choice([2, 4, 6], p=LENGTHS))
    )
    kept = sum(int(chunk.plan.keep.sum()) for group in groups for chunk in group)
    if len(groups) > 1 and kept < JOINED_TOKENS and rng.random() < 0.3:
        groups = [[chunk for group in groups for chunk in group]]
    return [sample_of(clip, rendering, group, layout, geometry, rng) for group in groups]


def any_operator(rng: np.random.Generator) -> PixelOperator[Any] | None:
    """A random way of choosing cells; None keeps all."""
    way = rng.choice(5, p=[0.17, 0.43, 0.25, 0.11, 0.04])
    factor = float(np.exp(rng.uniform(-1, 1.2)))
    ways: tuple[PixelOperator[Any] | None, ...] = (
        None,
        _default(factor if rng.random() < 0.5 else 1.0),
        RLT(threshold=0.1 * factor),
        RandomDrop(keep=float(rng.uniform(0.1, 0.8)), seed=int(rng.integers(1 << 20))),
        FrameDrop(every=int(rng.integers(2, 5))),
    )
    return ways[way]


def _default(factor: float) -> PixelOperator[Any]:
    pixel = build_pipeline([DEFAULT_PIPELINE]).pixel
    assert isinstance(pixel, RLT)
    return replace(pixel, threshold=pixel.threshold * factor)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlannedChunk:
    """A chunk of a clip: its frames and the plan for it."""

    start: int
    stop: int
    frames: Tensor
    plan: ChunkPlan


def plan_groups(
    clip: Clip,
    rendering: Rendering,
    operator: PixelOperator[Any] | None,
    geometry: Geometry,
    *,
    frames: int = CHUNK_FRAMES,
) -> list[list[PlannedChunk]]:
    """Cuts a clip into chunks of so many frames, and groups, exactly as the service would."""
    groups: list[list[PlannedChunk]] = []
    state: PlanState | None = None
    for start in range(0, clip.num_frames, frames):
        stop = min(start + frames, clip.num_frames)
        taken = rendering.frames[start:stop]
        if len(taken) % geometry.tubelet:
            taken = np.concatenate([taken, taken[-1:]])
        pictures = torch.from_numpy(taken)
        plan, state = plan_chunk(
            pictures,
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
        groups[-1].append(PlannedChunk(start=start, stop=stop, frames=pictures, plan=plan))
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


def sample_of(
    clip: Clip,
    rendering: Rendering,
    group: Sequence[PlannedChunk],
    layout: Layout,
    geometry: Geometry,
    rng: np.random.Generator,
) -> Sample:
    """One group, or several that are told of as one."""
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
            seen = sum(len(piece) for piece in trunk)
            for question, answered in _asked(truth, rng):
                asked = layout.question(question, trunk[-1].next_base)
                told = layout.answer(answered, asked.next_base)
                if question == QUESTION and truth.count is None and truth.camera in STAYS:
                    told = without_end(told)
                branches.append((seen, asked, told))
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
    seen_too = keep | (rng.random() < SEES_ALL)
    patches = patchify(torch.cat([chunk.frames for chunk in group]), seen_too, geometry)
    born, until = lives(patches.cells)
    return Sample(
        patches=patches,
        told=keep[seen_too],
        born=born,
        until=until,
        grid=grid,
        ids=whole.ids,
        positions=whole.positions,
        branch=torch.cat(branch),
        limit=torch.cat(limit),
        labels=torch.cat(labels),
        cells=_cell_truth(clip, rendering, group, seen_too, geometry),
    )


def without_end(piece: Piece) -> Piece:
    """The beginning of an answer, of which nothing is known beyond."""
    return replace(piece, ids=piece.ids[:-1], positions=piece.positions[:, :-1])


def lives(cells: Tensor) -> tuple[Tensor, Tensor]:
    """From when to when each token is the last one of its cell.

    cells: (N, 3) tubelet, row and column, in order of time. Returns (N,) int64 tubelets, from and
    until; NEVER for one that is not followed.
    """
    until = torch.full((len(cells),), NEVER)
    last: dict[tuple[int, int], int] = {}
    for n, (t, row, column) in enumerate(cells.tolist()):
        if (before := last.get((row, column))) is not None:
            until[before] = t
        last[row, column] = n
    return cells[:, 0].long(), until


def _asked(truth: Description, rng: np.random.Generator) -> list[tuple[str, str]]:
    """The caption, and now and then a question beside it, with their answers."""
    asked = [(QUESTION, caption(truth))]
    if rng.random() < ASKED_TOO:
        question = QUESTIONS[rng.integers(len(QUESTIONS))]
        if told := answer(truth, question):
            asked.append((question, told))
    return asked


def _cell_truth(
    clip: Clip,
    rendering: Rendering,
    group: Sequence[PlannedChunk],
    keep: Tensor,
    geometry: Geometry,
) -> CellTruth:
    size, span = geometry.cell_px, geometry.tubelet
    maps = np.zeros((4, *keep.shape), np.int64)
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
                if thing.extra:
                    maps[:, row][:, mine] = IGNORE
                    continue
                for channel, value in enumerate(
                    (
                        names.index(thing.colour),
                        SHAPES.index(thing.shape),
                        region_of(shown),
                        thing.direction,
                    )
                ):
                    maps[channel, row][mine] = value + 1
            row += 1
    kept = keep.numpy()
    return CellTruth(
        colour=torch.from_numpy(maps[0][kept]),
        shape=torch.from_numpy(maps[1][kept]),
        region=torch.from_numpy(maps[2][kept]),
        direction=torch.from_numpy(maps[3][kept]),
        camera=torch.from_numpy(cameras),
    )


def _per_cell(mask: NDArray[np.bool_], size: int) -> NDArray[np.float64]:
    h, w = mask.shape[0] // size, mask.shape[1] // size
    counts: NDArray[np.float64] = mask.reshape(h, size, w, size).sum((1, 3), dtype=np.float64)
    return counts
