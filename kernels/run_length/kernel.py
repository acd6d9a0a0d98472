"""run_length in Triton: one program per cell walks through time; two more compact what it kept.

Every byte that decides is read from memory once; nothing is atomic, so nothing varies.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.run_length.reference import Rule, RunLength

PIXEL_BLOCK = 4096  # bytes of a picture loaded at once
INDEX_BLOCK = 1024  # places per program of the compaction
COUNT_BLOCK = 1024  # counts loaded at once


@triton.jit
def _columns(
    frames,
    front,
    o_a,
    o_b,
    o_front,
    anchor,
    height,
    line,
    CELL: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """[COLS] int32: differences of two pictures of a cell, summed over its first `height` rows.

    They are at frames + o_a and, if the anchor is none of frames, front + o_front, else
    frames + o_b.
    """
    i_row = tl.arange(0, ROWS)[:, None]
    i_col = tl.arange(0, COLS)[None, :]
    height_front = tl.where(anchor < 0, height, 0)
    height_frames = height - height_front
    acc = tl.zeros([ROWS, COLS], dtype=tl.int32)
    for row in range(0, CELL, ROWS):
        i_line = row + i_row
        o = i_line * line + i_col
        m = i_col < CELL * 3
        a = tl.load(frames + o_a + o, mask=m & (i_line < height), other=0)
        b = tl.load(frames + o_b + o, mask=m & (i_line < height_frames), other=0)
        b += tl.load(front + o_front + o, mask=m & (i_line < height_front), other=0)
        acc += tl.abs(a.to(tl.int32) - b.to(tl.int32))
    return tl.sum(acc, axis=0)


@triton.jit
def _weighted(columns, w0, w1, w2, COLS: tl.constexpr):
    channel = tl.arange(0, COLS) % 3
    s0 = tl.sum(tl.where(channel == 0, columns, 0), axis=0).to(tl.float32)
    s1 = tl.sum(tl.where(channel == 1, columns, 0), axis=0).to(tl.float32)
    s2 = tl.sum(tl.where(channel == 2, columns, 0), axis=0).to(tl.float32)
    return s0 * w0 + s1 * w1 + s2 * w2


@triton.jit(do_not_specialize=["refresh", "tubelets", "rows", "columns"])
def walk_kernel(
    frames,
    front,
    open_run,
    keep,
    run,
    distance,
    next_run,
    next_front,
    threshold,
    w0,
    w1,
    w2,
    refresh,
    tubelets,
    rows,
    columns,
    TUBELET: tl.constexpr,
    CELL: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    FROM_HEAD: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)  # cell (b, y, x)
    cells = (rows * columns).to(tl.int64)
    i_b = i // cells
    i_x = i % columns
    i_y = (i // columns) % rows
    line = columns.to(tl.int64) * (CELL * 3)
    frame = cells * (CELL * CELL * 3)
    o_corner = i_y * CELL * line + i_x * (CELL * 3)
    o_front = i_b * frame + o_corner
    o_stream = i_b * tubelets * (TUBELET * frame) + o_corner
    o_out = i_b * tubelets * cells + i % cells

    length = tl.load(open_run + i)
    head = tl.full([], -1, dtype=tl.int32)  # tubelet of this call last kept
    anchor = tl.full([], -1, dtype=tl.int32)  # tubelet compared with; -1: the picture in front
    for t in range(tubelets):
        o_first = o_stream + t * (TUBELET * frame)
        o_last = o_first + (TUBELET - 1) * frame
        o_anchor = o_stream + tl.maximum(anchor, 0) * (TUBELET * frame)
        height = tl.where(length > 0, CELL, 0)  # with no run open nothing is read
        acc = _columns(
            frames, front, o_last, o_anchor, o_front, anchor, height, line, CELL, ROWS, COLS
        )
        d = _weighted(acc, w0, w1, w2, COLS)
        if SYMMETRIC:
            acc = _columns(
                frames, front, o_first, o_anchor, o_front, anchor, height, line, CELL, ROWS, COLS
            )
            d = tl.maximum(d, _weighted(acc, w0, w1, w2, COLS))
        d = tl.where(length > 0, d, float("inf"))
        kept = (d > threshold) | (length >= refresh)
        tl.store(distance + o_out + t * cells, d)
        tl.store(keep + o_out + t * cells, kept.to(tl.uint8))
        tl.store(run + o_out + t * cells, 0)
        tl.store(run + o_out + head * cells, t - head, mask=kept & (head >= 0))
        head = tl.where(kept, t, head)
        length = tl.where(kept, 1, length + 1)
        anchor = head if FROM_HEAD else anchor + 1
    tl.store(run + o_out + head * cells, tubelets - head, mask=head >= 0)
    tl.store(next_run + i, length)

    i_row = tl.arange(0, ROWS)[:, None]
    i_col = tl.arange(0, COLS)[None, :]
    o_anchor = o_stream + tl.maximum(anchor, 0) * (TUBELET * frame)
    height_front = tl.where(anchor < 0, CELL, 0)
    height_frames = CELL - height_front
    for row in range(0, CELL, ROWS):
        i_line = row + i_row
        o = i_line * line + i_col
        m = i_col < CELL * 3
        pixel = tl.load(frames + o_anchor + o, mask=m & (i_line < height_frames), other=0)
        pixel += tl.load(front + o_front + o, mask=m & (i_line < height_front), other=0)
        tl.store(next_front + o_front + o, pixel, mask=m & (i_line < CELL))


@triton.jit
def count_kernel(keep, counts, total, BLOCK: tl.constexpr):
    i_block = tl.program_id(0)
    i = i_block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    kept = tl.load(keep + i, mask=i < total, other=0).to(tl.int32)
    tl.store(counts + i_block, tl.sum(kept, axis=0))


@triton.jit
def compact_kernel(
    keep, counts, index, count, total, blocks, BLOCK: tl.constexpr, COUNT_BLOCK: tl.constexpr
):
    i_block = tl.program_id(0)
    before = tl.zeros([], dtype=tl.int64)
    kept_in_all = tl.zeros([], dtype=tl.int64)
    for start in range(0, blocks, COUNT_BLOCK):
        i_other = start + tl.arange(0, COUNT_BLOCK)
        kept_there = tl.load(counts + i_other, mask=i_other < blocks, other=0).to(tl.int64)
        before += tl.sum(tl.where(i_other < i_block, kept_there, 0), axis=0)
        kept_in_all += tl.sum(kept_there, axis=0)
    i = i_block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    kept = tl.load(keep + i, mask=i < total, other=0).to(tl.int32)
    place = before + tl.cumsum(kept, axis=0) - kept
    tl.store(index + place, i, mask=kept != 0)
    # The n-th cell that is not kept clears the n-th place after those of the kept.
    tl.store(index + kept_in_all + i - place, -1, mask=(kept == 0) & (i < total))
    tl.store(count, kept_in_all, mask=i_block == 0)


def run_length(frames: Tensor, front: Tensor | None, open_run: Tensor, rule: Rule) -> RunLength:
    frames, open_run = frames.contiguous(), open_run.contiguous()
    front = frames if front is None else front.contiguous()
    b, t, height, width, _ = frames.shape
    shape = (b, t // rule.tubelet, height // rule.cell, width // rule.cell)

    def empty(dtype: torch.dtype, *size: int) -> Tensor:
        return torch.empty(size, dtype=dtype, device=frames.device)

    keep = empty(torch.bool, *shape)
    run = empty(torch.int32, *shape)
    distance = empty(torch.float32, *shape)
    index = empty(torch.int64, keep.numel())
    count = empty(torch.int64)
    next_run = torch.empty_like(open_run)
    next_front = empty(torch.uint8, b, height, width, 3)
    kept = keep.view(torch.uint8)
    cols = triton.next_power_of_2(rule.cell * 3)
    if open_run.numel():
        walk_kernel[(open_run.numel(),)](
            frames,
            front,
            open_run,
            kept,
            run,
            distance,
            next_run,
            next_front,
            rule.threshold,
            *rule.weight,
            rule.refresh,
            *shape[1:],
            TUBELET=rule.tubelet,
            CELL=rule.cell,
            ROWS=min(triton.next_power_of_2(rule.cell), max(PIXEL_BLOCK // cols, 1)),
            COLS=cols,
            SYMMETRIC=rule.symmetric,
            FROM_HEAD=rule.from_head,
            enable_fp_fusion=False,  # as the reference rounds: product, then sum
        )
    total = keep.numel()
    blocks = triton.cdiv(total, INDEX_BLOCK)
    counts = empty(torch.int32, blocks)
    if blocks:
        count_kernel[(blocks,)](kept, counts, total, BLOCK=INDEX_BLOCK)
    compact_kernel[(max(blocks, 1),)](
        kept, counts, index, count, total, blocks, BLOCK=INDEX_BLOCK, COUNT_BLOCK=COUNT_BLOCK
    )
    return RunLength(
        keep=keep,
        run=run,
        distance=distance,
        index=index,
        count=count,
        open_run=next_run,
        front=next_front,
    )
