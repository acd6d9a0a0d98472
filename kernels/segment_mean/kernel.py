"""segment_mean in Triton: one program per group and block of channels, rows in packed order.

The rows of a group come from a stable sort, so that there are no atomics and sums never vary.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def mean_kernel(data, weight, order, bounds, out, D, BLOCK: tl.constexpr):
    i_g = tl.program_id(0).to(tl.int64)
    i_d = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m = i_d < D
    start = tl.load(bounds + i_g)
    end = tl.load(bounds + i_g + 1)
    total = tl.zeros([1], dtype=tl.float32)
    for i in range(start, end):
        total += tl.load(weight + tl.load(order + i))
    some = tl.where(total == 0, 1.0, total)
    acc = tl.zeros([BLOCK], dtype=tl.float32)
    for i in range(start, end):
        row = tl.load(order + i)
        w = tl.zeros([1], dtype=tl.float32) + tl.load(weight + row)
        share = tl.div_rn(w, some)  # exactly 1 in a group of one
        read = m & (w != 0)
        x = tl.load(data + row * D + i_d, mask=read, other=0.0).to(tl.float32)
        acc += tl.where(read, x * share, 0.0)
    acc = tl.where(total == 0, float("nan"), acc)
    tl.store(out + i_g * D + i_d, acc.to(out.dtype.element_ty), mask=m)


def segment_mean(data: Tensor, weight: Tensor, group: Tensor, num_groups: int) -> Tensor:
    data, weight = data.contiguous(), weight.contiguous()
    channels = data.shape[1]
    out = torch.empty((num_groups, channels), dtype=data.dtype, device=data.device)
    if out.numel():
        grouped, order = torch.sort(group, stable=True)
        ids = torch.arange(num_groups + 1, device=data.device)
        bounds = torch.searchsorted(grouped, ids)  # dropped rows, group -1, come before
        block = min(triton.next_power_of_2(channels), 1024)
        mean_kernel[(num_groups, triton.cdiv(channels, block))](
            data,
            weight,
            order,
            bounds,
            out,
            channels,
            BLOCK=block,
            enable_fp_fusion=False,  # as the reference rounds: product, then sum
        )
    return out
