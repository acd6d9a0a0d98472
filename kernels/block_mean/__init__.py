"""block_mean: pictures made small by the mean of square blocks of pixels; noise averages out."""

import torch
from torch import Tensor

from kernels._dispatch import choose
from kernels.block_mean import reference

MAX_BLOCK = 128  # a block's sum is exact in fp32, and far from the end of int32

__all__ = ["block_mean"]


def block_mean(frames: Tensor, block: int) -> Tensor:
    """The mean of every `block` x `block` square of pixels, per channel.

    Args:
        frames: `[T, H, W, 3]` uint8, H and W multiples of `block`. Made contiguous if it is not.
        block: edge of a square in pixels, at most 128.

    Returns:
        fp32 `[T, 3, H/block, W/block]`, 0 to 255 but for rounding: an integer sum times 1/block²,
        so that all implementations agree bit for bit.

    Raises:
        ValueError: a shape, dtype or number is not as above.
    """
    if not 1 <= block <= MAX_BLOCK:
        raise ValueError(f"{block=} is not in [1, {MAX_BLOCK}] pixels.")
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(
            f"frames are {frames.dtype} {list(frames.shape)}; expected uint8 [T, H, W, 3]."
        )
    _, height, width, _ = frames.shape
    if height % block or width % block:
        raise ValueError(
            f"frames of {height} x {width} do not make whole blocks of {block}: pad or crop them."
        )
    match choose(frames, native=True):
        case "triton":
            from kernels.block_mean import kernel

            means: Tensor = kernel.block_mean(frames, block)
            return means
        case "native":
            from kernels.block_mean import native

            return native.block_mean(frames, block)
        case "reference":
            return reference.block_mean(frames, block)
