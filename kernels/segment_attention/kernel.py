"""segment_attention in Triton: one program per tile of queries and head, softmax as keys come by.

A segment's tiles are numbered from `start // BLOCK_Q + s`, which leaves each segment enough of them
and takes no more than N // BLOCK_Q + S in all: the grid is known without asking the device.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = 1.4426950408889634


@triton.jit
def segment_of(offsets, i_tile, S, BLOCK_Q: tl.constexpr):
    """The last segment whose tiles begin at or before `i_tile`."""
    low = i_tile * 0
    high = low + S
    while high - low > 1:
        middle = (low + high) // 2
        begins = tl.load(offsets + middle).to(tl.int64) // BLOCK_Q + middle
        low = tl.where(begins <= i_tile, middle, low)
        high = tl.where(begins <= i_tile, high, middle)
    return low


@triton.jit
def attention_kernel(
    q,
    k,
    v,
    offsets,
    size,
    out,
    scale,
    S,
    D,
    GROUP,
    q_n,
    q_h,
    k_n,
    k_h,
    v_n,
    v_h,
    out_n,
    out_h,
    SIZED: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    i_tile = tl.program_id(0).to(tl.int64)
    i_h = tl.program_id(1).to(tl.int64)
    i_s = segment_of(offsets, i_tile, S, BLOCK_Q)
    start = tl.load(offsets + i_s).to(tl.int64)
    end = tl.load(offsets + i_s + 1).to(tl.int64)
    first = start + (i_tile - start // BLOCK_Q - i_s) * BLOCK_Q
    if first >= end:
        return
    i_d = tl.arange(0, BLOCK_D)
    m_d = i_d < D
    o_q = first + tl.arange(0, BLOCK_Q)
    m_q = o_q < end
    b_q = tl.load(
        q + i_h * q_h + o_q[:, None] * q_n + i_d[None, :],
        mask=m_q[:, None] & m_d[None, :],
        other=0.0,
    )
    p_k = k + (i_h // GROUP) * k_h
    p_v = v + (i_h // GROUP) * v_h
    top = tl.full([BLOCK_Q], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK_Q], dtype=tl.float32)
    acc = tl.zeros([BLOCK_Q, BLOCK_D], dtype=tl.float32)
    for key in range(start, end, BLOCK_K):
        o_k = key + tl.arange(0, BLOCK_K)
        m_k = o_k < end
        b_k = tl.load(
            p_k + o_k[None, :] * k_n + i_d[:, None], mask=m_k[None, :] & m_d[:, None], other=0.0
        )
        logits = tl.dot(b_q, b_k, input_precision="ieee") * scale  # [BLOCK_Q, BLOCK_K], base 2
        if SIZED:
            logits += tl.log2(tl.load(size + o_k, mask=m_k, other=1.0))[None, :]
        logits = tl.where(m_k[None, :], logits, float("-inf"))
        new_top = tl.maximum(top, tl.max(logits, axis=1))
        share = tl.exp2(logits - new_top[:, None])
        faded = tl.exp2(top - new_top)
        total = total * faded + tl.sum(share, axis=1)
        b_v = tl.load(
            p_v + o_k[:, None] * v_n + i_d[None, :], mask=m_k[:, None] & m_d[None, :], other=0.0
        )
        acc = acc * faded[:, None]
        acc = tl.dot(share.to(b_v.dtype), b_v, acc, input_precision="ieee")
        top = new_top
    acc = acc / total[:, None]
    tl.store(
        out + i_h * out_h + o_q[:, None] * out_n + i_d[None, :],
        acc.to(out.dtype.element_ty),
        mask=m_q[:, None] & m_d[None, :],
    )


def segment_attention(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, size: Tensor | None, scale: float
) -> Tensor:
    n, heads, channels = q.shape
    segments = offsets.shape[0] - 1
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if not out.numel():
        return out
    q, k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (q, k, v))
    block = 64 if q.dtype != torch.float32 else 32
    attention_kernel[(n // block + segments, heads)](
        q,
        k,
        v,
        offsets.contiguous(),
        q if size is None else size.contiguous(),
        out,
        scale * LOG2_E,
        segments,
        channels,
        heads // k.shape[1],
        *q.stride()[:2],
        *k.stride()[:2],
        *v.stride()[:2],
        *out.stride()[:2],
        SIZED=size is not None,
        BLOCK_Q=block,
        BLOCK_K=block,
        BLOCK_D=max(16, triton.next_power_of_2(channels)),  # tl.dot takes no fewer
    )
    return out
