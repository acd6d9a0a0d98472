"""segment_mean: the weighted mean of each group of rows."""

import torch
from torch import Tensor

from kernels._dispatch import choose
from kernels._segments import check_one_device
from kernels.segment_mean import reference

DTYPES = (torch.float16, torch.bfloat16, torch.float32)

__all__ = ["segment_mean"]


def segment_mean(data: Tensor, weight: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Average the rows of each group, weighted.

    Args:
        data: `[N, D]` fp16, bf16 or fp32. Made contiguous if it is not.
        weight: `[N]` fp32. A row of weight 0 is not read, so a NaN in it does not spread.
        group: `[N]` int64, in -1 .. num_groups - 1; -1 drops the row. Trusted on a GPU.
        num_groups: rows of the result.

    Returns:
        `[num_groups, D]` in the dtype of `data`, accumulated in fp32 in row order. A group of one
        row returns that row bit for bit. A group without weight has no mean: NaN.

    Raises:
        ValueError: a shape, dtype, device or group is not as above.
    """
    if data.ndim != 2 or data.dtype not in DTYPES:
        raise ValueError(
            f"data is {data.dtype} {list(data.shape)}; expected [N, D] in float16, bfloat16 or "
            "float32."
        )
    n = data.shape[0]
    if weight.dtype != torch.float32 or weight.shape != (n,):
        raise ValueError(f"weight is {weight.dtype} {list(weight.shape)}; expected float32 [{n}].")
    if group.dtype != torch.int64 or group.shape != (n,):
        raise ValueError(f"group is {group.dtype} {list(group.shape)}; expected int64 [{n}].")
    check_one_device(data=data, weight=weight, group=group)
    if num_groups < 0:
        raise ValueError(f"num_groups is {num_groups}; expected 0 or more.")
    if n and group.device.type == "cpu" and (group.min() < -1 or group.max() >= num_groups):
        raise ValueError(
            f"group runs from {int(group.min())} to {int(group.max())}; allowed are -1 (dropped) "
            f"to {num_groups - 1} (num_groups - 1)."
        )
    match choose(data, native=True):
        case "triton":
            from kernels.segment_mean import kernel

            mean: Tensor = kernel.segment_mean(data, weight, group, num_groups)
            return mean
        case "native":
            from kernels.segment_mean import native

            return native.segment_mean(data, weight, group, num_groups)
        case "reference":
            return reference.segment_mean(data, weight, group, num_groups)
