"""Loops compiled for the CPU with numba, and their spreading over threads."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TypeVar

import torch
from numba import njit

Loop = TypeVar("Loop", bound=Callable[..., object])

PART = 1 << 23  # bytes: below that a thread costs more time than it saves

log = logging.getLogger("kernels")


def compiled(*signatures: str) -> Callable[[Loop], Loop]:
    """Compile a loop for these signatures, in numba's notation; it runs without the GIL.

    The machine code is kept in NUMBA_CACHE_DIR, beside the source, or in the user's cache,
    whichever can be written to, and made anew when the source or the processor changes.
    """

    def compile_loop(loop: Loop) -> Loop:
        try:
            kept: Loop = njit(list(signatures), nogil=True, cache=True)(loop)
        except RuntimeError as exc:
            if "cannot cache" not in str(exc):
                raise
            _not_kept()
            kept = njit(list(signatures), nogil=True)(loop)
        return kept

    return compile_loop


@cache
def _not_kept() -> None:
    log.warning(
        "every process compiles its kernels anew: no folder to keep them in can be written to; "
        "set NUMBA_CACHE_DIR to one"
    )


def in_parts(loop: Callable[[int, int], object], units: int, *, size: int) -> None:
    """Run `loop(begin, end)` over all of `units`, on as many threads as torch may use.

    `size` is what the loop reads and writes in all, in bytes: little work stays on this thread.
    Threads end with the call: none is left behind to be lost in a fork.
    """
    parts = max(1, min(torch.get_num_threads(), units, size // PART))
    if parts == 1:
        loop(0, units)
        return
    bounds = [units * i // parts for i in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        for done in [pool.submit(loop, *ends) for ends in pairwise(bounds)]:
            done.result()
