"""What leaving tokens out costs: `eval`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Literal, Self, TextIO

import typer

from streamer.commands.ending import FAILED, INTERRUPTED, OK, one_sentence
from streamer.commands.options import ChunkS, Config, Fps, check_chunk, operators, overrides
from streamer.config import MOST_CONTEXT, LogSettings, Settings, load
from streamer.core.keyframes import KeyframePolicy
from streamer.errors import ConfigError
from streamer.log import configure
from streamer.screen import errors

if TYPE_CHECKING:
    from streamer.evaluation.answers import Answer, Run
    from streamer.evaluation.dataset import Dataset
    from streamer.evaluation.pipelines import Candidate
    from streamer.model import VideoModel

RENDERED = "rendered"
TELL_S = 5.0
"""How often progress is told."""


def evaluate(
    ctx: typer.Context,
    dataset: Annotated[
        str, typer.Option(help="'rendered', or a file of questions about videos, one JSON a line.")
    ] = RENDERED,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New or empty folder for table, curves and every answer."),
    ] = None,
    pipelines: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML file of pipelines to compare.")
    ] = None,
    pipeline: Annotated[
        list[str] | None,
        typer.Option(help="Operators as YAML, to compare; may be given again. [] is dense."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="'embedded', a Qwen3-VL checkpoint folder, or a hub name.")
    ] = None,
    context: Annotated[
        Literal["kept", "cached", "dense"] | None,
        typer.Option(help="What the vision encoder shows to kept cells; see model.context."),
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="How many clips are rendered.")] = 500,
    skip: Annotated[int, typer.Option(min=0, help="Rendered clips to pass over first.")] = 0,
    only: Annotated[
        Literal["still"] | None,
        typer.Option(help="Of the rendered clips those whose camera never moves nor cuts."),
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where videos are that a file of questions names."),
    ] = None,
    fps: Fps = None,
    chunk_s: ChunkS = None,
    max_context: Annotated[
        int,
        typer.Option(min=256, help="Most tokens of a question's context; a service's by default."),
    ] = MOST_CONTEXT,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling for intervals.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of torch; its own choice if not given.")
    ] = None,
    config: Config = None,
) -> None:
    """Measure what pipelines cost and save: right answers, tokens and time, side by side.

    Clips go through what serves streams: sources, chunks, encoder, wire and caption sessions, but
    without Ray and Redis. Without --pipelines and --pipeline the configured pipeline is compared
    with none at all. The tables are on stdout; DIR gets results.csv, summary.md, curves.svg and
    answers.jsonl.

    Example: streamer eval --dataset my_clips.jsonl --out results
    """
    configure(LogSettings(level="warning"))
    with one_sentence():
        sampling = {"source.fps": fps, "source.chunk_s": chunk_s}
        given = {**sampling, "model.name": model, "model.context": context}
        settings = load(config, overrides(given))
        if dataset == RENDERED:
            for name, value in sampling.items():
                if value is not None:
                    raise ConfigError(
                        f"{name}: {value:g} is not for rendered clips, which have 2 frames a "
                        "second in chunks of 2 s; leave it out, or give a --dataset of your own"
                    )
            if videos is not None:
                raise ConfigError(
                    f"--videos {videos} is not for rendered clips; leave it out, or give a "
                    "--dataset of your own"
                )
        else:
            for option in ("clips", "skip", "only"):
                source = ctx.get_parameter_source(option)
                if source is not None and source.name == "COMMANDLINE":
                    value = ctx.params[option]
                    raise ConfigError(
                        f"--{option} {value} chooses among rendered clips; leave it out"
                    )
        data = (
            _rendered(clips=clips, skip=skip, only=only)
            if dataset == RENDERED
            else _questions(Path(dataset), settings, videos)
        )
        candidates = _candidates(settings, pipelines, pipeline or [])
        code = _evaluate(
            data,
            candidates,
            settings,
            out=out,
            max_context=max_context,
            seed=seed,
            threads=threads,
        )
    raise typer.Exit(code)


def _rendered(*, clips: int, skip: int, only: str | None) -> Dataset:
    from streamer.evaluation.rendered import RenderedClips

    found = RenderedClips(clips=clips, skip=skip, still=only == "still")
    if not len(found):
        raise ConfigError(f"--only {only}: none of these {clips} clips is; raise --clips")
    return found


def _questions(path: Path, settings: Settings, videos: Path | None) -> Dataset:
    from streamer.evaluation.questions import QuestionFile, Sampling

    source = settings.source
    sampling = Sampling(
        fps=source.fps,
        chunk_s=source.chunk_s,
        decoder=source.decoder,
        question=settings.question,
        check=lambda video: check_chunk(video, source),
    )
    return QuestionFile(path, sampling=sampling, videos=videos)


def _candidates(settings: Settings, path: Path | None, texts: list[str]) -> list[Candidate]:
    from streamer.evaluation.pipelines import candidate, distinct, read_candidates

    found = read_candidates(path) if path else []
    found += [candidate(operators(text) or [], where="--pipeline") for text in texts]
    if not found:
        found = [candidate([])]
        if settings.pipeline:
            found.append(candidate(settings.pipeline, label="default"))
    return distinct(found, where="--pipelines and --pipeline" if path else "--pipeline")


def _evaluate(
    data: Dataset,
    candidates: list[Candidate],
    settings: Settings,
    *,
    out: Path | None,
    max_context: int,
    seed: int,
    threads: int | None,
) -> int:
    from streamer.evaluation.report import Report, record, write
    from streamer.evaluation.run import evaluate
    from streamer.evaluation.scores import costs, scores
    from streamer.evaluation.stream import Serving

    recalls = any(one.context == "cached" for one in candidates)
    model = _model(settings, threads, recalls=recalls)
    runs: list[Run] = []
    interrupted = False
    with _Told(out, record, runs=len(data) * len(candidates)) as told:
        try:
            evaluate(
                data,
                candidates,
                model,
                serving=Serving(
                    policy=KeyframePolicy(**settings.keyframes.model_dump()),
                    max_new_tokens=settings.model.max_new_tokens,
                    max_context=max_context,
                ),
                together=settings.model.batch,
                answered=told.answered,
                progressed=told.progressed,
                runs=runs,
            )
        except KeyboardInterrupt:
            if not told.done:
                raise
            interrupted = True
    report = Report(
        dataset=data.name,
        model=settings.model.name,
        attributes=data.attributes,
        runs=runs,
        scores=scores(runs, data.attributes, data.cuts, seed=seed),
        costs=costs(runs, seed=seed),
    )
    for line in report.tables():
        typer.echo(line)
    if out is not None:
        with _writing(out):
            write(report, out)
    if interrupted:
        errors.print(
            f"streamer: interrupted; the tables are of {told.done} of {told.runs} clips × pipelines"
        )
        return INTERRUPTED
    return _complaints(runs, data)


def _model(settings: Settings, threads: int | None, *, recalls: bool) -> VideoModel:
    """recalls: some pipeline's cells see what is stored, whatever the settings say."""
    import torch

    from streamer.model import load_model

    if threads:
        torch.set_num_threads(threads)
    wanted = settings.model
    model = load_model(
        wanted.name,
        device=wanted.device,
        dtype=wanted.dtype,
        attention=wanted.attention,
        context="cached" if recalls else wanted.context,
        max_cells=wanted.max_cells,
    )
    return replace(model, context=wanted.context)


class _Told:
    """Every answer as it comes: into a file, and counted on stderr now and then."""

    def __init__(
        self, out: Path | None, record: Callable[[Answer], dict[str, object]], *, runs: int
    ) -> None:
        """record: an answer as it is written. runs: how often a clip goes through a pipeline."""
        self.record = record
        self.out = out
        self.runs = runs
        self.done = 0
        self.answers = 0
        self.started = self.told_at = time.monotonic()
        self.cleanup = ExitStack()
        self.file: TextIO | None = None

    def __enter__(self) -> Self:
        if self.out is not None:
            self.file = self.cleanup.enter_context(_new(self.out))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.out is not None:
            with _writing(self.out):
                self.cleanup.close()

    def answered(self, answer: Answer) -> None:
        self.answers += 1
        if self.out is not None and self.file is not None:
            with _writing(self.out):
                self.file.write(json.dumps(self.record(answer), ensure_ascii=False) + "\n")
        if time.monotonic() - self.told_at > TELL_S:
            self._tell()

    def progressed(self, done: int) -> None:
        self.done = done
        if done == self.runs:
            self._tell()

    def _tell(self) -> None:
        self.told_at = time.monotonic()
        spent = self.told_at - self.started
        errors.print(
            f"streamer: {self.done} of {self.runs} clips × pipelines, "
            f"{self.answers} answers, {spent:.0f} s"
        )


def _new(folder: Path) -> TextIO:
    """answers.jsonl in a folder that holds nothing yet."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"--out {folder} is not empty; give a new folder, or empty it first")
        return (folder / "answers.jsonl").open("w", encoding="utf-8", buffering=1)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ConfigError(f"--out {folder} cannot be written: {exc.strerror or exc}") from exc


def _complaints(runs: Sequence[Run], data: Dataset) -> int:
    """Says what is not in the tables; how the command ends."""
    told = []
    for run in runs:
        told += [f"{run.label}: {clip}: {reason}" for clip, reason in run.broken.items()]
    if not any(not answer.error for run in runs for answer in run.answers):
        told.append("nothing was answered, so there is nothing to compare")
    failed = bool(told)
    for run in runs:
        refused = [answer for answer in run.answers if answer.error]
        if refused:
            first = f"e.g. {refused[0].clip}, {refused[0].item}: {refused[0].error}"
            told.append(f"{run.label}: {len(refused)} not answered, {first}")
    asked = {(answer.clip, answer.item) for run in runs for answer in run.answers}
    for (clip, item), when in data.items.items():
        if (clip, item) not in asked:
            told.append(f"{clip}, {item}: was never asked; it is asked {when}")
    for line in told:
        errors.print(f"streamer: {line}", markup=False)
    return FAILED if failed else OK
