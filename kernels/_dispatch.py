"""Which implementation a kernel runs: Triton where the tensors live on a GPU, torch elsewhere."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

from torch import Tensor

Implementation = Literal["reference", "triton"]

_forced: ContextVar[Implementation | None] = ContextVar("kernels_implementation", default=None)


@contextmanager
def implementation(name: Implementation) -> Iterator[None]:
    """Run every kernel called inside the block with the implementation `name`."""
    if name not in get_args(Implementation):
        raise ValueError(f"implementation {name!r} is not one of: reference, triton.")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def use_triton(*tensors: Tensor) -> bool:
    """Whether a kernel called with these tensors runs its Triton version.

    True for CUDA tensors where Triton is installed, and for any tensor under TRITON_INTERPRET=1.
    `implementation(...)` overrides both; asking for Triton where it cannot run is an error, never
    a silent fallback.
    """
    forced = _forced.get()
    if forced == "reference":
        return False
    runnable = importlib.util.find_spec("triton") is not None and (
        os.environ.get("TRITON_INTERPRET") == "1" or all(tensor.is_cuda for tensor in tensors)
    )
    if forced == "triton" and not runnable:
        devices = sorted({str(tensor.device) for tensor in tensors})
        raise RuntimeError(
            f"implementation 'triton' cannot run here (tensors on {', '.join(devices)}): install "
            "triton and use CUDA tensors, or set TRITON_INTERPRET=1 before triton is imported."
        )
    return runnable
