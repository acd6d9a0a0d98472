"""Values that travel between the parts: frames, chunks of frames, gaps. Units sit in the names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """Why a live source has no pictures for a while."""

    kind: Literal["gap", "skipped"]
    """gap: nothing came; skipped: it came, and nobody took it in time."""
    reason: str


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
    wall0: float | None = None
    wall1: float | None = None
    """Of a live source: the span in Unix seconds."""
    newest_s: float | None = None
    """Of a live source: the media time up to which it has been received; at least t1."""
    hole: Hole | None = None
    """Of a live source: why there is nothing between the chunk before and this one."""

    @property
    def live(self) -> bool:
        """Whether the source goes on whether or not it is read."""
        return self.wall0 is not None

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[3] != 3 or len(self.pts) != len(self.frames):
            raise ValueError(
                f"a FrameChunk needs frames (T, H, W, 3) and pts (T,), "
                f"got {self.frames.shape} and {self.pts.shape}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A span of media time without a chunk: one entry, however long it is."""

    number: int
    t0: float
    t1: float
    reason: str
    kind: Literal["gap", "skipped"] = "gap"
    wall0: float | None = None
    wall1: float | None = None
    """Of a live source: the span in Unix seconds."""
