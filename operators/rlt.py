"""RLT: send a cell only when it changed since the tubelet before; otherwise its run grows.

Paper: Choudhury et al. 2024, arXiv:2411.05222, section 3. Differs: state carried across chunks.
Shapes: [T, H, W, 3] uint8 -> keep, run, distance [T/tubelet, H/cell, W/cell]. Stage: pixel.
Raises: ShapeError if frames do not divide into tubelets and cells, or differ in size from the
    state; BadParameter if the threshold is not a number.

Distances are those of ImageNet-normalised pixels. The chain is pairwise, as in the official code:
each tubelet is compared with the one before, not with the run's head. No length embedding.
`symmetric` also compares first frames with each other, so that an event seen only in a tubelet's
first frame keeps that tubelet too (ours; off for parity with the official code).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels import run_length
from operators.base import PixelOperator
from operators.errors import BadParameter, ShapeError
from operators.types import Selection


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RLTState:
    """What a chunk leaves for the next one."""

    front: Tensor
    """uint8 `[H, W, 3]`: first frame of the last tubelet."""
    open_run: Tensor
    """int32 `[h, w]`: length so far of each cell's open run, counted from its kept tubelet,
    whichever chunk that was in."""

    def __repr__(self) -> str:
        return f"RLTState(front={list(self.front.shape)}, open_run={list(self.open_run.shape)})"


@dataclass(frozen=True)
class RLT(PixelOperator[RLTState]):
    threshold: float = 0.1
    symmetric: bool = False

    def __post_init__(self) -> None:
        value: Any = self.threshold  # what YAML gave
        hint = (
            "threshold is the mean absolute difference of normalised pixels above which a cell "
            "is sent again, e.g. 0.1 (−1 keeps everything)"
        )
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise BadParameter(f"rlt.threshold: {value!r} is not a number; {hint}")
        if math.isinf(value):
            raise BadParameter(f"rlt.threshold: {value!r} is not finite; {hint}")
        if not isinstance(self.symmetric, bool):
            raise BadParameter(
                f"rlt.symmetric: {self.symmetric!r} is not true or false; symmetric also compares "
                "the first frames of tubelets"
            )

    def select(
        self, frames: Tensor, state: RLTState | None, *, tubelet: int, cell: int
    ) -> Selection[RLTState]:
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
            raise ShapeError(
                f"frames are {frames.dtype} {list(frames.shape)}; rlt takes uint8 [T, H, W, 3]."
            )
        t, height, width, _ = frames.shape
        if tubelet < 1 or cell < 1:
            raise ShapeError(f"tubelet {tubelet}, cell {cell}: both must be at least 1.")
        if t < 1 or t % tubelet:
            raise ShapeError(
                f"{t} frames do not make whole tubelets of {tubelet}: give a multiple, at least "
                "one tubelet; repeat the last frame at the end of a video."
            )
        if height % cell or width % cell:
            raise ShapeError(
                f"frames of {height} x {width} do not make whole cells of {cell}: resize or pad "
                "them first."
            )
        if state is not None:
            _check_state(state, frames, (height // cell, width // cell))
        result = run_length(
            frames[None],
            tubelet=tubelet,
            cell=cell,
            threshold=self.threshold,
            front=None if state is None else state.front[None],
            symmetric=self.symmetric,
        )
        keep, run = result.keep[0], result.run[0]
        return Selection(
            keep=keep,
            run=run,
            distance=result.distance[0],
            # A copy: a view would hold the whole chunk, and change with a reused buffer.
            state=RLTState(front=frames[-tubelet].clone(), open_run=_open_run(keep, run, state)),
        )


def _open_run(keep: Tensor, run: Tensor, state: RLTState | None) -> Tensor:
    # The open run began at the last kept tubelet, the one whose run reaches the end.
    tubelets = keep.shape[0]
    age = torch.arange(tubelets, 0, -1, dtype=run.dtype, device=run.device)
    here = torch.where(keep & (run == age[:, None, None]), run, 0).amax(dim=0)
    if state is None:
        return here
    return torch.where(keep.any(dim=0), here, state.open_run + tubelets)


def _check_state(state: RLTState, frames: Tensor, grid: tuple[int, int]) -> None:
    if state.front.shape != frames.shape[1:] or state.open_run.shape != grid:
        raise ShapeError(
            f"state is of frames {list(state.front.shape)} with cells "
            f"{list(state.open_run.shape)}, this chunk has frames {list(frames.shape[1:])} with "
            f"cells {list(grid)}: after a change of size start afresh with state=None."
        )
    if state.front.device != frames.device:
        raise ShapeError(
            f"state is on {state.front.device}, frames are on {frames.device}; move one of them."
        )
