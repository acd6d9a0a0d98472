"""run_length in Triton: one program per cell for the distance, one scan per column for the runs."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.run_length.reference import RunLength

BLOCK = 4096  # pixels x channels loaded at once
SCAN_BLOCK = 128  # columns per program of the scan


@triton.jit
def _sad(
    frames,
    front,
    o_a,
    o_before,
    o_front,
    rows_before,
    W,
    CELL: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    HAS_FRONT: tl.constexpr,
):
    i_row = tl.arange(0, ROWS)
    i_col = tl.arange(0, COLS)
    acc = tl.zeros([ROWS, COLS], dtype=tl.int32)
    for row in range(0, CELL, ROWS):
        i_line = row + i_row
        o_pixel = i_line.to(tl.int64)[:, None] * (W * 3) + i_col[None, :]
        m_col = (i_col < CELL * 3)[None, :]
        m = (i_line < CELL)[:, None] & m_col
        m_before = (i_line < rows_before)[:, None] & m_col
        a = tl.load(frames + o_a + o_pixel, mask=m, other=0).to(tl.int32)
        b = tl.load(frames + o_before + o_pixel, mask=m_before, other=0).to(tl.int32)
        if HAS_FRONT:
            m_front = (i_line < CELL - rows_before)[:, None] & m_col
            b += tl.load(front + o_front + o_pixel, mask=m_front, other=0).to(tl.int32)
        acc += tl.abs(a - b)
    return acc


@triton.jit
def _weighted(acc, w0, w1, w2, COLS: tl.constexpr):
    channel = (tl.arange(0, COLS) % 3)[None, :]
    s0 = tl.sum(tl.sum(tl.where(channel == 0, acc, 0), axis=1), axis=0).to(tl.float32)
    s1 = tl.sum(tl.sum(tl.where(channel == 1, acc, 0), axis=1), axis=0).to(tl.float32)
    s2 = tl.sum(tl.sum(tl.where(channel == 2, acc, 0), axis=1), axis=0).to(tl.float32)
    return s0 * w0 + s1 * w1 + s2 * w2


@triton.jit
def distance_kernel(
    frames,
    front,
    distance,
    keep,
    threshold,
    w0,
    w1,
    w2,
    T,
    H,
    W,
    frame,
    TUBELET: tl.constexpr,
    CELL: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    HAS_FRONT: tl.constexpr,
    SYMMETRIC: tl.constexpr,
):
    i_cell = tl.program_id(0).to(tl.int64)
    columns = W // CELL
    rows = H // CELL
    tubelets = T // TUBELET
    i_x = i_cell % columns
    i_y = (i_cell // columns) % rows
    i_t = (i_cell // columns // rows) % tubelets
    i_b = i_cell // columns // rows // tubelets

    o_corner = (i_y * CELL * W + i_x * CELL) * 3
    o_front = i_b * frame + o_corner
    i_frame = i_b * T + i_t * TUBELET
    o_this = i_frame * frame + o_corner  # first frame of this tubelet
    o_before = (i_frame - TUBELET) * frame + o_corner
    o_back = (i_frame + (TUBELET - 1)) * frame + o_corner
    # Lines of the cell to read from the tubelet before: none in the first one, where `front` is.
    rows_before = tl.where(i_t == 0, 0, CELL)

    acc = _sad(
        frames, front, o_back, o_before, o_front, rows_before, W, CELL, ROWS, COLS, HAS_FRONT
    )
    d = _weighted(acc, w0, w1, w2, COLS)
    if SYMMETRIC:
        acc = _sad(
            frames, front, o_this, o_before, o_front, rows_before, W, CELL, ROWS, COLS, HAS_FRONT
        )
        d = tl.maximum(d, _weighted(acc, w0, w1, w2, COLS))
    if not HAS_FRONT:
        d = tl.where(i_t == 0, float("inf"), d)
    tl.store(distance + i_cell, d)
    tl.store(keep + i_cell, (d > threshold).to(tl.uint8))


@triton.jit
def scan_kernel(keep, run, total, columns, tubelets, BLOCK: tl.constexpr):
    i_column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m = i_column < total
    # Column (b, y, x) of keep [B, T', h * w].
    o = (i_column // columns) * tubelets * columns + i_column % columns
    length = tl.zeros([BLOCK], dtype=tl.int32)
    for i in range(tubelets):
        o_t = o + (tubelets - 1 - i).to(tl.int64) * columns
        kept = tl.load(keep + o_t, mask=m, other=0) != 0
        length += 1
        tl.store(run + o_t, tl.where(kept, length, 0), mask=m)
        length = tl.where(kept, 0, length)


def run_length(
    frames: Tensor,
    front: Tensor | None,
    tubelet: int,
    cell: int,
    threshold: float,
    weight: tuple[float, float, float],
    symmetric: bool,
) -> RunLength:
    frames = frames.contiguous()
    front = None if front is None else front.contiguous()
    b, t, height, width, _ = frames.shape
    shape = (b, t // tubelet, height // cell, width // cell)
    distance = torch.empty(shape, dtype=torch.float32, device=frames.device)
    keep = torch.empty(shape, dtype=torch.uint8, device=frames.device)
    run = torch.empty(shape, dtype=torch.int32, device=frames.device)
    if distance.numel():
        cols = triton.next_power_of_2(cell * 3)
        distance_kernel[(distance.numel(),)](
            frames,
            frames if front is None else front,
            distance,
            keep,
            threshold,
            *weight,
            t,
            height,
            width,
            height * width * 3,
            TUBELET=tubelet,
            CELL=cell,
            ROWS=min(triton.next_power_of_2(cell), max(BLOCK // cols, 1)),
            COLS=cols,
            HAS_FRONT=front is not None,
            SYMMETRIC=symmetric,
            enable_fp_fusion=False,  # as the reference rounds: product, then sum
        )
        columns = shape[2] * shape[3]
        total = b * columns
        scan_kernel[(triton.cdiv(total, SCAN_BLOCK),)](
            keep, run, total, columns, shape[1], BLOCK=SCAN_BLOCK, enable_fp_fusion=False
        )
    return RunLength(keep=keep.bool(), run=run, distance=distance)
