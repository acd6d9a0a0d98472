"""Decoding: the next chunk of pictures from any media time. Never imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from streamer.core.chunker import Chunker
from streamer.errors import SourceError
from streamer.sources import Source, open_source
from streamer.types import FrameChunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What to read: a job's source and how it is sampled."""

    job: str
    url: str
    fps: float
    chunk_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The source has no more pictures."""

    missing: tuple[float, float] | None = None
    """A span that the file announces and does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The source cannot be read any further; one sentence says why."""

    reason: str


@dataclass(slots=True, kw_only=True)
class _Open:
    source: Source
    chunks: Iterator[FrameChunk]
    next_s: float = field(default=0.0)


class DecodeWorker:
    """Holds open sources; what it returns depends on its arguments alone, so it may die anytime."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.open: dict[str, _Open] = {}

    def read(self, reading: Reading, start_s: float) -> FrameChunk | End | Failure:
        """The first chunk at or after start_s, which is a chunk's border; numbers follow time.

        Reading on where the last call ended is cheap; any other place is sought.
        """
        try:
            held = self.open.get(reading.job)
            if held is None or abs(held.next_s - start_s) > 1e-6:
                held = self._seek(reading, start_s)
            # a border in the middle of a chunk follows one that was cut short: it has been read
            chunk = next((c for c in held.chunks if c.t0 > start_s - 1e-6), None)
        except SourceError as exc:
            self.close(reading.job)
            return Failure(reason=str(exc))
        if chunk is None:
            missing = held.source.missing
            self.close(reading.job)
            return End(missing=missing)
        held.next_s = chunk.t1
        return chunk

    def close(self, job: str) -> None:
        """Lets go of a job's source."""
        if held := self.open.pop(job, None):
            held.source.close()

    def _seek(self, reading: Reading, start_s: float) -> _Open:
        held = self.open.get(reading.job)
        source = held.source if held else open_source(reading.url, fps=reading.fps)
        chunker = Chunker(chunk_s=reading.chunk_s, fps=reading.fps, clock=self.clock)
        number = chunker.number_at(start_s)
        self.open[reading.job] = _Open(
            source=source, chunks=chunker.chunks(source, number), next_s=start_s
        )
        return self.open[reading.job]
