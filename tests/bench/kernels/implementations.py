"""The ways of a case that are a kernel's own: its reference, and what runs it fast here."""

from __future__ import annotations

from collections.abc import Callable

from kernels import implementation
from kernels._dispatch import Implementation
from tests.bench.kernels.harness import Way


def implementations(
    call: Callable[[], object], device: str, *, native: bool = True
) -> dict[str, Way]:
    """`call` under each implementation that its kernel has on this device.

    native: whether it has one compiled for the CPU.
    """
    names: list[Implementation] = ["reference"]
    if device != "cpu":
        names.append("triton")
    elif native:
        names.append("native")
    return {name: _under(name, call) for name in names}


def _under(name: Implementation, call: Callable[[], object]) -> Way:
    def way() -> object:
        with implementation(name):
            return call()

    return way
