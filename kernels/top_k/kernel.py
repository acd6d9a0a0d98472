"""top_k in Triton: one program per segment finds the k-th score by its bits, eight at a time.

Four histograms fix the score; a fifth pass keeps what is above it and the first of its equals.
What a segment keeps is known from `k`, so that its place among all needs no second kernel.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.top_k.reference import TopK

BLOCK = 1024


@triton.jit
def ordered_bits(score, at, m):
    """fp32 scores as uint32 of the same order; NaN as -inf, and -0 as 0."""
    x = tl.load(score + at, mask=m, other=float("-inf")).to(tl.float32)
    x = tl.where(x == x, x, float("-inf"))
    bits = x.to(tl.int32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    return tl.where(bits < 0, -magnitude, magnitude).to(tl.uint32) ^ 0x80000000


@triton.jit
def select_kernel(score, offsets, kept, group, BLOCK: tl.constexpr):
    i_s = tl.program_id(0).to(tl.int64)
    start = tl.load(offsets + i_s)
    end = tl.load(offsets + i_s + 1)
    place = tl.load(kept + i_s)
    wanted = (tl.load(kept + i_s + 1) - place).to(tl.int32)
    digits = tl.arange(0, 256)
    prefix = tl.zeros([1], dtype=tl.uint32)
    ties = tl.zeros([1], dtype=tl.int32) + wanted
    if wanted > 0:
        for step in tl.static_range(4):
            counts = tl.zeros([256], dtype=tl.int32)
            for first in range(start, end, BLOCK):
                at = first + tl.arange(0, BLOCK)
                m = at < end
                bits = ordered_bits(score, at, m) >> (24 - 8 * step)
                alike = m & (bits >> 8 == prefix)
                counts += tl.histogram((bits & 0xFF).to(tl.int32), 256, mask=alike)
            from_here = tl.cumsum(counts, axis=0, reverse=True)  # scores of this digit or above
            digit = tl.sum((from_here >= ties).to(tl.int32), axis=0) - 1
            ties -= tl.sum(tl.where(digits > digit, counts, 0), axis=0)
            prefix = (prefix << 8) | digit.to(tl.uint32)
    for first in range(start, end, BLOCK):
        at = first + tl.arange(0, BLOCK)
        m = at < end
        bits = ordered_bits(score, at, m)
        equal = (m & (bits == prefix)).to(tl.int32)
        keep = m & ((bits > prefix) | ((equal == 1) & (tl.cumsum(equal, axis=0) <= ties)))
        keep = keep & (wanted > 0)
        order = tl.cumsum(keep.to(tl.int32), axis=0)
        tl.store(group + at, tl.where(keep, place + order - 1, -1), mask=m)
        place += tl.sum(keep.to(tl.int32), axis=0)
        ties -= tl.sum(equal, axis=0)


def top_k(score: Tensor, offsets: Tensor, k: Tensor) -> TopK:
    wanted = torch.minimum(k.clamp(min=0), offsets.diff())
    kept = torch.nn.functional.pad(wanted.cumsum(0), (1, 0))
    group = torch.empty(score.shape[0], dtype=torch.int64, device=score.device)
    if group.numel():
        select_kernel[(k.shape[0],)](
            score.contiguous(), offsets.contiguous(), kept, group, BLOCK=BLOCK
        )
    return TopK(group=group, offsets=kept)
