"""A source's tubelets, and what pixel operators keep of each; no model runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from operators import PixelOperator
from streamer.core.chunker import Chunker, HasFrames
from streamer.core.keyframes import KeyframePolicy, KeyframeReason
from streamer.core.planner import PlanState, after_gap, plan_chunk
from streamer.vision.geometry import Geometry
from streamer.vision.resize import resize, whole_tubelets


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What one operator kept of one tubelet."""

    name: str
    """Of the operator, as the caller calls it."""
    tubelet: int
    """Counted from the first one."""
    t: float
    """Media seconds, in the tubelet's middle."""
    chunk: int
    kind: Literal["I", "P"]
    """Of the chunk."""
    reason: KeyframeReason | None
    """Why it is an I-chunk."""
    kept: int
    dense: int
    """How many cells there are."""

    @property
    def share(self) -> float:
        return self.kept / self.dense


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """One tubelet, and what each operator kept of it."""

    frames: Tensor
    """(tubelet, H, W, 3) uint8, on the model's grid."""
    choices: tuple[Choice, ...]
    keep: tuple[Tensor, ...]
    """(h, w) bool for each choice."""


@torch.inference_mode()
def walk(
    source: HasFrames,
    operators: Mapping[str, PixelOperator[Any] | None],
    *,
    geometry: Geometry,
    policy: KeyframePolicy,
    fps: float,
    chunk_s: float,
    seconds: float,
) -> Iterator[Look]:
    """Tubelets of the first `seconds` of media time, chunked and planned as a job would have them.

    operators: by a name of the caller's; each has its own keyframes. None keeps every cell.
    """
    chunker = Chunker(chunk_s=chunk_s, fps=fps, clock=time.perf_counter)
    states: dict[str, PlanState | None] = dict.fromkeys(operators)
    end: float | None = None
    for chunk in chunker.chunks(source):
        if chunk.t0 >= seconds:
            return
        gap = end is not None and chunk.t0 > end + 1e-6
        end = chunk.t1
        grid = geometry.fit(*chunk.frames.shape[1:3])
        frames = resize(torch.from_numpy(chunk.frames), grid, geometry)
        frames = whole_tubelets(frames, geometry.tubelet)
        plans = []
        for name, operator in operators.items():
            state = states[name]
            plan, states[name] = plan_chunk(
                frames,
                chunk.pts.tolist(),
                after_gap(state) if gap and state else state,
                t0=chunk.t0,
                t1=chunk.t1,
                operator=operator,
                policy=policy,
                tubelet=geometry.tubelet,
                cell_px=geometry.cell_px,
            )
            plans.append(plan)
        for j in range(len(frames) // geometry.tubelet):
            yield Look(
                frames=frames[j * geometry.tubelet : (j + 1) * geometry.tubelet],
                choices=tuple(
                    Choice(
                        name=name,
                        tubelet=plan.first_tubelet + j,
                        t=plan.tubelet_s[j],
                        chunk=chunk.number,
                        kind=plan.kind,
                        reason=plan.reason,
                        kept=int(plan.keep[j].sum()),
                        dense=grid.cells,
                    )
                    for name, plan in zip(operators, plans, strict=True)
                ),
                keep=tuple(plan.keep[j] for plan in plans),
            )
