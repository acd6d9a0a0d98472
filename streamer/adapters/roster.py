"""The roster: what the workers report, which jobs they are given, how many there shall be.

With the queue this is all that API, controller and workers share. Losing it loses no job: it is
written anew within seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from streamer.workers import Placement, Size, WorkerKind, WorkerReport


class Roster(Protocol):
    """Any method may raise QueueError."""

    def report(self, report: WorkerReport) -> None:
        """A worker's sign of life, in place of its last one."""
        ...

    def reports(self) -> dict[str, WorkerReport]:
        """The last report of every worker, by name."""
        ...

    def forget(self, name: str) -> None:
        """Drops the report of a worker that is no more."""
        ...

    def placements(self) -> dict[str, Placement]:
        """Job id → its workers."""
        ...

    def place(self, changes: Mapping[str, Placement | None]) -> None:
        """Writes placements; None removes one."""
        ...

    def sizes(self) -> dict[WorkerKind, Size]:
        """The pools that were given another size than their settings say."""
        ...

    def resize(self, sizes: Mapping[WorkerKind, Size]) -> None: ...

    def publish(self, name: str, text: str) -> None:
        """Something every part may want to know, e.g. `operators`: their JSON schemas."""
        ...

    def published(self, name: str) -> str | None: ...
