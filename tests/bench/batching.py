"""One captioner with 1, 4 and 16 jobs in one run: captions per second and latency, side by side.

    python -m tests.bench.batching [--threads N] [--tokens N] [--profile JOBS]

The embedded model, every chunk asked about. The jobs' token streams are there already: the demo's
scene, each job from another moment on, so what is measured is the captioner alone, as fast as it
can. "one by one" is the same with a batch of 1. Latency is from a chunk's turn to its events, as
`vlm_latency_ms` tells. --tokens: how long every caption is; as long as it happens to be without.

Writes tests/bench/results/batching.csv, but with --tokens.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from streamer.actors.caption import CaptionWorker
from streamer.actors.tokenize import encoder_for
from streamer.adapters.clock import SYSTEM_CLOCK
from streamer.adapters.memory_queue import MemoryQueue
from streamer.config import DEFAULT_QUESTION
from streamer.demo import RATE, SAMPLED, demo_clip
from streamer.embedded.render import render
from streamer.events import Event, decode_chunk_events
from streamer.jobs import Job, Question
from streamer.model import VideoModel, load_model
from streamer.types import FrameChunk
from streamer.wire import TokenChunk, encode
from streamer.workers import Placement
from tests.bench import results
from tests.bench.machine import machine

SESSIONS = (1, 4, 16)
CHUNKS = 8
FRAMES = 4
"""Of a chunk."""
ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """So many jobs in one captioner; the median of rounds."""

    jobs: int
    batch: int
    """Most jobs at once."""
    rows: float
    """Of the decoding batch, on average."""
    captions_s: float
    captions_cpu_s: float
    """Per second of processor time: what it is where nobody else is at work."""
    tokens_cpu_s: float
    """Generated."""
    p50_ms: float
    p90_ms: float
    """Of a caption, from its chunk's turn to its event."""
    machine: str

    def __str__(self) -> str:
        return (
            f"{self.jobs:>5}{self.batch:>7}{self.rows:>7.1f}{self.captions_s:>12.1f}"
            f"{self.captions_cpu_s:>16.1f}{self.tokens_cpu_s:>14.0f}{self.p50_ms:>9.0f}{self.p90_ms:>9.0f}"
        )


def job(number: int) -> Job:
    question = Question(id="default", prompt=DEFAULT_QUESTION)
    return Job(id=f"job{number}", url="scene", questions=(question,))


def streams(model: VideoModel, jobs: int) -> list[list[TokenChunk]]:
    """The token streams of jobs, each of the demo's scene from another moment on."""
    frames = render(demo_clip()).every(RATE // SAMPLED).frames
    encoders = [encoder_for(model, job(n)) for n in range(jobs)]
    return [
        [
            encoder.encode(_chunk(np.roll(frames, -3 * n, axis=0), number))
            for number in range(1, CHUNKS + 1)
        ]
        for n, encoder in enumerate(encoders)
    ]


def _chunk(frames: np.ndarray[Any, np.dtype[np.uint8]], number: int) -> FrameChunk:
    first = (number - 1) * FRAMES
    return FrameChunk(
        number=number,
        t0=first / SAMPLED,
        t1=(first + FRAMES) / SAMPLED,
        pts=np.arange(first, first + FRAMES) / SAMPLED,
        frames=np.ascontiguousarray(frames[first : first + FRAMES]),
        decode_ms=0.0,
    )


def captioned(
    model: VideoModel, chunks: Sequence[Sequence[TokenChunk]], *, batch: int, tokens: int | None
) -> tuple[Row, dict[int, list[Event]]]:
    """All that the jobs' chunks say, and how fast it was said."""
    queue = MemoryQueue()
    for n, stream in enumerate(chunks):
        queue.create_job(job(n).id, job(n).record())
        for chunk in stream:
            queue.append(job(n).id, "tokens", chunk.head.number, encode(chunk))
        queue.update_job(job(n).id, {"last_chunk": str(len(stream))})
    worker = CaptionWorker(model, queue, SYSTEM_CLOCK, batch=batch, max_new_tokens=tokens or 64)
    worker.take({job(n).id: Placement(tenant=f"{n}") for n in range(len(chunks))})
    started, worked = time.monotonic(), time.process_time()
    runs = dict(worker.runs)
    while any(run.said < CHUNKS for run in runs.values()):
        worker.work()
    took, cpu = time.monotonic() - started, time.process_time() - worked
    said = {
        n: [
            event
            for entry in queue.read(job(n).id, "events", after=0)
            for event in decode_chunk_events(entry)
        ]
        for n in range(len(chunks))
    }
    events = [event for those in said.values() for event in those]
    assert len(events) == sum(map(len, chunks))
    assert {event.event for event in events} == {"caption"}
    waits = statistics.quantiles([event.vlm_latency_ms or 0.0 for event in events], n=10)
    return Row(
        jobs=len(chunks),
        batch=batch,
        rows=worker.meter.sizes / worker.meter.steps,
        captions_s=len(events) / took,
        captions_cpu_s=len(events) / cpu,
        tokens_cpu_s=sum(event.output_tokens or 0 for event in events) / cpu,
        p50_ms=waits[4],
        p90_ms=waits[8],
        machine=machine("cpu"),
    ), said


def texts(said: dict[int, list[Event]]) -> list[list[str | None]]:
    return [[event.text for event in events] for events in said.values()]


def median(rows: Sequence[Row]) -> Row:
    return replace(
        rows[0],
        **{
            name: statistics.median(getattr(row, name) for row in rows)
            for name in ("rows", "captions_s", "captions_cpu_s", "tokens_cpu_s", "p50_ms", "p90_ms")
        },
    )


def talkative(model: VideoModel) -> VideoModel:
    """No answer ends before its longest."""
    return replace(model, layout=replace(model.layout, end_of_turn=-1))


def profile(model: VideoModel, jobs: int, tokens: int | None) -> None:
    chunks = streams(model, jobs)
    measured = talkative(model) if tokens else model
    captioned(measured, chunks, batch=jobs, tokens=tokens)
    profiler = cProfile.Profile()
    with profiler:
        captioned(measured, chunks, batch=jobs, tokens=tokens)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


def main(tokens: int | None) -> None:
    model = load_model("embedded")
    chunks = streams(model, max(SESSIONS))
    measured = talkative(model) if tokens else model
    captioned(measured, chunks[:1], batch=1, tokens=tokens)
    pairs = [(jobs, batch) for jobs in SESSIONS for batch in sorted({1, jobs})]
    found: dict[tuple[int, int], list[Row]] = {pair: [] for pair in pairs}
    alone: dict[int, list[list[str | None]]] = {}
    for _ in range(ROUNDS):
        for jobs, batch in pairs:
            row, said = captioned(measured, chunks[:jobs], batch=batch, tokens=tokens)
            assert alone.setdefault(jobs, texts(said)) == texts(said)  # a batch changes no text
            found[jobs, batch].append(row)
    print(f"{machine('cpu')}\n")  # noqa: T201
    heads = (
        f"{'captions/s':>12}{'captions/cpu s':>16}{'tokens/cpu s':>14}{'p50 ms':>9}{'p90 ms':>9}"
    )
    print(f"{'jobs':>5}{'batch':>7}{'rows':>7}{heads}")  # noqa: T201
    rows = [median(those) for those in found.values()]
    for row in rows:
        print(row)  # noqa: T201
    if not tokens:
        results.merge("batching", rows, key=("jobs", "batch", "machine"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--profile", type=int, metavar="JOBS")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.profile:
        profile(load_model("embedded"), options.profile, options.tokens)
    else:
        main(options.tokens)
