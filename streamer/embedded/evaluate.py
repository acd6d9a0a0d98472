"""Scores a checkpoint on held-out rendered clips, through the code that serves streams.

    python -m streamer.embedded.evaluate --clips 500

Every clip's chunks go through StreamEncoder, the wire format and a caption Session, once with every
cell kept (dense) and once through the default pipeline (kept). Printed: accuracy per attribute on
the chunks that have a truth in both runs, the difference, what was kept, and confusion tables.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from streamer.config import Settings
from streamer.core.keyframes import KeyframePolicy
from streamer.core.pipeline import Pipeline, build_pipeline
from streamer.embedded.render import Rendering, render
from streamer.embedded.samples import CHUNK_FRAMES, FPS, TEST_TEXTURES, held_out_clip
from streamer.embedded.scene import Clip
from streamer.embedded.truth import (
    QUESTION,
    QUESTIONS,
    Description,
    caption,
    describe,
    parse,
)
from streamer.embedded.truth import answer as true_answer
from streamer.language.decoding import Ask, answer
from streamer.language.session import Session
from streamer.model import VideoModel, load_model
from streamer.types import FrameChunk
from streamer.vision.stream_encoder import StreamEncoder
from streamer.wire import decode, encode

TEST_SEED = 1 << 41
ATTRIBUTES = ("camera", "count", "colour", "direction", "region")
MODES = {"dense": Pipeline(), "kept": build_pipeline(Settings().pipeline)}
TOGETHER = 16
MAX_NEW_TOKENS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What was said about one chunk of a clip, and what was true."""

    truth: Description | None
    said: str
    question: str
    replied: str
    tokens: int
    dense: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--skip", type=int, default=0, help="held-out clips to pass over first")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    started = time.monotonic()
    model = load_model(given.model, device="cpu")
    clips = [held_out_clip(TEST_SEED + given.skip + i) for i in range(given.clips)]
    runs = {mode: run(model, clips, pipeline) for mode, pipeline in MODES.items()}
    for line in report(runs):
        print(line)  # noqa: T201  # this module is a command
    print(f"{given.clips} clips, {time.monotonic() - started:.0f} s")  # noqa: T201  # as above


def run(model: VideoModel, clips: Sequence[Clip], pipeline: Pipeline) -> list[Told]:
    """Captions every chunk of every clip, TOGETHER streams at a time."""
    told: list[Told] = []
    for start in range(0, len(clips), TOGETHER):
        streams = [
            _Stream(clip, model, pipeline, textures=TEST_TEXTURES)
            for clip in clips[start : start + TOGETHER]
        ]
        while alive := [stream for stream in streams if stream.advance()]:
            asks = [Ask(session=stream.session, prompt=QUESTION) for stream in alive]
            asks += [Ask(session=stream.session, prompt=stream.question) for stream in alive]
            said = answer(model, asks, max_new_tokens=MAX_NEW_TOKENS)
            for i, stream in enumerate(alive):
                stream.told.append(stream.telling(said[i].text, said[len(alive) + i].text))
        for stream in streams:
            told += stream.told
    return told


class _Stream:
    """One clip on its way through the path."""

    def __init__(
        self, clip: Clip, model: VideoModel, pipeline: Pipeline, *, textures: tuple[int, int]
    ) -> None:
        assert all(textures[0] <= shot.texture_seed < textures[1] for shot in clip.shots)
        self.clip = clip
        self.rendering: Rendering = render(clip)
        self.encoder = StreamEncoder(
            model.tower,
            model.geometry,
            job=f"clip-{clip.seed}",
            pipeline=pipeline,
            policy=KeyframePolicy(),
        )
        self.session = Session(model, pipeline)
        self.random = random.Random(clip.seed)
        self.question = QUESTIONS[0]
        self.start = -CHUNK_FRAMES
        self.stop = 0
        self.since = 0
        self.tokens = self.dense = 0
        self.told: list[Told] = []

    def advance(self) -> bool:
        """Encodes and prefills the next chunk; False when there is none."""
        self.start += CHUNK_FRAMES
        self.stop = min(self.start + CHUNK_FRAMES, self.clip.num_frames)
        if self.start >= self.stop:
            return False
        chunk = FrameChunk(
            number=self.start // CHUNK_FRAMES + 1,
            t0=self.start / FPS,
            t1=self.stop / FPS,
            pts=np.arange(self.start, self.stop) / FPS,
            frames=self.rendering.frames[self.start : self.stop],
            decode_ms=0.0,
        )
        received = decode(encode(self.encoder.encode(chunk)))
        if received.head.kind == "I":
            self.since = self.start
        self.session.append(received)
        self.tokens, self.dense = received.head.tokens, received.head.dense
        self.question = self.random.choice(QUESTIONS)
        return True

    def telling(self, said: str, replied: str) -> Told:
        truth = describe(self.clip, self.rendering, self.start, self.stop, since=self.since)
        return Told(
            truth=truth,
            said=said,
            question=self.question,
            replied=replied,
            tokens=self.tokens,
            dense=self.dense,
        )


def report(runs: dict[str, list[Told]]) -> list[str]:
    """The tables, as lines."""
    dense, kept = runs["dense"], runs["kept"]
    both = [i for i, (d, k) in enumerate(zip(dense, kept, strict=True)) if d.truth and k.truth]
    lines = [
        f"{len(both)} of {len(dense)} chunks have an undisputable truth",
        f"{'':12}{'n':>6}{'dense':>9}{'kept':>9}{'kept − dense':>14}",
    ]
    for name in (*ATTRIBUTES, "exact", "questions"):
        right = {mode: [_right(told[i], name) for i in both] for mode, told in runs.items()}
        pairs = [
            (d, k)
            for d, k in zip(right["dense"], right["kept"], strict=True)
            if d is not None and k is not None
        ]
        d, k = (100 * np.mean([p[j] for p in pairs]) for j in (0, 1))
        lines.append(f"{name:12}{len(pairs):6}{d:8.1f} %{k:8.1f} %{k - d:+12.1f} pt")
    for mode, told in runs.items():
        share = sum(t.tokens for t in told) / sum(t.dense for t in told)
        lines.append(f"tokens, {mode}: {100 * share:.1f} % of all cells")
    for mode in runs:
        for name in ATTRIBUTES:
            lines += _confusion(name, mode, [runs[mode][i] for i in both])
    return lines


def _right(told: Told, name: str) -> bool | None:
    """Whether the attribute was told rightly; None if the truth does not have it."""
    assert told.truth is not None
    if name == "exact":
        return told.said == caption(told.truth)
    if name == "questions":
        reply = true_answer(told.truth, told.question)
        return None if reply is None else told.replied == reply
    true = getattr(told.truth, name)
    if true is None:
        return None
    said = parse(told.said)
    return said is not None and getattr(said, name) == true


def _confusion(name: str, mode: str, told: Sequence[Told]) -> list[str]:
    """Only what was confused: true → said, how often."""
    totals: Counter[str] = Counter()
    wrong: dict[str, Counter[str]] = {}
    for t in told:
        true = getattr(t.truth, name)
        if true is None:
            continue
        said = parse(t.said)
        value = "(no such sentence)" if said is None else getattr(said, name)
        totals[str(true)] += 1
        if value != true:
            wrong.setdefault(str(true), Counter())[str(value)] += 1
    lines = [f"{name}, {mode}: true (n) → said instead"]
    for true, n in sorted(totals.items()):
        mistakes = ", ".join(f"{v} ×{c}" for v, c in wrong.get(true, Counter()).most_common())
        lines.append(f"  {true} ({n}) → {mistakes or '–'}")
    return lines


if __name__ == "__main__":
    main()
