"""RLT: send a cell only when it changed since the tubelet before; otherwise its run grows.

Paper: Choudhury et al. 2024, arXiv:2411.05222, section 3. Differs: state carried across chunks.
Shapes: [T, H, W, 3] uint8 -> keep, run, distance [T/tubelet, H/cell, W/cell]. Stage: pixel.
Raises: ShapeError if frames do not divide into tubelets and cells, or differ from the state in
    size, device or kind of test; BadParameter for a setting that is not allowed.

The defaults are the paper's and its official code's: last frame against the first frame of the
tubelet before, mean absolute difference, no length embedding. The rest is ours. `symmetric`
compares first frames too, so that an event seen only there keeps that tubelet. `anchor: head`
compares with the tubelet that was sent, so that what comes slowly adds up. `refresh` bounds a run.
`change: robust` is the test of robust.py, for cameras that flicker and things that are small.

The threshold is in ImageNet-normalised pixels whatever the model: frames are uint8, so its own
normalisation plays no part. 0.1 is 5.76 grey levels, 0.0842 in CLIP's normalisation, 0.0452 in
SigLIP's and Qwen3-VL's (mean and std 0.5), 0.0226 of a range of [0, 1].
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from kernels import run_length
from operators.base import PixelOperator
from operators.cells import check_frames, check_state, runs
from operators.errors import ShapeError
from operators.robust import RobustState, RobustTest
from operators.settings import setting
from operators.types import Selection


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RLTState:
    """What a chunk leaves for the next one, of the plain test."""

    front: Tensor
    """uint8 `[H, W, 3]`: first frame of each cell's anchor tubelet."""
    open_run: Tensor
    """int32 `[h, w]`: length so far of each cell's open run, counted from its kept tubelet,
    whichever chunk that was in."""

    def __repr__(self) -> str:
        return f"RLTState(front={list(self.front.shape)}, open_run={list(self.open_run.shape)})"


@dataclass(frozen=True)
class RLT(PixelOperator[RLTState | RobustState]):
    threshold: float = setting(
        0.1,
        "the mean absolute difference of normalised pixels above which a cell is sent again, "
        "e.g. 0.1; below 0 it always is",
        within="[-1, 255]",
    )
    symmetric: bool = setting(False, "true to compare the first frames of tubelets too")
    anchor: Literal["prev", "head"] = setting(
        "prev", "what a cell is compared with: the tubelet before, or the one it was sent with"
    )
    refresh: int | None = setting(
        None, "after how many tubelets a cell is sent again, e.g. 16", within="[1, 2147483647]"
    )
    change: Literal["plain", "robust"] = setting(
        "plain", "how change is measured: the paper's way, or past exposure and noise"
    )

    def select(
        self, frames: Tensor, state: RLTState | RobustState | None, *, tubelet: int, cell: int
    ) -> Selection[RLTState | RobustState]:
        check_frames(frames, tubelet, cell, operator=self.name)
        if self.change == "robust":
            return self._robust(frames, state, tubelet, cell)
        return self._plain(frames, state, tubelet, cell)

    def _plain(
        self, frames: Tensor, state: RLTState | RobustState | None, tubelet: int, cell: int
    ) -> Selection[RLTState | RobustState]:
        if state is not None:
            if not isinstance(state, RLTState):
                raise _other_test(state)
            check_state(state.front.shape[:2], state.open_run, frames, (1, cell))
        result = run_length(
            frames[None],
            tubelet=tubelet,
            cell=cell,
            threshold=self.threshold,
            front=None if state is None else state.front[None],
            open_run=None if state is None else state.open_run[None],
            anchor=self.anchor,
            refresh=self.refresh,
            symmetric=self.symmetric,
        )
        return Selection(
            keep=result.keep[0],
            run=result.run[0],
            distance=result.distance[0],
            state=RLTState(front=result.front[0], open_run=result.open_run[0]),
        )

    def _robust(
        self, frames: Tensor, state: RLTState | RobustState | None, tubelet: int, cell: int
    ) -> Selection[RLTState | RobustState]:
        test = RobustTest(
            tubelet=tubelet,
            cell=cell,
            threshold=-1.0 if self.threshold < 0 else self.threshold,
            symmetric=self.symmetric,
            from_head=self.anchor == "head",
            refresh=self.refresh,
        )
        if state is not None:
            if not isinstance(state, RobustState):
                raise _other_test(state)
            check_state(state.anchor.shape[1:], state.open_run, frames, (test.block, cell))
        keep, distance, left = test.decide(frames, state)
        return Selection(keep=keep, run=runs(keep), distance=distance, state=left)


def _other_test(state: RLTState | RobustState) -> ShapeError:
    return ShapeError(
        f"{state} is of the other change test; after a change of rlt.change start afresh with "
        "state=None."
    )
