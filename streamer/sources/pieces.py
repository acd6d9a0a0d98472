"""Pieces that come one after the other, as a file that is read in order."""

from __future__ import annotations

import io
from collections.abc import Iterator

from streamer.errors import SourceError


class PiecesFile:
    """A `MediaFile` of pieces; a SourceError of theirs ends it."""

    hint = ""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.failure: SourceError | None = None
        self.ended = False
        """Whether everything was read."""
        self._pieces = pieces
        self._buffer = memoryview(b"")
        self._position = 0
        self._closed = False

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes, and no more than one piece has; nothing at the end."""
        if self._closed or self.failure is not None:
            return b""
        try:
            while not self._buffer:
                self._buffer = memoryview(next(self._pieces))
        except StopIteration:
            self.ended = True
            return b""
        except SourceError as exc:
            self.failure = exc
            return b""
        size = len(self._buffer) if size < 0 else size
        piece = bytes(self._buffer[:size])
        self._buffer = self._buffer[size:]
        self._position += len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        raise io.UnsupportedOperation("pieces are read in order")

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self._closed = True
        self._buffer = memoryview(b"")
