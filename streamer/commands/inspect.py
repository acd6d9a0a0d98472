"""What is kept of a video, drawn: `inspect`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamer.commands.ending import one_sentence
from streamer.commands.options import (
    ChunkS,
    Config,
    Fps,
    Pipeline,
    check_chunk,
    operators,
    overrides,
)
from streamer.config import DEFAULT_PIPELINE, LogSettings, Settings, load
from streamer.core.keyframes import KeyframePolicy
from streamer.log import configure

if TYPE_CHECKING:
    from operators import PixelOperator


def inspect(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="File path, file:, http: or https: URL of a video.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New or empty folder for what is made.")],
    seconds: Annotated[float, typer.Option(min=0.1, help="Media seconds to look at.")] = 60.0,
    every: Annotated[int, typer.Option(min=1, help="Draw one tubelet in so many.")] = 1,
    fps: Fps = None,
    chunk_s: ChunkS = None,
    pipeline: Pipeline = None,
    model: Annotated[
        str | None,
        typer.Option(help="Whose cells: 'embedded', a Qwen3-VL checkpoint folder, or a hub name."),
    ] = None,
    max_cells: Annotated[
        int | None, typer.Option(min=1, help="Most cells of a frame; the model's own if not given.")
    ] = None,
    config: Config = None,
) -> None:
    """Draw which cells of a video are kept, and the share of them over time.

    No model runs. DIR gets tubelets.jsonl, share.svg, and a folder of pictures in which what is
    kept is outlined and the rest dimmed. Of a pipeline of your own the operator before the encoder
    is looked at; without one, the plain and the robust change test are, side by side.

    Example: streamer inspect video.mp4 --out seen --max-cells 196
    """
    configure(LogSettings(level="warning"))
    with one_sentence():
        given = {
            "source.fps": fps,
            "source.chunk_s": chunk_s,
            "model.name": model,
            "model.max_cells": max_cells,
            "pipeline": operators(pipeline),
        }
        settings = load(config, overrides(given))
        alone = pipeline is not None or settings.pipeline != Settings().pipeline
        for line in _inspect(url, settings, out, seconds, every, alone=alone):
            typer.echo(line)


def _inspect(
    url: str, settings: Settings, out: Path, seconds: float, every: int, *, alone: bool
) -> list[str]:
    """A line for each operator; `alone` looks at the pipeline's only."""
    from streamer.sources import absolute, open_source, redact

    source = settings.source
    with open_source(absolute(url), fps=source.fps, decoder=source.decoder) as opened:
        check_chunk(opened.info, source)
        from streamer.inspection import inspect  # imports torch: only for what can be opened
        from streamer.inspection.geometry import load_geometry
        from streamer.inspection.walk import walk

        looks = walk(
            opened,
            _operators(settings.pipeline if alone else None),
            geometry=load_geometry(settings.model.name, max_cells=settings.model.max_cells),
            policy=KeyframePolicy(**settings.keyframes.model_dump()),
            fps=source.fps,
            chunk_s=source.chunk_s,
            seconds=seconds,
        )
        return [str(summary) for summary in inspect(looks, out, title=redact(url), every=every)]


def _operators(
    pipeline: Sequence[Mapping[str, object]] | None,
) -> dict[str, PixelOperator[Any] | None]:
    """The pipeline's by its name; without one, both change tests of rlt."""
    from operators import RLT
    from streamer.core.pipeline import build_pipeline

    if pipeline is None:
        return {"plain": RLT(), "robust": build_pipeline([DEFAULT_PIPELINE]).pixel}
    chosen = build_pipeline(pipeline).pixel
    return {chosen.name if chosen else "dense": chosen}
