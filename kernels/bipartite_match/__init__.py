"""bipartite_match: ToMe's bipartite soft matching on packed segments.

Paper: Bolya et al. 2023, arXiv:2210.09461, section 3. Written from the method, not its code.
"""

import torch
from torch import Tensor

from kernels._dispatch import choose
from kernels._segments import check_counts, check_offsets, check_one_device
from kernels.bipartite_match import reference
from kernels.bipartite_match.reference import Match

MIN_NORM = 1e-12  # a zero row has similarity 0 to all

__all__ = ["Match", "bipartite_match"]


def bipartite_match(
    metric: Tensor,
    offsets: Tensor,
    r: Tensor,
    *,
    protect_first: bool = False,
    protect_second: bool = False,
) -> Match:
    """Plan which tokens of each segment merge into which.

    Inside a segment, tokens at even places (A) look for their most similar token at an odd place
    (B) by cosine; the `r` most similar A tokens merge. Among equals the lower place wins, on both
    sides. A pair with a NaN or an infinity in it never merges.

    Args:
        metric: `[N, D]` floating, what similarity is taken of, in fp32.
        offsets: `[S+1]` int64, segment borders from 0 to N, not decreasing. Trusted on a GPU.
        r: `[S]` int64, tokens to remove per segment; capped to 0 .. (n - protected) // 2.
        protect_first: the first token of a segment (a CLS token) is never merged away.
        protect_second: nothing merges into the second one (a distillation token).

    Returns:
        Match with `target` int64 `[N]` and `score` fp32 `[N]`.

    Raises:
        ValueError: a shape, dtype, device or border is not as above.
    """
    if metric.ndim != 2 or not metric.is_floating_point():
        raise ValueError(
            f"metric is {metric.dtype} {list(metric.shape)}; expected floating [N, D]."
        )
    check_offsets(offsets, metric.shape[0])
    check_counts("r", r, offsets)
    check_one_device(metric=metric, offsets=offsets, r=r)
    lengths = offsets.diff()
    protected = int(protect_first) + int(protect_second)
    cap = (lengths - protected).clamp(min=0) // 2
    r = torch.minimum(r.clamp(min=0), cap)
    metric = metric.float()
    norm = torch.linalg.vector_norm(metric, dim=1).clamp(min=MIN_NORM)
    if choose(metric) == "triton":
        from kernels.bipartite_match import kernel

        match: Match = kernel.bipartite_match(
            metric, norm, offsets, r, protect_first, protect_second
        )
        return match
    return reference.bipartite_match(metric, norm, offsets, r, protect_first, protect_second)
