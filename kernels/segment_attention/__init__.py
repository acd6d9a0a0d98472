"""segment_attention: full attention inside each segment of a packed sequence, sizes counted."""

import torch
from torch import Tensor

from kernels._dispatch import choose
from kernels._segments import check_offsets, check_one_device
from kernels.segment_attention import reference

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
MAX_CHANNELS = 128

__all__ = ["segment_attention"]


def segment_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    *,
    size: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attend from every token to all tokens of its segment: softmax(scale · q kᵀ + log size) v.

    With `size`, a token that stands for n patches draws as much attention as n equal ones would:
    proportional attention (ToMe, arXiv:2210.09461, section 3).

    Args:
        q: `[N, H, D]` fp16, bf16 or fp32, D up to 128.
        k: `[N, K, D]`, K a divisor of H: H / K query heads share one (grouped queries).
        v: like `k`.
        offsets: `[S+1]` int32 or int64, segment borders from 0 to N, not decreasing. Trusted on a
            GPU.
        size: `[N]` fp32, what each key stands for, above 0 (trusted on a GPU); 1 each if None.
        scale: of the products; D ** -0.5 if None.

    Returns:
        `[N, H, D]` in the dtype of `q`. Logits and sums are fp32; the Triton version rounds shares
        to the dtype of `v` before it weighs with them. It has no backward pass.

    Raises:
        ValueError: a shape, dtype, device, border or size is not as above.
    """
    if q.ndim != 3 or q.dtype not in DTYPES or not 0 < q.shape[2] <= MAX_CHANNELS:
        raise ValueError(
            f"q is {q.dtype} {list(q.shape)}; expected [N, H, D] in float16, bfloat16 or float32, "
            f"D from 1 to {MAX_CHANNELS}."
        )
    n, heads, channels = q.shape
    shared = k.shape[1] if k.ndim == 3 else 0
    for name, x in (("k", k), ("v", v)):
        fits = x.shape == (n, shared, channels) and shared > 0 and heads % shared == 0
        if not fits or x.dtype != q.dtype:
            raise ValueError(
                f"{name} is {x.dtype} {list(x.shape)}; expected {q.dtype} [{n}, K, {channels}], "
                f"K a divisor of {heads} (heads of q) and the same for k and v."
            )
    check_offsets(offsets, n, (torch.int32, torch.int64))
    if size is not None and (size.dtype != torch.float32 or size.shape != (n,)):
        raise ValueError(f"size is {size.dtype} {list(size.shape)}; expected float32 [{n}].")
    check_one_device(q=q, k=k, v=v, offsets=offsets, size=size)
    if size is not None and size.device.type == "cpu" and not (size > 0).all():
        raise ValueError(f"size has {float(size.min())}; every size must be above 0.")
    scale = channels**-0.5 if scale is None else scale
    if choose(q) == "triton":
        from kernels.segment_attention import kernel

        mixed: Tensor = kernel.segment_attention(q, k, v, offsets, size, scale)
        return mixed
    return reference.segment_attention(q, k, v, offsets, size, scale)
