"""PyAV and decord on the same files: processor time, time, and memory, for the same pictures.

    python -m tests.bench.decoders CLIP …

Each reading has a process of its own, in turn; opening and checking the file is part of it.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

from streamer.sources import open_source

ROUNDS = 3
DECODERS: tuple[Literal["pyav", "decord"], ...] = ("pyav", "decord")


def read(path: str, decoder: Literal["pyav", "decord"]) -> dict[str, Any]:
    """What one reading at two pictures a second costs this process."""
    started = time.monotonic()
    with open_source(path, fps=2, decoder=decoder) as source:
        pictures = sum(1 for _ in source.frames())
        used = source.info.decoder
    return {
        "pictures": pictures,
        "used": used,
        "cpu_s": time.process_time(),
        "wall_s": time.monotonic() - started,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure(path: Path, decoder: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.decoders", "--read", str(path), decoder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(paths: list[Path]) -> None:
    print(f"{'file':32}{'decoder':>8}{'pictures':>9}{'cpu s':>8}{'wall s':>8}{'peak MB':>9}")  # noqa: T201
    for path in paths:
        rounds = [{name: measure(path, name) for name in DECODERS} for _ in range(ROUNDS)]
        for name in DECODERS:
            runs = [one[name] for one in rounds]
            cpu, wall, peak = (
                statistics.median(run[key] for run in runs)
                for key in ("cpu_s", "wall_s", "peak_mb")
            )
            used = runs[0]["used"] if runs[0]["used"] == name else f"({runs[0]['used']})"
            row = f"{path.name:32}{used:>8}{runs[0]['pictures']:9}{cpu:8.2f}{wall:8.2f}{peak:9.0f}"
            print(row, flush=True)  # noqa: T201


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        print(json.dumps(read(sys.argv[2], "decord" if sys.argv[3] == "decord" else "pyav")))  # noqa: T201
    else:
        main([Path(name).absolute() for name in sys.argv[1:]])
