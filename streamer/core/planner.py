"""Which cells of a chunk are tokenized, and whether it is an I- or a P-chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from operators import RLT, PixelOperator
from streamer.core.keyframes import Group, KeyframePolicy, KeyframeReason, keyframe_reason

CHANGED = 0.1
"""Distance above which a cell counts as changed for the cut test, whatever the operator keeps; in
ImageNet-normalised pixels, as the operator measures it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChunkPlan:
    """The decision for one chunk, before anything is encoded."""

    kind: Literal["I", "P"]
    reason: KeyframeReason | None
    keep: Tensor
    """(T, h, w) bool."""
    run: Tensor
    """(T, h, w) int32: tubelets that a kept token stays valid within the chunk, 0 where dropped."""
    tubelet_s: tuple[float, ...]
    """Media time of each tubelet's middle."""
    first_tubelet: int
    """Of the chunk, counted from the job's start."""
    changed: float
    """Share of its cells that it keeps as a P-chunk, or would; 1 where there is nothing to compare
    with."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlanState:
    """What a stream carries from chunk to chunk; a value, rebuilt by planning the group again."""

    operator: Any
    """Of the pixel operator, as its `select` left it."""
    group: Group
    tubelets: int


def plan_chunk(
    frames: Tensor,
    pts: Sequence[float],
    state: PlanState | None,
    *,
    t0: float,
    t1: float,
    operator: PixelOperator[Any] | None,
    policy: KeyframePolicy,
    tubelet: int,
    cell_px: int,
    tubelets_before: int = 0,
) -> tuple[ChunkPlan, PlanState]:
    """Decides one chunk.

    frames: (T, H, W, 3) uint8 on the model's grid, T a multiple of `tubelet`.
    pts: media time of each frame that was sampled; the rest of `frames` repeats the last one.
    state: None at the stream's start, else what the previous chunk left.
    operator: None keeps every cell.
    tubelets_before: where counting starts when there is no state; above 0 the stream has had other
        chunks, whose pictures are gone.
    """
    num_tubelets = len(frames) // tubelet
    grid = (frames.shape[1] // cell_px, frames.shape[2] // cell_px)
    group = state.group if state else None
    reason = keyframe_reason(policy, group, t1=t1, tubelets=num_tubelets, grid=grid)
    if reason == "first" and tubelets_before:
        reason = "restart"
    if reason or group is None:
        group = Group(started_s=t0, grid=grid)
    operator = operator or RLT(threshold=-1.0)
    apart = state is None or state.group.ended == "gap" or state.group.grid != grid
    before = None if state is None or apart else state.operator
    selection = operator.select(frames, None if reason else before, tubelet=tubelet, cell=cell_px)
    keep = selection.keep
    if reason and before is not None:
        keep = operator.select(frames, before, tubelet=tubelet, cell=cell_px).keep
    changed = 1.0 if apart else int(keep.sum()) / keep.numel()
    compared = selection.distance[1 if reason else 0 :]
    shares = (compared > CHANGED).flatten(1).float().mean(1)
    largest = float(shares.max()) if len(shares) else 0.0
    first = state.tubelets if state else tubelets_before
    plan = ChunkPlan(
        kind="I" if reason else "P",
        reason=reason,
        keep=selection.keep,
        run=selection.run,
        tubelet_s=tubelet_times(pts, num_tubelets, tubelet),
        first_tubelet=first,
        changed=changed,
    )
    return plan, PlanState(
        operator=selection.state,
        group=group.grown(tokens=int(plan.keep.sum()), largest_change=largest, policy=policy),
        tubelets=first + num_tubelets,
    )


def left_over(state: PlanState, plan: ChunkPlan, tokens: int) -> PlanState:
    """Operators after the encoder left so many tokens of the chunk: the group has not grown by more
    than these."""
    fewer = int(plan.keep.sum()) - tokens
    return replace(state, group=replace(state.group, tokens=state.group.tokens - fewer))


def after_gap(state: PlanState) -> PlanState:
    """Pictures are missing: the next chunk must be decodable alone."""
    return replace(state, group=replace(state.group, ended="gap"))


def when_asked(state: PlanState) -> PlanState:
    """The next chunk is to be decodable alone, whatever it shows."""
    return replace(state, group=replace(state.group, ended=state.group.ended or "asked"))


def tubelet_times(pts: Sequence[float], num_tubelets: int, tubelet: int) -> tuple[float, ...]:
    """The middle between each tubelet's first and last picture, as Qwen3-VL's processor has it."""
    padded = [*pts, *[pts[-1]] * (num_tubelets * tubelet - len(pts))]
    return tuple(
        (padded[j * tubelet] + padded[j * tubelet + tubelet - 1]) / 2 for j in range(num_tubelets)
    )


def positions(plan: ChunkPlan) -> Tensor:
    """(N, 3) int32 wire coordinates (t, h, w) of the kept cells, in order."""
    at = plan.keep.nonzero().to(torch.int32)
    at[:, 0] += plan.first_tubelet
    return at
