"""top_k: the rows of the highest score in each segment, compacted."""

import torch
from torch import Tensor

from kernels._dispatch import choose
from kernels.top_k import reference
from kernels.top_k.reference import TopK

__all__ = ["TopK", "top_k"]


def top_k(score: Tensor, offsets: Tensor, k: Tensor) -> TopK:
    """Keep the `k[s]` highest of each segment s.

    Among equals the earlier row wins. NaN counts as -inf.

    Args:
        score: `[N]` floating; compared in fp32.
        offsets: `[S+1]` int64, segment borders from 0 to N, not decreasing. Trusted on a GPU.
        k: `[S]` int64, how many to keep; capped to 0 .. the segment's length.

    Returns:
        TopK with `group` int64 `[N]` and `offsets` int64 `[S+1]`; nothing waits for the device.

    Raises:
        ValueError: a shape, dtype, device or border is not as above.
    """
    if score.ndim != 1 or not score.is_floating_point():
        raise ValueError(f"score is {score.dtype} {list(score.shape)}; expected floating [N].")
    if offsets.dtype != torch.int64 or offsets.ndim != 1 or offsets.shape[0] < 1:
        raise ValueError(
            f"offsets are {offsets.dtype} {list(offsets.shape)}; expected int64 [S+1], S >= 0."
        )
    segments = offsets.shape[0] - 1
    if k.dtype != torch.int64 or k.shape != (segments,):
        raise ValueError(
            f"k is {k.dtype} {list(k.shape)}; expected int64 [{segments}], one per segment."
        )
    if not score.device == offsets.device == k.device:
        raise ValueError(
            f"score is on {score.device}, offsets on {offsets.device}, k on {k.device}; "
            "move them to one device."
        )
    if offsets.device.type == "cpu" and (
        offsets[0] != 0 or offsets[-1] != score.shape[0] or (offsets.diff() < 0).any()
    ):
        raise ValueError(
            f"offsets {offsets.tolist()} must run from 0 to {score.shape[0]} (N) and not decrease."
        )
    match choose(score, native=True):
        case "triton":
            from kernels.top_k import kernel

            kept: TopK = kernel.top_k(score, offsets, k)
            return kept
        case "native":
            from kernels.top_k import native

            return native.top_k(score, offsets, k)
        case "reference":
            return reference.top_k(score, offsets, k)
