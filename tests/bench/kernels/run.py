"""Kernels and operators, every way of doing the same work side by side.

    python -m tests.bench.kernels.run [NAME …] [--device cuda]

Ways must agree before any is timed. Writes tests/bench/results/kernels.csv, where it replaces the
rows of what it measured on this device, docs/kernels.svg, and the table of
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tests.bench import pages
from tests.bench.kernels.harness import copy_bandwidth, measure
from tests.bench.kernels.plot import draw
from tests.bench.machine import machine
from tests.bench.results import merge

NAMES = (
    "run_length",
    "block_mean",
    "patchify",
    "top_k",
    "segment_mean",
    "bipartite_match",
    "segment_attention",
    "operators",
)
BUDGET_S = 4.0
"""Seconds given to one case, all its ways together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way of doing one case."""

    device: str
    kernel: str
    scenario: str
    way: str
    ms: float
    low_ms: float
    high_ms: float
    """20th and 80th percentiles."""
    speedup: float
    """Of the straightforward way's median."""
    bytes_moved: int
    """The least that must be read and written."""
    of_copy: float
    """Those bytes in this time, as a share of what a plain copy reaches."""
    machine: str


def rows(name: str, device: str, bandwidth: float) -> Iterator[Row]:
    module = importlib.import_module(f"tests.bench.kernels.{name}")
    for case in module.cases(device):
        timings = measure(case, device, budget_s=BUDGET_S)
        plain = timings["straightforward"].median
        for way, timing in timings.items():
            yield Row(
                device=device,
                kernel=case.kernel,
                scenario=case.scenario,
                way=way,
                ms=timing.median * 1e3,
                low_ms=timing.low * 1e3,
                high_ms=timing.high * 1e3,
                speedup=plain / timing.median,
                bytes_moved=case.bytes_moved,
                of_copy=case.bytes_moved / timing.median / bandwidth,
                machine=machine(device),
            )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(argv)
    if strange := sorted(set(given.names) - set(NAMES)):
        parser.error(f"there is no {strange[0]!r}; there are: {', '.join(NAMES)}")
    bandwidth = copy_bandwidth(given.device)
    print(f"{machine(given.device)}; a copy reads and writes {bandwidth / 1e9:.1f} GB/s")  # noqa: T201
    print(f"{'':48}{'way':16}{'ms':>10}{'20 – 80 %':>20}{'×':>8}{'of copy':>9}")  # noqa: T201
    found = []
    for name in given.names or NAMES:
        case = ""
        for row in rows(name, given.device, bandwidth):
            found.append(row)
            title = f"{row.kernel}, {row.scenario}"
            spread = f"{row.low_ms:.3f} – {row.high_ms:.3f}"
            print(  # noqa: T201
                f"{title if title != case else '':48}{row.way:16}{row.ms:10.3f}{spread:>20}"
                f"{row.speedup:8.1f}{row.of_copy:9.1%}",
                flush=True,
            )
            case = title
    merged = merge("kernels", found, key=("device", "kernel", "scenario"))
    draw(merged)
    pages.write()


if __name__ == "__main__":
    main()
