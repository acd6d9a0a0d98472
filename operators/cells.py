"""What operators that choose cells share: runs within a chunk, checks of frames and states."""

import torch
from torch import Tensor

from kernels.run_length import MAX_CELL
from operators.errors import ShapeError


def runs(keep: Tensor) -> Tensor:
    """int32: of each kept cell, bool `[T', h, w]`, the tubelets to the next kept one or the end."""
    tubelets = keep.shape[0]
    at = torch.arange(tubelets, device=keep.device, dtype=torch.int32)[:, None, None]
    kept_at = torch.where(keep, at, tubelets)
    following = kept_at.flip(0).cummin(0).values.flip(0)[1:]
    ends = torch.cat([following, torch.full_like(kept_at[:1], tubelets)])
    return torch.where(keep, ends - at, 0)


def check_frames(frames: Tensor, tubelet: int, cell: int, *, operator: str) -> None:
    """Raises ShapeError unless they divide into tubelets and cells."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
        raise ShapeError(
            f"frames are {frames.dtype} {list(frames.shape)}; {operator} takes uint8 [T, H, W, 3]."
        )
    t, height, width, _ = frames.shape
    if tubelet < 1 or not 1 <= cell <= MAX_CELL:
        raise ShapeError(
            f"tubelet {tubelet}, cell {cell}: both must be at least 1, a cell at most {MAX_CELL}."
        )
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


def check_state(
    places: torch.Size, open_run: Tensor, frames: Tensor, pixels: tuple[int, int]
) -> None:
    """A state's places of pixels[0] and cells of pixels[1] pixels must cover the frames."""
    height, width = frames.shape[1:3]
    grids = zip((places, open_run.shape), pixels, strict=True)
    sizes = [[rows * edge, columns * edge] for (rows, columns), edge in grids]
    if any(size != [height, width] for size in sizes):
        raise ShapeError(
            f"state is of frames {sizes[0]} with cells {list(open_run.shape)}, this chunk has "
            f"frames {[height, width]} with cells {[height // pixels[1], width // pixels[1]]}: "
            "after a change of size start afresh with state=None."
        )
    if open_run.device != frames.device:
        raise ShapeError(
            f"state is on {open_run.device}, frames are on {frames.device}; move one of them."
        )
