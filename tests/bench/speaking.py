"""How often a stream speaks: the share of chunks that `on_change` asks the LLM about.

    python -m tests.bench.speaking CLIP … [--chunks] [--whole] [--chunk-s S] [--fps F]

Decodes, and chooses cells, as a job with the default pipeline would; no model runs, so it is quick.
Of six_visitors_static.mp4 it tells where each visitor's coming and leaving was spoken of: at the
chunk it is in, or the one after. --chunks tells every chunk. --whole runs whole jobs instead, with
the embedded model, and counts by their events.

Writes tests/bench/results/speaking.csv, but for --whole.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from streamer.config import JobSettings
from streamer.core.chunker import Chunker
from streamer.core.keyframes import KeyframePolicy
from streamer.core.pipeline import build_pipeline
from streamer.core.planner import PlanState, after_gap, plan_chunk
from streamer.core.speaking import Speaking, Why, decide
from streamer.inspection.geometry import load_geometry
from streamer.sources import open_source
from streamer.vision.resize import resize, whole_tubelets
from tests.bench import results

VISITS = {
    "six_visitors_static.mp4": (
        *(5.5, 19.0, 22.0, 44.0, 50.0, 69.0),
        *(74.0, 86.0, 92.0, 119.0, 123.5, 135.5),
    )
}
"""When somebody comes, and leaves, in turn; half a second more or less."""
UNSURE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What was decided about one."""

    number: int
    t0: float
    t1: float
    keyframe: str | None
    changed: float
    usual: float
    """Before it."""
    why: Why | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One clip."""

    clip: str
    chunks: int
    calls: int
    share: float
    why: str
    """How many spoke why."""
    moments: str
    """Of those known, how many were spoken of in time."""

    def __str__(self) -> str:
        counts = f"{self.chunks:>7}{self.calls:>7}{self.share:>8.1%}"
        return f"{self.clip:32}{counts}{self.moments:>9}  {self.why}"


@torch.inference_mode()
def decided(path: Path, *, fps: float, chunk_s: float) -> Iterator[Chunk]:
    """Every chunk of a clip."""
    geometry = load_geometry("embedded", max_cells=None)
    operator = build_pipeline(JobSettings().pipeline).pixel
    chunker = Chunker(chunk_s=chunk_s, fps=fps, clock=time.perf_counter)
    plans: PlanState | None = None
    speaking, end = Speaking(), 0.0
    with open_source(str(path), fps=fps) as source:
        for chunk in chunker.chunks(source):
            if plans is not None and chunk.t0 > end + 1e-6:
                plans = after_gap(plans)
            end = chunk.t1
            grid = geometry.fit(*chunk.frames.shape[1:3])
            frames = resize(torch.from_numpy(chunk.frames), grid, geometry)
            plan, plans = plan_chunk(
                whole_tubelets(frames, geometry.tubelet),
                chunk.pts.tolist(),
                plans,
                t0=chunk.t0,
                t1=chunk.t1,
                operator=operator,
                policy=KeyframePolicy(),
                tubelet=geometry.tubelet,
                cell_px=geometry.cell_px,
            )
            seconds = chunk.t1 - chunk.t0
            decision = decide(speaking, changed=plan.changed, seconds=seconds, keyframe=plan.reason)
            yield Chunk(
                number=chunk.number,
                t0=chunk.t0,
                t1=chunk.t1,
                keyframe=plan.reason,
                changed=plan.changed,
                usual=speaking.usual,
                why=decision.why,
            )
            speaking = decision.after


def captioned(path: Path, *, fps: float, chunk_s: float) -> Iterator[Chunk]:
    """Every chunk of a whole job, by its events."""
    from tests.service import service

    with (
        tempfile.TemporaryDirectory(prefix="streamer-bench-") as folder,
        service(Path(folder), path.parent.absolute()) as running,
    ):
        source = {"fps": fps, "chunk_s": chunk_s}
        id = running.submit(path.absolute(), when="on_change", source=source)
        running.wait_finished([id])
        for event in running.events(id):
            spoke = event.event == "caption" or event.vlm_latency_ms is not None
            yield Chunk(
                number=event.chunk,
                t0=event.t0,
                t1=event.t1,
                keyframe=None,
                changed=0.0,
                usual=0.0,
                why="new" if spoke else None,
            )


def first_word(chunks: Sequence[Chunk], moment: float) -> Chunk | None:
    """The chunk that speaks of a moment: the one it is in, or the one after."""
    near = [n for n, c in enumerate(chunks) if c.t0 - UNSURE_S <= moment < c.t1 + UNSURE_S]
    inside = next((n for n in near if chunks[n].t0 <= moment < chunks[n].t1), near[-1])
    return next((c for c in chunks[inside : inside + 2] if c.why), None)


def tell(path: Path, chunks: Sequence[Chunk], *, each: bool) -> Row:
    moments = VISITS.get(path.name, ())
    words = [first_word(chunks, moment) for moment in moments]
    spoke = [chunk.why for chunk in chunks if chunk.why]
    row = Row(
        clip=path.name,
        chunks=len(chunks),
        calls=len(spoke),
        share=len(spoke) / len(chunks),
        why=" ".join(f"{why} {count}" for why, count in Counter(spoke).most_common()),
        moments=f"{sum(word is not None for word in words)}/{len(words)}" if words else "",
    )
    print(row, flush=True)  # noqa: T201
    for chunk in chunks if each else ():
        print(  # noqa: T201
            f"  {chunk.number:>4} {chunk.t0:>7.1f} s  {chunk.changed:>6.1%} changed, usual "
            f"{chunk.usual:>6.1%}  {chunk.keyframe or '':9} {chunk.why or ''}"
        )
    for n, (moment, word) in enumerate(zip(moments, words, strict=True)):
        what = f"visitor {n // 2 + 1} {'leaves' if n % 2 else 'comes'} at {moment:5.1f} s"
        said = f"chunk {word.number}, {word.t0:.0f} to {word.t1:.0f} s" if word else "not in time"
        print(f"  {what}: {said}")  # noqa: T201
    return row


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    print(f"{'clip':32}{'chunks':>7}{'calls':>7}{'share':>8}{'in time':>9}")  # noqa: T201
    chunks_of = captioned if options.whole else decided
    rows = [
        tell(
            path,
            list(chunks_of(path, fps=options.fps, chunk_s=options.chunk_s)),
            each=options.chunks,
        )
        for path in options.clips
    ]
    if not options.whole and (options.fps, options.chunk_s) == (2.0, 2.0):
        results.merge("speaking", rows, key=("clip",))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("clips", nargs="+", type=Path, metavar="CLIP")
    parser.add_argument("--chunks", action="store_true")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--chunk-s", type=float, default=2.0)
    main(parser.parse_args())
