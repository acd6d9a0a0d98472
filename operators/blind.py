"""Operators that choose cells without looking at them, by the number of the tubelet alone.

They are baselines: what a method that looks must beat at the same number of tokens.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels import run_length
from operators.base import PixelOperator
from operators.cells import check_frames, check_state, runs
from operators.types import Selection


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class BlindState:
    """What a chunk leaves for the next one."""

    front: Tensor
    """uint8 `[H, W, 3]`: first frame of the tubelet before."""
    open_run: Tensor
    """int32 `[h, w]`: length so far of each cell's open run, counted from its kept tubelet,
    whichever chunk that was in."""
    tubelets: int
    """How many there were since it was None."""

    def __repr__(self) -> str:
        return (
            f"BlindState(front={list(self.front.shape)}, open_run={list(self.open_run.shape)}, "
            f"tubelets={self.tubelets})"
        )


@dataclass(frozen=True)
class BlindOperator(PixelOperator[BlindState]):
    """Its distance is that of `RLT` at its defaults, so that cuts are found the same."""

    @abstractmethod
    def chosen(self, number: int, grid: tuple[int, int]) -> Tensor:
        """bool `[h, w]` on the CPU: the cells kept of the tubelet that so many came before since
        the state was None; never asked for number 0, of which all are."""

    def select(
        self, frames: Tensor, state: BlindState | None, *, tubelet: int, cell: int
    ) -> Selection[BlindState]:
        check_frames(frames, tubelet, cell, operator=self.name)
        grid = (frames.shape[1] // cell, frames.shape[2] // cell)
        if state is None:
            first, waited = 0, torch.zeros(grid, dtype=torch.int32, device=frames.device)
        else:
            check_state(state.front.shape[:2], state.open_run, frames, (1, cell))
            first, waited = state.tubelets, state.open_run
        after = first + len(frames) // tubelet
        whole = torch.ones(grid, dtype=torch.bool)
        chosen = [self.chosen(n, grid) if n else whole for n in range(first, after)]
        keep = torch.stack(chosen).to(frames.device)
        compared = run_length(
            frames[None],
            tubelet=tubelet,
            cell=cell,
            threshold=0.0,
            front=None if state is None else state.front[None],
            open_run=None if state is None else state.open_run[None],
        )
        open_run = waited
        for kept in keep:
            open_run = torch.where(kept, 1, open_run + 1)
        return Selection(
            keep=keep,
            run=runs(keep),
            distance=compared.distance[0],
            state=BlindState(front=compared.front[0], open_run=open_run, tubelets=after),
        )
