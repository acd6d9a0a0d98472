"""Values that travel between the parts: frames, chunks of frames, gaps. Units sit in the names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One sampled picture."""

    pts: float
    """Media time in seconds, from the source's first picture."""
    image: NDArray[np.uint8]
    """(H, W, 3) uint8 RGB."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameChunk:
    """Consecutive sampled frames: the unit of queueing, captioning, retry and exactly-once."""

    number: int
    """From its time alone when decoded; 1, 2, 3 … within the job once the tokenizer took it."""
    t0: float
    t1: float
    """The span in media seconds; the next chunk's t0 is this t1, or later after a hole."""
    pts: NDArray[np.float64]
    """(T,) media seconds, increasing."""
    frames: NDArray[np.uint8]
    """(T, H, W, 3) uint8 RGB."""
    decode_ms: float

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[3] != 3 or len(self.pts) != len(self.frames):
            raise ValueError(
                f"a FrameChunk needs frames (T, H, W, 3) and pts (T,), "
                f"got {self.frames.shape} and {self.pts.shape}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A span of media time for which the source has no pictures."""

    number: int
    t0: float
    t1: float
    reason: str
