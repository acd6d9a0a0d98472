"""run_length: which cells of a video changed against the tubelet before, and for how long not.

Paper: Choudhury et al. 2024 (RLT), arXiv:2411.05222. Integer form of its patch distance.
"""

import math

import torch
from torch import Tensor

from kernels._dispatch import use_triton
from kernels.run_length import reference
from kernels.run_length.reference import RunLength

# 1 / (255 * std) with the ImageNet std: the distance is then that of normalised frames.
IMAGENET_WEIGHT = (1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225))
MAX_CELL = 256  # a cell's sum of differences is exact in fp32 up to this edge

__all__ = ["IMAGENET_WEIGHT", "RunLength", "run_length"]


def run_length(
    frames: Tensor,
    *,
    tubelet: int,
    cell: int,
    threshold: float,
    front: Tensor | None = None,
    channel_weight: tuple[float, float, float] = IMAGENET_WEIGHT,
    symmetric: bool = False,
) -> RunLength:
    """Decide per cell of every tubelet whether it changed.

    The last frame of tubelet j is compared with the first frame of tubelet j - 1, cell by cell:
    `distance = sum_c channel_weight[c] * SAD_c / (3 * cell**2)`, SAD_c the sum of the absolute
    differences of channel c. A cell is kept where `distance > threshold`, strictly.

    Args:
        frames: `[B, T, H, W, 3]` uint8; T a multiple of `tubelet`, H and W of `cell`. Made
            contiguous if it is not.
        tubelet: frames per tubelet.
        cell: edge of a cell in pixels, at most 256.
        threshold: finite number; a negative one keeps everything.
        front: `[B, H, W, 3]` uint8, first frame of the tubelet before `frames`. None: there is
            no tubelet before, and the first one is kept whole with an infinite distance.
        channel_weight: weight of each channel's difference. Default: ImageNet normalisation.
        symmetric: compare the first frame of tubelet j as well and take the larger distance.

    Returns:
        RunLength with `keep` bool, `run` int32 and `distance` fp32, each
        `[B, T/tubelet, H/cell, W/cell]`. Sums are int32, so both implementations agree bit for
        bit.

    Raises:
        ValueError: a shape, dtype, device or number is not as above.
    """
    _check_threshold(threshold)
    if tubelet < 1 or not 1 <= cell <= MAX_CELL:
        raise ValueError(
            f"{tubelet=}, {cell=}: tubelet must be at least 1 and cell in [1, {MAX_CELL}]."
        )
    if frames.dtype != torch.uint8 or frames.ndim != 5 or frames.shape[-1] != 3:
        raise ValueError(
            f"frames are {frames.dtype} {list(frames.shape)}; expected uint8 [B, T, H, W, 3]."
        )
    b, t, h, w, _ = frames.shape
    if t % tubelet or h % cell or w % cell:
        raise ValueError(
            f"frames are {t} x {h} x {w} (T, H, W); T must be a multiple of {tubelet=}, H and W "
            f"of {cell=}. Pad or crop them first."
        )
    if front is not None and (
        front.dtype != torch.uint8 or front.shape != (b, h, w, 3) or front.device != frames.device
    ):
        raise ValueError(
            f"front is {front.dtype} {list(front.shape)} on {front.device}; expected uint8 "
            f"{[b, h, w, 3]} on {frames.device}, a frame of the same video."
        )
    # In fp32 a tiny negative number would become -0.0, and equal distances would be dropped.
    threshold = -1.0 if threshold < 0 else min(float(threshold), torch.finfo(torch.float32).max)
    scale = 1 / (3 * cell * cell)
    weight = (channel_weight[0] * scale, channel_weight[1] * scale, channel_weight[2] * scale)
    if use_triton(frames):
        from kernels.run_length import kernel

        result: RunLength = kernel.run_length(
            frames, front, tubelet, cell, threshold, weight, symmetric
        )
        return result
    return reference.run_length(frames, front, tubelet, cell, threshold, weight, symmetric)


def _check_threshold(threshold: object) -> None:
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not number or not math.isfinite(threshold):  # type: ignore[arg-type]
        raise ValueError(
            f"threshold {threshold!r} is not a finite number; it is the mean absolute difference "
            "of normalised pixels above which a cell is kept. Pass e.g. 0.1, or -1 to keep all."
        )
