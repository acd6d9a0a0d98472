"""Random clips with exact truth, none of which the embedded model was trained on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache

import numpy as np

from streamer.embedded.clips import CHUNK_FRAMES, FPS, held_out_clip
from streamer.embedded.render import Rendering, render
from streamer.embedded.scene import Clip as Scene
from streamer.embedded.truth import (
    QUESTION,
    QUESTIONS,
    Description,
    answer,
    caption,
    describe,
    parse,
)
from streamer.evaluation.answers import Judgement, Mark, Query
from streamer.evaluation.cuts import Cuts
from streamer.evaluation.dataset import Moment
from streamer.types import FrameChunk

TEST_SEED = 1 << 41
EXACT, ASKED = "exact", "questions"
ATTRIBUTES = ("camera", "count", "shape", "colour", "region", "direction")
"""What a caption says."""
NO_SENTENCE = "(no such sentence)"


class RenderedClip:
    """One clip. Each chunk is captioned, and asked one other question."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.name = f"clip {scene.seed - TEST_SEED}"

    def spans_from(self, at_s: float) -> tuple[float, ...]:
        return ()

    @cached_property
    def rendering(self) -> Rendering:
        return render(self.scene)

    def chunks(self) -> Iterator[FrameChunk]:
        for number, start in enumerate(range(0, self.scene.num_frames, CHUNK_FRAMES), start=1):
            stop = min(start + CHUNK_FRAMES, self.scene.num_frames)
            yield FrameChunk(
                number=number,
                t0=start / FPS,
                t1=stop / FPS,
                pts=np.arange(start, stop) / FPS,
                frames=self.rendering.frames[start:stop],
                decode_ms=0.0,
            )

    def queries(self, moment: Moment) -> list[Query]:
        start, stop = round(moment.t0 * FPS), round(moment.t1 * FPS)
        since = round(moment.group_s * FPS)
        truth = describe(self.scene, self.rendering, start, stop, since=since)
        other = random.Random(f"{self.scene.seed} {start}").choice(QUESTIONS)
        return [
            Query(item="caption", prompt=QUESTION, judge=lambda said: _captioned(truth, said)),
            Query(item="question", prompt=other, judge=lambda said: _asked(truth, other, said)),
        ]


class RenderedClips:
    """So many held-out clips, always the same ones."""

    name = "rendered"
    attributes = (EXACT, *ATTRIBUTES, ASKED)
    cuts: Mapping[tuple[str, str], Cuts] = {}
    items: Mapping[tuple[str, str], str] = {}

    def __init__(self, *, clips: int, skip: int = 0, still: bool = False) -> None:
        """skip: clips to pass over first. still: only those whose camera never moves nor cuts."""
        scenes = (held_out_clip(TEST_SEED + skip + i) for i in range(clips))
        self.scenes = [scene for scene in scenes if scene.still or not still]

    def __len__(self) -> int:
        return len(self.scenes)

    def __iter__(self) -> Iterator[RenderedClip]:
        return (RenderedClip(scene) for scene in self.scenes)


@lru_cache(maxsize=4096)  # the same is said and true again and again
def _captioned(truth: Description | None, said: str) -> Judgement:
    if truth is None:
        return Judgement(expected="(a viewer could dispute it)")
    told, expected = parse(said), caption(truth)
    marks = {EXACT: Mark(right=said == expected)}
    for name in ATTRIBUTES:
        if (true := getattr(truth, name)) is not None:
            value = NO_SENTENCE if told is None else getattr(told, name)
            marks[name] = Mark(right=value == true, true=str(true), said=str(value))
    return Judgement(expected=expected, marks=marks)


@lru_cache(maxsize=4096)
def _asked(truth: Description | None, question: str, said: str) -> Judgement:
    expected = None if truth is None else answer(truth, question)
    if expected is None:
        return Judgement(expected="(nothing certain)")
    mark = Mark(right=said == expected, true=expected, said=said)
    return Judgement(expected=expected, marks={ASKED: mark, f"{ASKED}: {question}": mark})
