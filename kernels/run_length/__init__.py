"""run_length: which cells of a video changed, and for how long each stays as it is.

Paper: Choudhury et al. 2024 (RLT), arXiv:2411.05222. Integer form of its patch distance; the
anchor "head" and `refresh` are ours.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from kernels._dispatch import choose
from kernels.run_length import reference
from kernels.run_length.reference import Rule, RunLength

# 1 / (255 * std) with the ImageNet std: the distance is then that of normalised frames.
IMAGENET_WEIGHT = (1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225))
MAX_CELL = 256  # a cell's sum of differences is exact in fp32 up to this edge
MAX_RUN = 2**31 - 1

__all__ = ["IMAGENET_WEIGHT", "RunLength", "run_length"]


def run_length(
    frames: Tensor,
    *,
    tubelet: int,
    cell: int,
    threshold: float,
    front: Tensor | None = None,
    open_run: Tensor | None = None,
    anchor: Literal["prev", "head"] = "prev",
    refresh: int | None = None,
    channel_weight: tuple[float, float, float] = IMAGENET_WEIGHT,
    symmetric: bool = False,
) -> RunLength:
    """Decide per cell of every tubelet whether it changed, in B streams at once.

    The last frame of tubelet j is compared with the first frame of an earlier one, the anchor,
    cell by cell: `distance = sum_c channel_weight[c] * SAD_c / (3 * cell**2)`, SAD_c the sum of
    the absolute differences of channel c. A cell is kept where `distance > threshold`, strictly,
    where its open run is `refresh` tubelets long, and where no run is open.

    Args:
        frames: `[B, T, H, W, 3]` uint8; T a multiple of `tubelet`, at least one, H and W of
            `cell`. Made contiguous if it is not.
        tubelet: frames per tubelet.
        cell: edge of a cell in pixels, at most 256.
        threshold: finite number; a negative one keeps everything.
        front: `[B, H, W, 3]` uint8, and
        open_run: `[B, h, w]` int32, what the call before returned: the streams go on. An open run
            of 0 is none: the first tubelet keeps the cell with an infinite distance, whatever
            `front` has there. None, both: so in all cells.
        anchor: "prev" compares with tubelet j - 1, as the paper does; "head" with the tubelet that
            opened the cell's run, so that slow drift adds up.
        refresh: longest run in tubelets, at least 1. None: no limit.
        channel_weight: weight of each channel's difference. Default: ImageNet normalisation.
        symmetric: compare the first frame of tubelet j as well and take the larger distance.

    Returns:
        RunLength, with T' = T / tubelet, h = H / cell, w = W / cell and places in `[B, T', h, w]`
        counted flat. Sums are integers, so all implementations agree bit for bit. Nothing waits
        for the device.

    Raises:
        ValueError: a shape, dtype, device or number is not as above.
    """
    _check_frames(frames, tubelet, cell)
    _check_threshold(threshold)
    if anchor not in ("prev", "head"):
        raise ValueError(f"anchor {anchor!r} is not one of: prev, head.")
    if refresh is not None and not 1 <= refresh <= MAX_RUN:
        raise ValueError(
            f"refresh {refresh} is not in [1, {MAX_RUN}] tubelets; None never refreshes."
        )
    b, _, h, w, _ = frames.shape
    if (front is None) != (open_run is None):
        raise ValueError("give front and open_run together, as the call before returned them.")
    if front is not None and open_run is not None:
        _check_before(front, open_run, frames, cell)
    else:
        open_run = torch.zeros(b, h // cell, w // cell, dtype=torch.int32, device=frames.device)
    scale = 1 / (3 * cell * cell)
    rule = Rule(
        tubelet=tubelet,
        cell=cell,
        # In fp32 a tiny negative number would become -0.0, and equal distances would be dropped.
        threshold=-1.0 if threshold < 0 else min(float(threshold), torch.finfo(torch.float32).max),
        weight=(channel_weight[0] * scale, channel_weight[1] * scale, channel_weight[2] * scale),
        symmetric=symmetric,
        from_head=anchor == "head",
        refresh=MAX_RUN if refresh is None else refresh,
    )
    match choose(frames, native=True):
        case "triton":
            from kernels.run_length import kernel

            result: RunLength = kernel.run_length(frames, front, open_run, rule)
            return result
        case "native":
            from kernels.run_length import native

            return native.run_length(frames, front, open_run, rule)
        case "reference":
            return reference.run_length(frames, front, open_run, rule)


def _check_frames(frames: Tensor, tubelet: int, cell: int) -> None:
    if tubelet < 1 or not 1 <= cell <= MAX_CELL:
        raise ValueError(
            f"{tubelet=}, {cell=}: tubelet must be at least 1 and cell in [1, {MAX_CELL}]."
        )
    if frames.dtype != torch.uint8 or frames.ndim != 5 or frames.shape[-1] != 3:
        raise ValueError(
            f"frames are {frames.dtype} {list(frames.shape)}; expected uint8 [B, T, H, W, 3]."
        )
    _, t, h, w, _ = frames.shape
    if t == 0 or t % tubelet or h % cell or w % cell:
        raise ValueError(
            f"frames are {t} x {h} x {w} (T, H, W); T must be a multiple of {tubelet=}, at least "
            f"one, H and W of {cell=}. Pad or crop them first."
        )


def _check_before(front: Tensor, open_run: Tensor, frames: Tensor, cell: int) -> None:
    b, _, h, w, _ = frames.shape
    for name, tensor, dtype, shape in (
        ("front", front, torch.uint8, [b, h, w, 3]),
        ("open_run", open_run, torch.int32, [b, h // cell, w // cell]),
    ):
        if (tensor.dtype, list(tensor.shape), tensor.device) != (dtype, shape, frames.device):
            raise ValueError(
                f"{name} is {tensor.dtype} {list(tensor.shape)} on {tensor.device}; expected "
                f"{dtype} {shape} on {frames.device}, from a call with frames of the same size."
            )


def _check_threshold(threshold: object) -> None:
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not number or not math.isfinite(threshold):  # type: ignore[arg-type]
        raise ValueError(
            f"threshold {threshold!r} is not a finite number; it is the mean absolute difference "
            "of normalised pixels above which a cell is kept. Pass e.g. 0.1, or -1 to keep all."
        )
