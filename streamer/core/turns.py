"""Whose turn it is: tenants take turns, and so do the jobs of a tenant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from zlib import crc32


class Turns:
    """Remembers who was served last.

    salt: who comes first among those never served is as good as random, and another with another
    salt; so a job that ends every worker before the others have a turn does not do so for ever.
    """

    def __init__(self, *, salt: str = "") -> None:
        self._salt = salt
        self._late: dict[str, int] = {}
        self._count = 0
        self._served: dict[str, int] = {}  # job or (as "/tenant") tenant → when
        self._tenants: set[str] = set()

    def pick(
        self, ready: Mapping[str, str], most: int, active: Mapping[str, str] | None = None
    ) -> list[str]:
        """Of the ready jobs (id → tenant) those to join the active ones, longest wait first.

        Together they are at most `most`. Where several tenants want to be served each gets as many
        as the one with the fewest: twelve cameras of one do not slow down the single camera of
        another twelvefold. While one of them is about to come (see `keep`), the others take a small
        part, so that it does not wait long.
        """
        active = active or {}
        held = Counter(active.values())
        waiting: dict[str, list[str]] = {}
        for job in sorted(ready, key=self._rank):
            waiting.setdefault(ready[job], []).append(job)
        wanting = waiting.keys() | held.keys()
        each = min((len(waiting.get(name, ())) + held[name] for name in wanting), default=0)
        if len(wanting) < len(self._tenants):
            each = min(each, max(1, most // (2 * len(self._tenants))))
        tenants = sorted(waiting, key=lambda name: (self._served.get(f"/{name}", 0), name))
        picked = [
            waiting[name][n]
            for n in range(each)
            for name in tenants
            if n < min(len(waiting[name]), each - held[name])
        ][: max(0, most - len(active))]
        for job in picked:
            self._count += 1
            self._served[job] = self._served[f"/{ready[job]}"] = self._count
        return picked

    def keep(self, jobs: Mapping[str, str], *, late: Mapping[str, int] | None = None) -> None:
        """Those who may be ready at times (id → tenant); everybody else is forgotten.

        late: of those never served, who has more comes later.
        """
        self._late = dict(late or {})
        self._tenants = set(jobs.values())
        names = {*jobs, *(f"/{tenant}" for tenant in jobs.values())}
        self._served = {name: when for name, when in self._served.items() if name in names}

    def _rank(self, job: str) -> tuple[int, int, int, str]:
        by_lot = crc32(f"{self._salt}{job}".encode()) if self._salt else 0
        return self._served.get(job, 0), self._late.get(job, 0), by_lot, job
