"""top_k: the rows of the highest score in each segment, compacted."""

from torch import Tensor

from kernels._dispatch import choose
from kernels._segments import check_counts, check_offsets, check_one_device
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
    check_offsets(offsets, score.shape[0])
    check_counts("k", k, offsets)
    check_one_device(score=score, offsets=offsets, k=k)
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
