"""patchify: the kept cells of a video, cut into patches and normalised, as encoders take them."""

import torch
from torch import Tensor

from kernels._dispatch import choose
from kernels.patchify import reference
from kernels.patchify.reference import Layout

DTYPES = (torch.bfloat16, torch.float32)

__all__ = ["patchify"]


def patchify(
    frames: Tensor,
    index: Tensor,
    *,
    tubelet: int,
    patch: int,
    merge: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Gather cells, normalise and cut them into patches, in one pass over what is kept.

    A cell is `merge` x `merge` patches of `patch` x `patch` pixels in `tubelet` frames. Pixels
    become `(x - 255 * mean) / (255 * std)` by channel, computed in fp32 as the Qwen-VL processors
    of transformers do.

    Args:
        frames: `[T, H, W, 3]` uint8; T a multiple of `tubelet`, H and W of a cell's edge. Streams
            follow each other along T. Made contiguous if it is not.
        index: `[N]` int64, flat places of the cells in `[T', h, w]`, e.g. the first `count` of
            RunLength.index. Trusted on a GPU.
        tubelet: frames per tubelet.
        patch: edge of a patch in pixels.
        merge: edge of a cell in patches.
        mean: of each channel, on the scale 0 .. 1.
        std: the same; not 0.
        dtype: of the result, float32 or bfloat16.

    Returns:
        `[N * merge**2, 3 * tubelet * patch**2]`. The patches of a cell are neighbours, row by row;
        a patch is laid out as channel, frame, row, column. All implementations agree bit for bit.

    Raises:
        ValueError: a shape, dtype, device, index or number is not as above.
    """
    if tubelet < 1 or patch < 1 or merge < 1:
        raise ValueError(f"{tubelet=}, {patch=}, {merge=}: each must be at least 1.")
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(
            f"frames are {frames.dtype} {list(frames.shape)}; expected uint8 [T, H, W, 3]."
        )
    t, h, w, _ = frames.shape
    layout = Layout(tubelet=tubelet, patch=patch, merge=merge)
    if t % tubelet or h % layout.cell or w % layout.cell:
        raise ValueError(
            f"frames are {t} x {h} x {w} (T, H, W); T must be a multiple of {tubelet=}, H and W "
            f"of the cell, {layout.cell} pixels. Pad or crop them first."
        )
    if index.dtype != torch.int64 or index.ndim != 1 or index.device != frames.device:
        raise ValueError(
            f"index is {index.dtype} {list(index.shape)} on {index.device}; expected int64 [N] on "
            f"{frames.device}."
        )
    places = (t // tubelet) * (h // layout.cell) * (w // layout.cell)
    if len(index) and index.device.type == "cpu" and not 0 <= index.min() <= index.max() < places:
        raise ValueError(
            f"index runs from {int(index.min())} to {int(index.max())}; allowed are 0 to "
            f"{places - 1}, the cells of frames. Give the first `count` of RunLength.index."
        )
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype} is not one of: {', '.join(map(str, DTYPES))}.")
    if 0 in std:
        raise ValueError(f"std {std} must not be 0.")
    match choose(frames, native=True):
        case "triton":
            from kernels.patchify import kernel

            patches: Tensor = kernel.patchify(frames, index, layout, mean, std, dtype)
            return patches
        case "native":
            from kernels.patchify import native

            return native.patchify(frames, index, layout, mean, std, dtype)
        case "reference":
            return reference.patchify(frames, index, layout, mean, std, dtype)
