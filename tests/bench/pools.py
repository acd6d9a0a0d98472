"""Throughput of decode and tokenize on pools of one and of two workers, in turn.

    python -m tests.bench.pools [CLIP …]

Eight jobs a round; a round lasts until all are tokenized. Captions are made meanwhile, as always,
but nobody waits for them. What two workers gain depends on the processors there are.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamer.workers import Size
from tests.bench.clips import common_folder, some_clips
from tests.service import Service, check_complete, service

JOBS = 8
ROUNDS = 3
AHEAD: dict[str, Any] = {"source": {"ahead": 100_000}}


def resize(running: Service, count: int) -> None:
    """Pools of `count` for decode and tokenize, and all of them at work."""
    size = Size(min=count, max=count)
    running.roster.resize({"decode": size, "tokenize": size})
    names = {f"{kind}-{n}" for kind in ("decode", "tokenize") for n in range(1, count + 1)}

    def there() -> bool:
        reports = running.workers()
        at_work = {name for name, report in reports.items() if report.state == "ready"}
        return at_work - {"controller", "caption-1"} == names

    running.wait(there, f"pools of {count}", 180)


def round_of(running: Service, clips: Sequence[Path]) -> float:
    """Chunks tokenized per second."""
    started = time.monotonic()
    jobs = [running.submit(clips[n % len(clips)], **AHEAD) for n in range(JOBS)]
    running.wait(
        lambda: all(running.status(job).last_chunk is not None for job in jobs),
        "the end of all token streams",
        600,
    )
    took = time.monotonic() - started
    chunks = sum(running.status(job).last_chunk or 0 for job in jobs)
    running.wait_finished(jobs, 600)
    for job in jobs:
        check_complete(running.events(job), running.status(job).last_chunk)
        running.queue.delete_job(job)
    return chunks / took


def main(clips: Sequence[Path]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clips = some_clips(clips, Path(folder))
        with service(Path(folder, "redis"), common_folder(clips)) as running:
            running.wait_ready(["decode-1", "tokenize-1", "caption-1"])
            round_of(running, clips)
            rates: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(ROUNDS):
                for count in rates:
                    resize(running, count)
                    rates[count].append(round_of(running, clips))
            one, two = (statistics.median(found) for found in rates.values())
            print(f"{JOBS} jobs at once, {os.cpu_count()} processors")  # noqa: T201
            print("decode and tokenize   chunks/s (median of", ROUNDS, "rounds; all)")  # noqa: T201
            for count, found in rates.items():
                each = " ".join(f"{rate:.1f}" for rate in found)
                print(f"pools of {count}            {statistics.median(found):6.1f}   ({each})")  # noqa: T201
            print(f"ratio                 {two / one:6.2f}")  # noqa: T201


if __name__ == "__main__":
    main([Path(name).absolute() for name in sys.argv[1:]])
