"""Videos with questions, as a dataset file names them."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from streamer.core.chunker import Chunker
from streamer.errors import ConfigError, SourceError
from streamer.evaluation.answers import CutClaim, Judgement, Mark, Query
from streamer.evaluation.cuts import CUT_SCORES, Cuts
from streamer.evaluation.dataset import Moment
from streamer.evaluation.lines import ALL, CutLine, QuestionLine, read_lines
from streamer.evaluation.matching import chosen, lettered, matches
from streamer.sources import StreamInfo, absolute, open_source, redact
from streamer.types import FrameChunk

SCHEMES = ("http", "https", "file")
"""Of videos; a live stream has no end at which one could count."""
_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How videos are read."""

    fps: float
    chunk_s: float
    decoder: Literal["pyav", "decord"]
    question: str
    """What is asked where a line says nothing else."""
    check: Callable[[StreamInfo], None] = lambda _: None
    """Raises ConfigError for a video that cannot be read like this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One line of the file, and what it is called."""

    item: str
    line: QuestionLine | CutLine


class FileClip:
    """One video, read anew whenever its pictures are asked for."""

    def __init__(self, name: str, url: str, asked: Sequence[Asked], sampling: Sampling) -> None:
        self.name = name
        self.url = url
        self.asked = asked
        self.sampling = sampling

    def spans_from(self, at_s: float) -> list[float]:
        lines = [one.line for one in self.asked if isinstance(one.line, QuestionLine)]
        return [
            line.start
            for line in lines
            if not line.every and (line.stop is None or at_s < line.stop - _EPS)
        ]

    def chunks(self) -> Iterator[FrameChunk]:
        fps, decoder = self.sampling.fps, self.sampling.decoder
        chunker = Chunker(chunk_s=self.sampling.chunk_s, fps=fps, clock=time.perf_counter)
        with open_source(self.url, fps=fps, decoder=decoder) as source:
            try:
                self.sampling.check(source.info)
            except ConfigError as exc:
                raise SourceError(f"{self.name}: {exc}") from exc
            yield from chunker.chunks(source)
            if source.missing is not None:
                held, announced = source.missing
                raise SourceError(
                    f"{self.name}: it ends at {held:g} s, and announces {announced:g} s"
                )

    def queries(self, moment: Moment) -> list[Query]:
        return [query for one in self.asked for query in self._queries(one, moment)]

    def _queries(self, one: Asked, moment: Moment) -> list[Query]:
        line = one.line
        if isinstance(line, CutLine):
            return [self._about_cuts(one.item, line, moment)]
        inside = moment.t0 >= line.start - _EPS and (
            line.stop is None or moment.t1 <= line.stop + _EPS
        )
        if line.every:
            return [self._about(one.item, line, None)] if inside else []
        if not _is_over(line, moment):
            return []
        return [self._about(one.item, line, (line.start, line.stop or moment.t1))]

    def _about(self, item: str, line: QuestionLine, span: tuple[float, float] | None) -> Query:
        question = line.question or self.sampling.question
        return Query(
            item=item,
            prompt=lettered(question, line.choices) if line.choices else question,
            judge=lambda said: _judged(line, said),
            span=span,
        )

    def _about_cuts(self, item: str, line: CutLine, moment: Moment) -> Query:
        at = (moment.before_s + moment.last_s) / 2
        near = [f"{cut:g}" for cut in line.cuts if abs(cut - at) <= line.tolerance_s]

        def judge(said: str) -> Judgement:
            claim = CutClaim(at_s=at, claimed=matches(said, [line.says], "regex"))
            expected = f"a cut at {', '.join(near)} s" if near else "no cut"
            return Judgement(expected=expected, cut=claim)

        return Query(item=item, prompt=line.question or self.sampling.question, judge=judge)


class QuestionFile:
    """A dataset file, read and checked."""

    def __init__(self, path: Path, *, sampling: Sampling, videos: Path | None = None) -> None:
        """videos: the folder of videos named relatively; the file's own if None.

        Raises ConfigError.
        """
        folder = videos or path.parent
        lines = read_lines(path, missing=lambda video: _missing(video, folder))
        self.name = path.stem
        self.sampling = sampling
        self.folder = folder
        self.videos: dict[str, list[Asked]] = {}
        first: dict[str, int] = {}
        for number, line in lines:
            asked = Asked(item=line.id or f"line {number}", line=line)
            self.videos.setdefault(line.video, []).append(asked)
            first.setdefault(line.video, number)
        shown = Counter(redact(video) for video in self.videos)
        self.names = {
            video: redact(video) + (f" (line {number})" if shown[redact(video)] > 1 else "")
            for video, number in first.items()
        }
        """Of the clips, by video: URLs may differ only in what is not shown."""

    @property
    def attributes(self) -> tuple[str, ...]:
        lines = [one.line for asked in self.videos.values() for one in asked]
        questions = [line for line in lines if isinstance(line, QuestionLine)]
        named = dict.fromkeys(line.attribute for line in questions if line.attribute)
        cuts = CUT_SCORES if len(questions) < len(lines) else ()
        return (*((ALL,) if questions else ()), *named, *cuts)

    @property
    def cuts(self) -> Mapping[tuple[str, str], Cuts]:
        return {
            (self.names[video], one.item): Cuts(
                times=tuple(sorted(one.line.cuts)), tolerance_s=one.line.tolerance_s
            )
            for video, asked in self.videos.items()
            for one in asked
            if isinstance(one.line, CutLine)
        }

    @property
    def items(self) -> Mapping[tuple[str, str], str]:
        return {
            (self.names[video], one.item): _when(one.line)
            for video, asked in self.videos.items()
            for one in asked
        }

    def __len__(self) -> int:
        return len(self.videos)

    def __iter__(self) -> Iterator[FileClip]:
        for video, asked in self.videos.items():
            url = _url(video, self.folder)
            yield FileClip(self.names[video], url, asked, self.sampling)


def _when(line: QuestionLine | CutLine) -> str:
    if isinstance(line, CutLine):
        return "after every chunk"
    end = "the end" if line.stop is None else f"{line.stop:g} s"
    if line.every:
        return f"after every chunk that lies between {line.start:g} s and {end}"
    return f"at {end}"


def _is_over(line: QuestionLine, moment: Moment) -> bool:
    """Whether the span it asks about ends with this chunk."""
    if line.stop is None:
        return moment.last
    return moment.after_s < line.stop - _EPS and (moment.last or line.stop - _EPS <= moment.t1)


def _judged(line: QuestionLine, said: str) -> Judgement:
    if line.choices is None:
        expected, right = " | ".join(line.answers), matches(said, line.answers, line.match)
    else:
        correct = {chosen(answer, line.choices) for answer in line.answers}
        expected = " | ".join(line.choices[i] for i in sorted(c for c in correct if c is not None))
        right = chosen(said, line.choices) in correct
    names = (ALL, *((line.attribute,) if line.attribute else ()))
    return Judgement(expected=expected, marks=dict.fromkeys(names, Mark(right=right)))


def _url(video: str, folder: Path) -> str:
    return video if "://" in video else absolute(str(folder / video))


def _missing(video: str, folder: Path) -> str | None:
    scheme, separator, _ = video.partition("://")
    if separator:
        if scheme.lower() in SCHEMES:
            return None
        return f"{redact(video)} is no http:, https: or file: URL; give one, or a path"
    if os.path.isfile(folder / video):
        return None
    return f"{folder / video} is not there; give a path from {folder}, or --videos with its folder"
