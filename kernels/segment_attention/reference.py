"""segment_attention in torch: one call of sdpa per segment, in fp32."""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def segment_attention(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, size: Tensor | None, scale: float
) -> Tensor:
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    bias = None if size is None else size.log()
    for start, end in pairwise(offsets.tolist()):
        if start == end:  # sdpa crashes on nothing
            continue
        queries, keys, values = (x[start:end].float().transpose(0, 1)[None] for x in (q, k, v))
        mixed = scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=None if bias is None else bias[None, None, None, start:end],
            scale=scale,
            enable_gqa=k.shape[1] != q.shape[1],
        )
        out[start:end] = mixed[0].transpose(0, 1)
    return out
