"""block_mean compiled for the CPU: pixels are summed down their columns, then across."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels._native import compiled, in_parts


@compiled("void(i8, i8, u1[:, ::1], f4[:, :, :, ::1], i8, f4)")
def _mean(
    begin: int,
    end: int,
    lines: NDArray[np.uint8],
    means: NDArray[np.float32],
    block: int,
    scale: float,
) -> None:
    columns = np.empty(lines.shape[1], np.uint16)
    rows = means.shape[2]
    for unit in range(begin, end):
        t, y = unit // rows, unit % rows
        columns[:] = 0
        for row in range(unit * block, (unit + 1) * block):
            line = lines[row]
            for i in range(len(columns)):
                columns[i] += line[i]
        for x in range(means.shape[3]):
            red = green = blue = np.int32(0)
            for i in range(x * block * 3, (x + 1) * block * 3, 3):
                red += columns[i]
                green += columns[i + 1]
                blue += columns[i + 2]
            means[t, 0, y, x] = np.float32(red) * scale
            means[t, 1, y, x] = np.float32(green) * scale
            means[t, 2, y, x] = np.float32(blue) * scale


def block_mean(frames: Tensor, block: int) -> Tensor:
    t, height, width, _ = frames.shape
    means = torch.empty((t, 3, height // block, width // block), dtype=torch.float32)
    lines = frames.contiguous().view(t * height, width * 3).numpy()
    arrays = (lines, means.numpy())
    in_parts(
        lambda begin, end: _mean(begin, end, *arrays, block, 1 / block**2),
        t * (height // block),
        size=frames.numel(),
    )
    return means
