"""block_mean in Triton: a program per channel and stretch of blocks."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256  # means per program


@triton.jit
def mean_kernel(
    frames, means, total, rows, columns, scale, EDGE: tl.constexpr, BLOCK: tl.constexpr
):
    i_mean = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m = i_mean < total
    i_x = i_mean % columns
    i_y = i_mean // columns % rows
    i_plane = i_mean // columns // rows
    line = columns * (EDGE * 3)
    i_line = (i_plane // 3 * rows + i_y) * EDGE
    o_corner = i_line * line + i_x * (EDGE * 3) + i_plane % 3
    acc = tl.zeros([BLOCK], dtype=tl.int32)
    for row in range(EDGE):
        for column in range(EDGE):
            o = o_corner + row * line + column * 3
            acc += tl.load(frames + o, mask=m, other=0).to(tl.int32)
    tl.store(means + i_mean, acc.to(tl.float32) * scale, mask=m)


def block_mean(frames: Tensor, block: int) -> Tensor:
    frames = frames.contiguous()
    t, height, width, _ = frames.shape
    shape = (t, 3, height // block, width // block)
    means = torch.empty(shape, dtype=torch.float32, device=frames.device)
    total = means.numel()
    if total:
        mean_kernel[(triton.cdiv(total, BLOCK),)](
            frames, means, total, *shape[2:], 1 / block**2, EDGE=block, BLOCK=BLOCK
        )
    return means
