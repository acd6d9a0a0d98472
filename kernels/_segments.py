"""What is checked of packed rows and their segments, alike in every kernel."""

import torch
from torch import Tensor


def check_offsets(
    offsets: Tensor, n: int, dtypes: tuple[torch.dtype, ...] = (torch.int64,)
) -> None:
    """`offsets` [S+1] are borders from 0 to n, not decreasing; content is trusted on a GPU."""
    if offsets.dtype not in dtypes or offsets.ndim != 1 or not len(offsets):
        allowed = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(
            f"offsets are {offsets.dtype} {list(offsets.shape)}; expected {allowed} [S+1], S >= 0."
        )
    if offsets.device.type != "cpu":
        return
    if offsets[0] != 0 or offsets[-1] != n or (offsets.diff() < 0).any():
        raise ValueError(f"offsets {offsets.tolist()} must run from 0 to {n} (N) and not decrease.")


def check_counts(name: str, counts: Tensor, offsets: Tensor) -> None:
    """`counts` are int64 [S], one for each segment."""
    segments = len(offsets) - 1
    if counts.dtype != torch.int64 or counts.shape != (segments,):
        raise ValueError(
            f"{name} is {counts.dtype} {list(counts.shape)}; expected int64 [{segments}], one per "
            "segment."
        )


def check_one_device(**tensors: Tensor | None) -> None:
    """All that are given are on one device."""
    devices = {name: str(x.device) for name, x in tensors.items() if x is not None}
    if len(set(devices.values())) > 1:
        where = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"{where}: move them to one device.")
