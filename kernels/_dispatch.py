"""Which implementation a kernel runs: Triton on a GPU, compiled loops on a CPU, else torch."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from typing import Literal, get_args

import torch
from torch import Tensor

Implementation = Literal["native", "reference", "triton"]

PACKAGES = {"native": "numba", "reference": "torch", "triton": "triton"}
NEEDS = {
    "native": "install numba, use CPU tensors, and a kernel that has a native.py",
    "triton": "install triton and use CUDA tensors, or set TRITON_INTERPRET=1 before triton is "
    "imported",
}

log = logging.getLogger("kernels")
_forced: ContextVar[Implementation | None] = ContextVar("kernels_implementation", default=None)


@contextmanager
def implementation(name: Implementation) -> Iterator[None]:
    """Run every kernel called inside the block with the implementation `name`.

    "reference" is torch, on any device; "native" is compiled with numba, for CPU tensors; "triton"
    is for CUDA tensors. A kernel that cannot run it raises RuntimeError.
    """
    if name not in get_args(Implementation):
        allowed = ", ".join(get_args(Implementation))
        raise ValueError(f"implementation {name!r} is not one of: {allowed}.")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def choose(*tensors: Tensor, native: bool = False) -> Implementation:
    """The implementation that a kernel called with these tensors runs.

    Triton for CUDA tensors, and for any under TRITON_INTERPRET=1; the native one for CPU tensors,
    if the kernel has it (`native`). Where its package cannot be imported the reference runs, and
    the log says so once. `implementation(...)` overrides all this.

    Raises:
        RuntimeError: the implementation asked for cannot run here; there is no silent fallback.
    """
    able = {
        # compiled loops have no backward pass; the reference does
        "native": native
        and all(tensor.is_cpu and not _differentiated(tensor) for tensor in tensors),
        "reference": True,
        "triton": os.environ.get("TRITON_INTERPRET") == "1"
        or all(tensor.is_cuda for tensor in tensors),
    }
    forced = _forced.get()
    best: Implementation = (
        "triton" if able["triton"] else "native" if able["native"] else "reference"
    )
    chosen = forced or best
    if able[chosen] and _importable(PACKAGES[chosen]):
        return chosen
    if forced:
        devices = ", ".join(sorted({str(tensor.device) for tensor in tensors}))
        raise RuntimeError(
            f"implementation {forced!r} cannot run here (tensors on {devices}): {NEEDS[forced]}."
        )
    return "reference"


def _differentiated(tensor: Tensor) -> bool:
    return tensor.requires_grad and torch.is_grad_enabled()


@cache
def _importable(package: str) -> bool:
    try:
        import_module(package)
    except ImportError as exc:
        log.warning("kernels run their slower torch reference: no %s (%s)", package, exc)
        return False
    return True
