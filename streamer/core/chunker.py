"""Chunker: sampled frames to numbered chunks, cut at multiples of `chunk_s` from media time 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from streamer.types import Frame, FrameChunk

_EPS = 1e-6


class HasFrames(Protocol):
    """What is asked of a source."""

    def frames(self, start_s: float = 0.0) -> Iterator[Frame]:
        """Frames at k/fps, from `start_s` on."""


@dataclass(frozen=True, kw_only=True)
class Chunker:
    """Cuts a source into chunks. Chunk n holds the frames of [(n - 1) chunk_s, n chunk_s).

    A chunk's number follows from its time alone, so that chunk n can be made without the ones
    before it. Where a source has no frames for a whole chunk, that number is left out; the caller
    sees `t0` go ahead of the previous `t1` and says so.

    Raises: ValueError for settings that do not give whole tubelets.
    """

    chunk_s: float
    fps: float
    clock: Callable[[], float]
    """Seconds on a clock that only goes forward, for `decode_ms`."""
    tubelet: int = 1
    """A full chunk's frames are a multiple of this; the last chunk of a source may hold fewer."""

    def __post_init__(self) -> None:
        for name in ("chunk_s", "fps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; it must be a finite number above 0, e.g. 2")
        if self.tubelet < 1:
            raise ValueError(f"tubelet is {self.tubelet}; it must be 1 or more frames")
        count = self.chunk_s * self.fps
        if count < 1 - _EPS or abs(count / self.tubelet - round(count / self.tubelet)) > _EPS:
            raise ValueError(
                f"chunk_s {self.chunk_s} × fps {self.fps} is {count:g} frames a chunk; "
                f"it must be a multiple of {self.tubelet}, e.g. chunk_s 2 × fps 2"
            )

    def start_of(self, number: int) -> float:
        """Media time at which chunk `number` begins."""
        if number < 1:
            raise ValueError(f"chunk number {number} does not exist; chunks count from 1")
        return (number - 1) * self.chunk_s

    def number_at(self, pts: float) -> int:
        """The chunk that media time `pts` belongs to."""
        return math.floor(pts / self.chunk_s + _EPS) + 1

    def chunks(self, source: HasFrames, start_number: int = 1) -> Iterator[FrameChunk]:
        """The chunks of a source from `start_number` on, each made when asked for."""
        return self.cut(source.frames(self.start_of(start_number)))

    def cut(self, frames: Iterator[Frame]) -> Iterator[FrameChunk]:
        """Chunks of frames whose times increase."""
        held: list[Frame] = []
        spent = 0.0
        while True:
            before = self.clock()
            frame = next(frames, None)
            took = self.clock() - before
            if frame is None:
                break
            if held and frame.pts <= held[-1].pts:
                raise ValueError(f"a frame at {frame.pts} s came after one at {held[-1].pts} s")
            if held and self.number_at(frame.pts) != self.number_at(held[0].pts):
                chunk = self._chunk(held, spent, followed_by=frame)
                held, spent = [], 0.0
                yield chunk
            held.append(frame)
            spent += took
        if held:
            yield self._chunk(held, spent, followed_by=None)

    def _chunk(self, held: list[Frame], spent: float, *, followed_by: Frame | None) -> FrameChunk:
        number = self.number_at(held[0].pts)
        t1 = number * self.chunk_s
        if followed_by is None or self.number_at(followed_by.pts) != number + 1:
            t1 = min(t1, held[-1].pts + 1 / self.fps)
        return FrameChunk(
            number=number,
            t0=self.start_of(number),
            t1=t1,
            pts=np.array([frame.pts for frame in held], dtype=np.float64),
            frames=np.stack([frame.image for frame in held]),
            decode_ms=1000 * spent,
        )
