"""Cutter: sampled pictures of a live source to chunks, each as soon as its last slot is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from streamer.core.chunker import Chunker
from streamer.sources.live.sampling import HOLD_S
from streamer.types import FrameChunk, Hole

Picture = NDArray[np.uint8]
Resize = Callable[[Picture, int, int], Picture]
"""A picture at a width and a height."""

_EPS = 1e-6
_SILENT = "the source sent no pictures"


class Cutter:
    """Holds the chunk that is being filled.

    Borders are those of `Chunker`. Slots that are missing for no longer than a picture may stay are
    filled with the picture before. Longer ones are a hole: the chunk before it ends with its last
    slot, the one behind it begins with its first and says why.
    """

    def __init__(
        self, *, fps: float, chunk_s: float, start_s: float, resize: Resize, reason: str
    ) -> None:
        """reason: why there is nothing at `start_s`, if there is nothing."""
        self._chunker = Chunker(chunk_s=chunk_s, fps=fps, clock=lambda: 0.0)
        self._fps = fps
        self._resize = resize
        self._end_s = start_s
        self._last = math.ceil(start_s * fps - _EPS) - 1
        self._picture: Picture | None = None
        self._held: list[Picture] = []
        self._first = 0
        self._hole: Hole | None = None
        self._cost_ms = 0.0
        self.reason = reason
        """Why there have been no pictures lately."""

    @property
    def newest_s(self) -> float:
        """Media time up to which there are slots."""
        return (self._last + 1) / self._fps

    def push(
        self, slot: int, count: int, picture: Picture, *, epoch: float, cost_ms: float = 0.0
    ) -> Iterator[FrameChunk]:
        """Chunks that are whole now. epoch: Unix seconds at media time 0."""
        self._cost_ms += cost_ms
        missing = slot - self._last - 1
        if missing > 0 and missing / self._fps > HOLD_S + _EPS:
            yield from self.flush(epoch=epoch)
            if slot / self._fps > self._end_s + _EPS:
                self._hole = Hole(kind="gap", reason=self.reason)
                self.reason = _SILENT
            self._last = slot - 1
        elif missing > 0:
            yield from self._show(
                missing, picture if self._picture is None else self._picture, epoch
            )
        again = max(0, self._last + 1 - slot)
        if count > again:
            yield from self._show(count - again, picture, epoch)

    def flush(self, *, epoch: float) -> Iterator[FrameChunk]:
        """The chunk as far as it has come, cut short."""
        self._picture = None
        if self._held:
            yield self._chunk(self.newest_s, epoch)

    def _show(self, count: int, picture: Picture, epoch: float) -> Iterator[FrameChunk]:
        self._picture = picture
        self.reason = _SILENT
        for _ in range(count):
            self._last += 1
            if not self._held:
                self._first = self._last
            elif picture.shape != self._held[0].shape:
                height, width = self._held[0].shape[:2]
                picture = self._resize(picture, width, height)
            self._held.append(picture)
            number = self._chunker.number_at(self._last / self._fps)
            if self._chunker.number_at((self._last + 1) / self._fps) != number:
                yield self._chunk(number * self._chunker.chunk_s, epoch)
                picture = self._picture

    def _chunk(self, t1: float, epoch: float) -> FrameChunk:
        pts = (self._first + np.arange(len(self._held))) / self._fps
        number = self._chunker.number_at(float(pts[0]))
        border = self._chunker.start_of(number)
        t0 = float(pts[0]) if self._hole else max(border, self._end_s)
        hole, self._hole = self._hole, None
        frames, self._held = np.stack(self._held), []
        cost_ms, self._cost_ms = self._cost_ms, 0.0
        self._end_s = t1
        return FrameChunk(
            number=number,
            t0=t0,
            t1=t1,
            pts=pts,
            frames=frames,
            decode_ms=cost_ms,
            wall0=epoch + t0,
            wall1=epoch + t1,
            newest_s=t1,
            hole=hole,
        )
