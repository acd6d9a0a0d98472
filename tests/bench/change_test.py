"""What the change tests of RLT send, and what they miss: still cameras, and rendered scenes.

    python -m tests.bench.change_test [CLIP …]

2 pictures a second, tubelets of two, at most 196 cells of 32 pixels. A cell is due when it differs
from what its last token shows: of CLIPs (of a still camera) as tests/bench/motion.py finds it, of
rendered scenes as they were drawn. Recall is the share of the cells due that are sent, by how much
of a cell differs; "perfect" sends what is due at 5 %, and nothing else. First tubelets are left
out. Times are medians of a chunk of four pictures on one thread.

Writes tests/bench/results/change.csv and the table of docs/benchmarks.md.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators import RLT
from streamer.sources import open_source
from streamer.vision.geometry import Geometry, Grid
from streamer.vision.resize import resize
from tests.bench import pages, results
from tests.bench.camera import CAMERAS, Truth, scene
from tests.bench.machine import machine
from tests.bench.motion import Motion

HALF = (0.5, 0.5, 0.5)
GEOMETRY = Geometry(patch_size=16, merge_size=2, tubelet=2, mean=HALF, std=HALF, max_cells=196)
TESTS = {
    "plain": RLT(),
    "plain, symmetric, head": RLT(symmetric=True, anchor="head"),
    "robust": RLT(change="robust", symmetric=True, anchor="head"),
}
DUE = (0.02, 0.05, 0.2)
SEEDS = range(3)
CHUNK = 4


class Changes(Protocol):
    """What is true of a clip."""

    def changed(self, a: int, b: int) -> NDArray[np.float64]:
        """(h, w) share of each cell that differs between pictures a and b."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Of one test on one clip, or on several added up."""

    cells: int
    kept: int
    due: tuple[int, ...]
    """Cells due, for each of DUE."""
    sent: tuple[int, ...]
    """Of those."""

    def __add__(self, other: Score) -> Score:
        return Score(
            cells=self.cells + other.cells,
            kept=self.kept + other.kept,
            due=tuple(map(sum, zip(self.due, other.due, strict=True))),
            sent=tuple(map(sum, zip(self.sent, other.sent, strict=True))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One test on one kind of clip."""

    clip: str
    test: str
    share: float
    """Of all cells, sent."""
    recall_2: float
    """Of the cells of which at least 2 % differ, sent."""
    recall_5: float
    recall_20: float
    due: int
    """Cells of which at least 5 % differ."""
    chunk_ms: float
    """0 where nothing was timed."""
    machine: str

    def __str__(self) -> str:
        recalls = f"{self.recall_2:>9.4f}{self.recall_5:>9.4f}{self.recall_20:>9.4f}"
        return f"  {self.test:24}{self.share:>7.3f}{recalls}{self.due:>8}{self.chunk_ms:>8.2f}"


class Shown:
    """What the last token of each cell shows, tubelet by tubelet, held against the truth."""

    def __init__(self, truth: Changes, grid: Grid) -> None:
        self.truth = truth
        self.since = np.zeros((grid.h, grid.w), np.int64)
        """The tubelet that each cell's token is of."""

    def outdated(self, tubelet: int) -> NDArray[np.float64]:
        """(h, w) share of each cell that is not as its token shows it."""
        share = np.zeros(self.since.shape)
        for since in np.unique(self.since):
            here = self.since == since
            for picture in (2 * tubelet, 2 * tubelet + 1):
                apart = self.truth.changed(2 * int(since), picture)
                share[here] = np.maximum(share[here], apart[here])
        return share


def score(truth: Changes, keep: NDArray[np.bool_]) -> Score:
    """keep: (T', h, w)."""
    shown = Shown(truth, Grid(h=keep.shape[1], w=keep.shape[2]))
    due, sent = np.zeros(len(DUE), np.int64), np.zeros(len(DUE), np.int64)
    for j in range(1, len(keep)):
        outdated = shown.outdated(j)
        for i, least in enumerate(DUE):
            due[i] += (outdated >= least).sum()
            sent[i] += ((outdated >= least) & keep[j]).sum()
        shown.since[keep[j]] = j
    return Score(
        cells=keep[1:].size,
        kept=int(keep[1:].sum()),
        due=tuple(due.tolist()),
        sent=tuple(sent.tolist()),
    )


def perfect(truth: Changes, grid: Grid, tubelets: int) -> NDArray[np.bool_]:
    """(T', h, w): what is due, and nothing else."""
    shown = Shown(truth, grid)
    keep = np.ones((tubelets, grid.h, grid.w), bool)
    for j in range(1, tubelets):
        keep[j] = shown.outdated(j) >= DUE[1]
        shown.since[keep[j]] = j
    return keep


def chunk_ms(operator: RLT, frames: Tensor) -> float:
    """Median time for a chunk in the middle of a stream; NaN where it has no middle."""
    cell = GEOMETRY.cell_px
    state = operator.select(frames[:CHUNK], None, tubelet=2, cell=cell).state
    times = []
    for start in range(CHUNK, len(frames) - CHUNK + 1, CHUNK):
        part = frames[start : start + CHUNK].contiguous()
        started = time.perf_counter()
        state = operator.select(part, state, tubelet=2, cell=cell).state
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times) if times else math.nan


def rows(label: str, clips: Sequence[tuple[Tensor, Changes]]) -> Iterator[Row]:
    """Of one kind of clip: pictures (T, H, W, 3) uint8 of whole tubelets, and what is true."""
    cell = GEOMETRY.cell_px
    keeps = [
        perfect(truth, Grid(h=f.shape[1] // cell, w=f.shape[2] // cell), len(f) // 2)
        for f, truth in clips
    ]
    yield _row(label, "perfect", keeps, clips, 0.0)
    for name, operator in TESTS.items():
        keeps = [operator.select(f, None, tubelet=2, cell=cell).keep.numpy() for f, _ in clips]
        yield _row(label, name, keeps, clips, chunk_ms(operator, clips[0][0]))


def _row(
    label: str,
    test: str,
    keeps: Sequence[NDArray[np.bool_]],
    clips: Sequence[tuple[Tensor, Changes]],
    ms: float,
) -> Row:
    first, *others = [score(truth, keep) for (_, truth), keep in zip(clips, keeps, strict=True)]
    total = sum(others, start=first)
    recalls = [sent / max(due, 1) for sent, due in zip(total.sent, total.due, strict=True)]
    return Row(
        clip=label,
        test=test,
        share=total.kept / total.cells,
        recall_2=recalls[0],
        recall_5=recalls[1],
        recall_20=recalls[2],
        due=total.due[1],
        chunk_ms=ms,
        machine=machine("cpu"),
    )


def rendered() -> Iterator[tuple[str, list[tuple[Tensor, Changes]]]]:
    scenes = [scene(seed) for seed in SEEDS]
    for camera in CAMERAS:
        yield (
            f"rendered, {camera.name}",
            [
                (torch.from_numpy(camera.films(s, seed)), Truth(scene=s, cell=GEOMETRY.cell_px))
                for seed, s in zip(SEEDS, scenes, strict=True)
            ],
        )


def real(paths: Sequence[Path]) -> Iterator[tuple[str, list[tuple[Tensor, Changes]]]]:
    for path in paths:
        with open_source(str(path), fps=2) as source:
            images = [frame.image for frame in source.frames()]
        grid = GEOMETRY.fit(*images[0].shape[:2])
        frames = torch.cat([resize(torch.from_numpy(i)[None], grid, GEOMETRY) for i in images])
        motion = Motion(path, grid, len(images))
        whole = min(len(images), len(motion.frames)) // 2 * 2
        yield path.name, [(frames[:whole], motion)]


def main(paths: Sequence[Path]) -> None:
    torch.set_num_threads(1)
    heads = "".join(f"{f'≥{least:.0%}':>9}" for least in DUE)
    print(f"{'':26}{'share':>7}{heads}{'due':>8}{'ms':>8}")  # noqa: T201
    for label, clips in chain(real(paths), rendered()):
        print(f"\n{label}")  # noqa: T201
        done = []
        for row in rows(label, clips):
            print(row, flush=True)  # noqa: T201
            done.append(row)
        results.merge("change", done, key=("clip", "test"))
    pages.write()


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:]])
