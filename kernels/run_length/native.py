"""run_length compiled for the CPU: a row of cells at a time is walked through all tubelets.

Differences are summed down the columns of pixels first, in 16 bits, then over a cell's columns.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels._native import compiled, in_parts
from kernels.run_length.reference import Rule, RunLength

Pixels = NDArray[np.uint8]
Counts = NDArray[np.int32]


@compiled("void(u1[:, ::1], u1[:, ::1], i8, i8, f4[::1], u2[::1], f4[::1], b1)")
def _distances(
    a: Pixels,
    b: Pixels,
    top: int,
    cell: int,
    weight: NDArray[np.float32],
    column: NDArray[np.uint16],
    distance: NDArray[np.float32],
    larger: bool,
) -> None:
    """Of the cells in rows top .. top + cell of two pictures `[H, W * 3]`; `larger` keeps what is
    in `distance` where that is more."""
    column[:] = 0
    for row in range(top, top + cell):
        row_a, row_b = a[row], b[row]
        for i in range(len(column)):
            column[i] += np.uint16(max(row_a[i], row_b[i]) - min(row_a[i], row_b[i]))
    for x in range(len(distance)):
        red = green = blue = np.int32(0)
        for i in range(x * cell * 3, (x + 1) * cell * 3, 3):
            red += column[i]
            green += column[i + 1]
            blue += column[i + 2]
        apart = (
            np.float32(red) * weight[0]
            + np.float32(green) * weight[1]
            + np.float32(blue) * weight[2]
        )
        distance[x] = max(distance[x], apart) if larger else apart


@compiled("void(u1[:, :], u1[:, :])")
def _copy(source: Pixels, target: Pixels) -> None:
    for row in range(len(source)):
        source_row, target_row = source[row], target[row]
        for i in range(len(source_row)):
            target_row[i] = source_row[i]


@compiled(
    "void(i8, i8, u1[:, :, :, ::1], u1[:, :, ::1], u1[:, :, ::1], i4[:, :, ::1], b1[:, :, :, ::1],"
    "i4[:, :, :, ::1], f4[:, :, :, ::1], i8, i8, f4, f4[::1], b1, b1, i8)"
)
def _walk(
    begin: int,
    end: int,
    frames: Pixels,
    front: Pixels,
    next_front: Pixels,
    open_run: Counts,
    keep: NDArray[np.bool_],
    run: Counts,
    distance: NDArray[np.float32],
    tubelet: int,
    cell: int,
    threshold: float,
    weight: NDArray[np.float32],
    symmetric: bool,
    from_head: bool,
    refresh: int,
) -> None:
    _, tubelets, rows, columns = keep.shape
    sums = np.empty(frames.shape[3], np.uint16)
    head = np.empty(columns, np.int64)
    for unit in range(begin, end):
        b, y = unit // rows, unit % rows
        top, bottom = y * cell, (y + 1) * cell
        opened = open_run[b, y]
        head[:] = -1
        if from_head:
            _copy(front[b, top:bottom], next_front[b, top:bottom])
        for t in range(tubelets):
            first, last = frames[b, t * tubelet], frames[b, (t + 1) * tubelet - 1]
            apart = distance[b, t, y]
            if opened.any():
                if from_head:
                    before = next_front[b]
                elif t == 0:
                    before = front[b]
                else:
                    before = frames[b, (t - 1) * tubelet]
                _distances(last, before, top, cell, weight, sums, apart, False)
                if symmetric:
                    _distances(first, before, top, cell, weight, sums, apart, True)
            for x in range(columns):
                if opened[x] == 0:
                    apart[x] = np.inf
                kept = apart[x] > threshold or opened[x] >= refresh
                keep[b, t, y, x] = kept
                run[b, t, y, x] = 0
                if kept:
                    if head[x] >= 0:
                        run[b, head[x], y, x] = t - head[x]
                    head[x] = t
                    opened[x] = 1
                    if from_head:
                        left, right = x * cell * 3, (x + 1) * cell * 3
                        _copy(first[top:bottom, left:right], next_front[b, top:bottom, left:right])
                else:
                    opened[x] += 1
        for x in range(columns):
            if head[x] >= 0:
                run[b, head[x], y, x] = tubelets - head[x]
        if not from_head:
            _copy(frames[b, (tubelets - 1) * tubelet, top:bottom], next_front[b, top:bottom])


@compiled("i8(b1[::1], i8[::1])")
def _compact(keep: NDArray[np.bool_], index: NDArray[np.int64]) -> int:
    count = 0
    for place in range(len(keep)):
        if keep[place]:
            index[count] = place
            count += 1
    index[count:] = -1
    return count


def run_length(frames: Tensor, front: Tensor | None, open_run: Tensor, rule: Rule) -> RunLength:
    frames = frames.contiguous()
    b, t, height, width, _ = frames.shape
    shape = (b, t // rule.tubelet, height // rule.cell, width // rule.cell)
    keep = torch.empty(shape, dtype=torch.bool)
    run = torch.empty(shape, dtype=torch.int32)
    distance = torch.empty(shape, dtype=torch.float32)
    index = torch.empty(keep.numel(), dtype=torch.int64)
    open_run = open_run.clone(memory_format=torch.contiguous_format)
    next_front = torch.empty((b, height, width, 3), dtype=torch.uint8)
    front = next_front if front is None else front.contiguous()
    weight = np.array(rule.weight, np.float32)
    in_parts(
        lambda begin, end: _walk(
            begin,
            end,
            frames.flatten(3).numpy(),
            front.flatten(2).numpy(),
            next_front.flatten(2).numpy(),
            open_run.numpy(),
            keep.numpy(),
            run.numpy(),
            distance.numpy(),
            rule.tubelet,
            rule.cell,
            rule.threshold,
            weight,
            rule.symmetric,
            rule.from_head,
            rule.refresh,
        ),
        b * shape[2],
        size=frames.nbytes,
    )
    return RunLength(
        keep=keep,
        run=run,
        distance=distance,
        index=index,
        count=torch.tensor(_compact(keep.flatten().numpy(), index.numpy())),
        open_run=open_run,
        front=next_front,
    )
