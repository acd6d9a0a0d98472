"""A roster inside one process: same contract as the one in Redis."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from streamer.workers import Placement, Size, WorkerKind, WorkerReport


class MemoryRoster:
    """Roster for one process; safe to share between its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: dict[str, WorkerReport] = {}
        self._placements: dict[str, Placement] = {}
        self._sizes: dict[WorkerKind, Size] = {}
        self._published: dict[str, str] = {}

    def report(self, report: WorkerReport) -> None:
        with self._lock:
            self._reports[report.name] = report

    def reports(self) -> dict[str, WorkerReport]:
        with self._lock:
            return dict(self._reports)

    def forget(self, name: str) -> None:
        with self._lock:
            self._reports.pop(name, None)

    def placements(self) -> dict[str, Placement]:
        with self._lock:
            return dict(self._placements)

    def place(self, changes: Mapping[str, Placement | None]) -> None:
        with self._lock:
            for job_id, placement in changes.items():
                if placement is None:
                    self._placements.pop(job_id, None)
                else:
                    self._placements[job_id] = placement

    def sizes(self) -> dict[WorkerKind, Size]:
        with self._lock:
            return dict(self._sizes)

    def resize(self, sizes: Mapping[WorkerKind, Size]) -> None:
        with self._lock:
            self._sizes.update(sizes)

    def publish(self, name: str, text: str) -> None:
        with self._lock:
            self._published[name] = text

    def published(self, name: str) -> str | None:
        with self._lock:
            return self._published.get(name)
