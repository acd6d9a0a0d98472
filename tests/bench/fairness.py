"""One camera of one tenant beside twelve of another: what the one's chunks wait.

    python -m tests.bench.fairness [CLIP …]

Twice in turn: the one alone, and the one beside the twelve. Latency is that of its chunks through
all stages, as in their events.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.clips import common_folder, some_clips
from tests.service import Service, check_complete, service

CROWD = 12
ROUNDS = 2
STAGES = ("decode", "tokenize", "queue", "vlm", "chunk", "period")


def latencies(running: Service, job: str, took: float) -> list[dict[str, float]]:
    """Of every chunk after the first, which opens the source, in milliseconds by stage.

    took: seconds from the job's submission to its end, for the mean time between two chunks.
    """
    events = running.events(job)
    check_complete(events, running.status(job).last_chunk)
    return [
        {
            "decode": event.decode_latency_ms or 0.0,
            "tokenize": event.tokenize_latency_ms or 0.0,
            "queue": event.queue_time_ms or 0.0,
            "vlm": event.vlm_latency_ms or 0.0,
            "chunk": event.chunk_latency_ms or 0.0,
            "period": 1e3 * took / len(events),
        }
        for event in events[1:]
    ]


def alone(running: Service, clip: Path) -> list[dict[str, float]]:
    started = time.monotonic()
    job = running.submit(clip, tenant="one")
    running.wait_finished([job])
    return latencies(running, job, time.monotonic() - started)


def crowded(running: Service, clip: Path, others: Sequence[Path]) -> list[dict[str, float]]:
    """The one's latencies; whoever of the crowd ends is followed by another at once."""
    clips = itertools.cycle(others)
    crowd = [running.submit(next(clips), tenant="many") for _ in range(CROWD)]
    running.wait(lambda: all(running.said(job) >= 2 for job in crowd), "the crowd's second caption")
    started = time.monotonic()
    job = running.submit(clip, tenant="one")
    while not running.status(job).finished:
        active = running.queue.active()
        missing = CROWD - sum(tenant == "many" for tenant in active.values())
        crowd += [running.submit(next(clips), tenant="many") for _ in range(missing)]
        time.sleep(0.25)
    took = time.monotonic() - started
    running.wait_finished(crowd, 900)
    for other in crowd:
        check_complete(running.events(other), running.status(other).last_chunk)
        running.queue.delete_job(other)
    return latencies(running, job, took)


def row(name: str, chunks: list[dict[str, float]]) -> str:
    medians = [statistics.median(chunk[stage] for chunk in chunks) for stage in STAGES]
    p95 = statistics.quantiles([chunk["chunk"] for chunk in chunks], n=20)[18]
    return f"{name:18}" + "".join(f"{ms:10.0f}" for ms in (*medians, p95))


def main(clips: Sequence[Path]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clips = some_clips(clips, Path(folder))
        with service(Path(folder, "redis"), common_folder(clips)) as running:
            running.wait_ready(["decode-1", "tokenize-1", "caption-1"])
            alone(running, clips[0])
            single: list[dict[str, float]] = []
            beside: list[dict[str, float]] = []
            for _ in range(ROUNDS):
                single += alone(running, clips[0])
                beside += crowded(running, clips[0], clips)
            print("median ms         " + "".join(f"{stage:>10}" for stage in (*STAGES, "p95")))  # noqa: T201
            print(row("one alone", single))  # noqa: T201
            print(row(f"one beside {CROWD}", beside))  # noqa: T201
            ratio = _median(beside) / _median(single)
            print(f"ratio of the medians of a chunk: {ratio:.2f}")  # noqa: T201


def _median(chunks: list[dict[str, float]]) -> float:
    return statistics.median(chunk["chunk"] for chunk in chunks)


if __name__ == "__main__":
    main([Path(name).absolute() for name in sys.argv[1:]])
