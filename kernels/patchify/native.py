"""patchify compiled for the CPU: each pixel is looked up among its 256 normalised values."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels._native import compiled, in_parts
from kernels.patchify.reference import Channels, Layout, normalised

Bits = NDArray[np.signedinteger]  # floats that are only moved


@compiled(
    "void(i8, i8, u1[:, :, ::1], i8[::1], i2[:, ::1], i2[:, ::1], i8, i8, i8)",
    "void(i8, i8, u1[:, :, ::1], i8[::1], i4[:, ::1], i4[:, ::1], i8, i8, i8)",
)
def _cut(
    begin: int,
    end: int,
    frames: NDArray[np.uint8],
    index: NDArray[np.int64],
    table: Bits,
    patches: Bits,
    tubelet: int,
    patch: int,
    merge: int,
) -> None:
    rows = frames.shape[1] // (merge * patch)
    columns = frames.shape[2] // (merge * patch * 3)
    for n in range(begin, end):
        t, y, x = index[n] // (rows * columns), index[n] // columns % rows, index[n] % columns
        for k in range(merge * merge):
            top = (y * merge + k // merge) * patch
            left = (x * merge + k % merge) * patch * 3
            out = patches[n * merge * merge + k]
            for s in range(tubelet):
                for i in range(patch):
                    line = frames[t * tubelet + s, top + i, left : left + patch * 3]
                    for c in range(3):
                        o = ((c * tubelet + s) * patch + i) * patch
                        out_line, values = out[o : o + patch], table[c]
                        for j in range(patch):
                            out_line[j] = values[line[j * 3 + c]]


def patchify(
    frames: Tensor, index: Tensor, layout: Layout, mean: Channels, std: Channels, dtype: torch.dtype
) -> Tensor:
    frames, index = frames.contiguous(), index.contiguous()
    merge, length = layout.merge, 3 * layout.tubelet * layout.patch**2
    patches = torch.empty((len(index) * merge**2, length), dtype=dtype)
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 256)
    table = normalised(levels, mean, std).to(dtype).view(3, 256)
    bits = torch.int16 if dtype == torch.bfloat16 else torch.int32
    in_parts(
        lambda begin, end: _cut(
            begin,
            end,
            frames.flatten(2).numpy(),
            index.numpy(),
            table.view(bits).numpy(),
            patches.view(bits).numpy(),
            layout.tubelet,
            layout.patch,
            merge,
        ),
        len(index),
        size=patches.nbytes,
    )
    return patches
