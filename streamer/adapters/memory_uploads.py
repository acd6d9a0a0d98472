"""Uploads inside one process: same contract as those in Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from streamer.adapters.clock import SYSTEM_CLOCK, Clock
from streamer.adapters.uploads import PIECE, gone, new_id


class MemoryUploads:
    """Uploads for one process; safe to share between its threads."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, bytes]] = {}

    def put(self, content: bytes, *, keep_s: float) -> str:
        made = new_id()
        with self._lock:
            self._kept[made] = (self._clock.monotonic() + keep_s, content)
        return made

    def open(self, upload_id: str) -> Iterator[bytes]:
        with self._lock:
            kept = self._kept.get(upload_id)
        if kept is None or kept[0] <= self._clock.monotonic():
            raise gone(upload_id)
        content = kept[1]
        for start in range(0, len(content), PIECE):
            yield content[start : start + PIECE]

    def drop(self, upload_id: str) -> None:
        with self._lock:
            self._kept.pop(upload_id, None)
