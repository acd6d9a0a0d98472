"""Shelf: chunks of a live source that wait to be taken, as many as there is room for."""

from __future__ import annotations

import dataclasses
from collections import deque

from streamer.types import FrameChunk, Hole

_EPS = 1e-6


class Shelf:
    """Where there is no room, the oldest chunks that nobody took go, and the next one says so.

    A chunk that was taken is kept until one behind it has been: who took it may be gone.
    """

    def __init__(self, *, most_bytes: int, most_s: float, start_s: float) -> None:
        self._most_bytes = most_bytes
        self._most_s = most_s
        self._taken_s = start_s
        self._chunks: deque[FrameChunk] = deque()
        self._bytes = 0
        self._dropped_s = 0.0

    def put(self, chunk: FrameChunk) -> None:
        self._chunks.append(chunk)
        self._bytes += chunk.frames.nbytes
        while len(self._chunks) > 1 and self._full():
            self._drop()

    def take(self, start_s: float) -> FrameChunk | None:
        """The first chunk that ends behind `start_s`; those that end before it are forgotten."""
        while self._chunks and self._chunks[0].t1 < start_s - _EPS:
            self._forget()
        found = self._behind(start_s)
        if found is not None and found.t1 > self._taken_s + _EPS:
            self._taken_s, self._dropped_s = found.t1, 0.0
        return found

    def holds(self, start_s: float) -> bool:
        """Whether `take` would give something."""
        return self._behind(start_s) is not None

    def _behind(self, start_s: float) -> FrameChunk | None:
        return next((c for c in self._chunks if c.t1 > start_s + _EPS), None)

    def _full(self) -> bool:
        waits = self._behind(self._taken_s)
        late = waits is not None and self._chunks[-1].t1 - waits.t0 > self._most_s + _EPS
        return late or self._bytes > self._most_bytes

    def _drop(self) -> None:
        gone = self._forget()
        if gone.t1 <= self._taken_s + _EPS:
            return
        self._dropped_s += gone.t1 - gone.t0
        reason = f"{self._dropped_s:.1f} s were not taken in time"
        self._chunks[0] = dataclasses.replace(
            self._chunks[0], hole=Hole(kind="skipped", reason=reason)
        )

    def _forget(self) -> FrameChunk:
        gone = self._chunks.popleft()
        self._bytes -= gone.frames.nbytes
        return gone
