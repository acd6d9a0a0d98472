"""The resident memory of every process of a running service."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import psutil

from streamer.workers import WorkerReport
from tests.service import Service

RAY = "Ray: "
"""What the names of Ray's own processes begin with."""

_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


class Processes:
    """Which there are. To look for Ray's own costs much and is asked for seldom."""

    def __init__(self, running: Service, others: Mapping[str, int]) -> None:
        """others: name → pid of processes that are not found by themselves, e.g. the API's."""
        self.running = running
        self.others = dict(others)
        self.rays: dict[str, int] = {}

    def look_for_rays(self) -> None:
        """Ray's own processes: what the keeper has started, but workers and what they started."""
        keeper = self.running.keeper
        if keeper is None:
            return
        workers = {report.pid for report in self.running.workers().values()}
        found: dict[str, int] = {}
        for child in psutil.Process(keeper.pid).children(recursive=True):
            try:
                parents = {parent.pid for parent in child.parents()}
                name = _name(child)
            except psutil.Error:  # it ended meanwhile
                continue
            if child.pid in workers or parents & workers:
                continue
            while name in found:
                name += "'"
            found[name] = child.pid
        self.rays = {f"{RAY}{name}": pid for name, pid in found.items()}

    def memory(self, reports: Mapping[str, WorkerReport], places: Mapping[str, str]) -> Memory:
        """In MB, by name. places: job → the name of what decodes it."""
        pids = {name: report.pid for name, report in reports.items()}
        for report in reports.values():
            for job, progress in report.jobs.items():
                if progress.source and progress.source.pid and job in places:
                    pids[f"child of {places[job]}"] = progress.source.pid
        keeper = self.running.keeper
        pids |= {"redis": self.running.redis.pid, **self.others, **self.rays}
        if keeper is not None:
            pids["keeper"] = keeper.pid
        return {name: mb for name, pid in pids.items() if (mb := rss_mb(pid)) is not None}


Memory = dict[str, float]


def rss_mb(pid: int) -> float | None:
    """Of a process; None when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return None
    return pages * _PAGE_MB if pages else None


def _name(process: psutil.Process) -> str:
    """Of a program; of a Python one, what it runs."""
    name: str = process.name()
    if name.startswith("python"):
        scripts = [Path(part).stem for part in process.cmdline()[1:] if part.endswith(".py")]
        return scripts[0] if scripts else name
    return name
