"""bipartite_match in Triton: best partner tile by tile, then each score's rank by counting.

Neither the score matrix nor a sort is materialised, and there are no atomics.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.bipartite_match.reference import Match

BLOCK_A = 32
BLOCK_B = 32
BLOCK_D = 32


@triton.jit
def best_kernel(
    metric,
    norm,
    offsets,
    score,
    partner,
    D,
    PROTECT_FIRST: tl.constexpr,
    PROTECT_SECOND: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    i_s = tl.program_id(0).to(tl.int64)
    i_tile = tl.program_id(1).to(tl.int64)
    start = tl.load(offsets + i_s)
    n = tl.load(offsets + i_s + 1) - start
    num_a = (n + 1) // 2
    num_b = n // 2
    if i_tile * BLOCK_A >= num_a:
        return
    i_a = i_tile * BLOCK_A + tl.arange(0, BLOCK_A)
    m_a = i_a < num_a
    o_a = start + 2 * i_a
    norm_a = tl.load(norm + o_a, mask=m_a, other=1.0)
    best = tl.full([BLOCK_A], float("-inf"), dtype=tl.float32)
    best_b = tl.zeros([BLOCK_A], dtype=tl.int64)
    for b in range(0, num_b, BLOCK_B):
        i_b = b + tl.arange(0, BLOCK_B).to(tl.int64)
        m_b = i_b < num_b
        o_b = start + 2 * i_b + 1
        acc = tl.zeros([BLOCK_A, BLOCK_B], dtype=tl.float32)
        for d in range(0, D, BLOCK_D):
            i_d = d + tl.arange(0, BLOCK_D)
            m_d = i_d < D
            b_a = tl.load(
                metric + o_a[:, None] * D + i_d[None, :],
                mask=m_a[:, None] & m_d[None, :],
                other=0.0,
            )
            b_b = tl.load(
                metric + o_b[None, :] * D + i_d[:, None],
                mask=m_b[None, :] & m_d[:, None],
                other=0.0,
            )
            acc = tl.dot(b_a, b_b, acc, input_precision="ieee")
        norm_b = tl.load(norm + o_b, mask=m_b, other=1.0)
        acc = tl.div_rn(acc, norm_a[:, None] * norm_b[None, :])
        m = m_a[:, None] & m_b[None, :] & (acc == acc)
        if PROTECT_FIRST:
            m = m & (i_a > 0)[:, None]
        if PROTECT_SECOND:
            m = m & (i_b > 0)[None, :]
        acc = tl.where(m, acc, float("-inf"))
        value, column = tl.max(acc, axis=1, return_indices=True)  # first maximum
        better = value > best
        best_b = tl.where(better, b + column.to(tl.int64), best_b)
        best = tl.where(better, value, best)
    tl.store(score + o_a, best, mask=m_a)
    tl.store(partner + o_a, start + 2 * best_b + 1, mask=m_a)


@triton.jit
def rank_kernel(
    offsets, r, score, partner, target, BLOCK_A: tl.constexpr, BLOCK_OTHER: tl.constexpr
):
    i_s = tl.program_id(0).to(tl.int64)
    i_tile = tl.program_id(1).to(tl.int64)
    start = tl.load(offsets + i_s)
    num_a = (tl.load(offsets + i_s + 1) - start + 1) // 2
    if i_tile * BLOCK_A >= num_a:
        return
    i_a = i_tile * BLOCK_A + tl.arange(0, BLOCK_A)
    m_a = i_a < num_a
    value = tl.load(score + start + 2 * i_a, mask=m_a, other=float("-inf"))
    rank = tl.zeros([BLOCK_A], dtype=tl.int32)
    for first in range(0, num_a, BLOCK_OTHER):
        i_other = first + tl.arange(0, BLOCK_OTHER).to(tl.int64)
        m_other = i_other < num_a
        other = tl.load(score + start + 2 * i_other, mask=m_other, other=float("-inf"))
        tie = (other[None, :] == value[:, None]) & (i_other[None, :] < i_a[:, None])
        ahead = ((other[None, :] > value[:, None]) | tie) & m_other[None, :]
        rank += tl.sum(ahead.to(tl.int32), axis=1)
    merged = m_a & (rank < tl.load(r + i_s)) & (value > float("-inf"))
    o_a = start + 2 * i_a
    tl.store(target + o_a, tl.load(partner + o_a, mask=merged, other=0), mask=merged)


def bipartite_match(
    metric: Tensor,
    norm: Tensor,
    offsets: Tensor,
    r: Tensor,
    protect_first: bool,
    protect_second: bool,
) -> Match:
    n, channels = metric.shape
    metric, offsets, r = metric.contiguous(), offsets.contiguous(), r.contiguous()
    target = torch.arange(n, device=metric.device)
    score = torch.full((n,), -torch.inf, device=metric.device)
    segments = r.shape[0]
    if n and segments:
        partner = torch.empty(n, dtype=torch.int64, device=metric.device)
        # Segment lengths stay on the device: tiles beyond a segment's end return at once.
        grid = (segments, triton.cdiv((n + 1) // 2, BLOCK_A))
        best_kernel[grid](
            metric,
            norm,
            offsets,
            score,
            partner,
            channels,
            PROTECT_FIRST=protect_first,
            PROTECT_SECOND=protect_second,
            BLOCK_A=BLOCK_A,
            BLOCK_B=BLOCK_B,
            BLOCK_D=BLOCK_D,
            enable_fp_fusion=True,
        )
        rank_kernel[grid](offsets, r, score, partner, target, BLOCK_A=BLOCK_A, BLOCK_OTHER=BLOCK_B)
    return Match(target=target, score=score)
