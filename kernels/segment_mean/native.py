"""segment_mean compiled for the CPU: each kept row is read once, where it lies.

Threads share the channels, not the rows: sums stay in row order, whatever their number.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels._native import compiled, in_parts

Floats = NDArray[np.float32]
LINE = 16  # channels in a cache line


@compiled("void(i8, i8, f4[:, ::1], f4[::1], f4[::1], i8[::1], f4[:, ::1])")
def _mean(
    begin: int,
    end: int,
    data: Floats,
    weight: Floats,
    total: Floats,
    group: NDArray[np.int64],
    out: Floats,
) -> None:
    """Writes channels begin * LINE .. end * LINE of `out`."""
    first, last = begin * LINE, min(end * LINE, data.shape[1])
    begun = np.zeros(len(total), np.bool_)
    for i in range(len(group)):
        slot = group[i]
        if slot < 0 or weight[i] == 0 or total[slot] == 0:
            continue
        row, mean = data[i, first:last], out[slot, first:last]
        share = weight[i] / total[slot]  # exactly 1 in a group of one
        if begun[slot]:
            for d in range(len(row)):
                mean[d] += row[d] * share
        else:
            begun[slot] = True
            for d in range(len(row)):
                mean[d] = row[d] * share
    for slot in range(len(total)):
        if not begun[slot]:
            out[slot, first:last] = np.nan


def segment_mean(data: Tensor, weight: Tensor, group: Tensor, num_groups: int) -> Tensor:
    out = torch.empty(num_groups, data.shape[1])
    kept = group.clamp(min=0)
    total = weight.new_zeros(num_groups)
    if num_groups:
        total.index_add_(0, kept, weight.where(group >= 0, 0.0))
    arrays = tuple(x.contiguous().numpy() for x in (data.float(), weight, total, group, out))
    size = 4 * (data.numel() + out.numel())
    lines = -(-data.shape[1] // LINE)
    in_parts(lambda begin, end: _mean(begin, end, *arrays), lines, size=size)
    return out.to(data.dtype)
