"""One video, captioned on this machine: `caption` and `demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from streamer.checkpoint import resolve
from streamer.commands.ending import FAILED, OK, one_sentence
from streamer.commands.options import (
    Asking,
    ChunkS,
    Config,
    Fps,
    Json,
    Live,
    Pipeline,
    check_chunk,
    operators,
    overrides,
)
from streamer.config import LogSettings, Settings, load
from streamer.jobs import When
from streamer.log import configure
from streamer.screen import Screen

QUIET = LogSettings(level="warning")


def caption(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="File path, or file:, http:, https:, rtsp: or rtmp: URL of a video."
        ),
    ],
    json: Json = False,
    question: Annotated[str | None, typer.Option(help="What to ask about the video.")] = None,
    when: Asking = None,
    live: Live = None,
    fps: Fps = None,
    chunk_s: ChunkS = None,
    pipeline: Pipeline = None,
    model: Annotated[
        str | None, typer.Option(help="'embedded', a Qwen3-VL checkpoint folder, or a hub name.")
    ] = None,
    config: Config = None,
    redis_port: Annotated[int | None, typer.Option(help="Port of the embedded Redis.")] = None,
) -> None:
    """Caption a video, from its URL to its last event, on this machine.

    Exits 0 only if every chunk got a caption (or was truly without pictures). A live source is
    connected to again and again, until Ctrl-C.

    Example: streamer caption video.mp4 --json --question "How many things move?"
    """
    configure(QUIET)
    with one_sentence():
        given = {
            "source.fps": fps,
            "source.chunk_s": chunk_s,
            "source.live": live,
            "model.name": model,
            "pipeline": operators(pipeline),
            "question": question,
            "queue.port": redis_port,
        }
        settings = load(config, overrides(given))
        with Screen(json=json, fps=settings.source.fps) as screen:
            code = _caption(url, settings, screen, when or "every")
    raise typer.Exit(code)


def demo(json: Json = False) -> None:
    """Render a clip, serve it over HTTP, caption it, and print what was true beside it.

    Example: streamer demo
    """
    from streamer.demo import served_demo, truths

    configure(QUIET)
    with one_sentence():
        settings = load()
        asked = (settings.source, settings.question)
        known = truths() if asked == (Settings().source, Settings().question) else None
        with Screen(json=json, fps=settings.source.fps, truth=known) as screen:
            screen.told("rendering a clip")
            with served_demo() as url:
                code = _caption(url, settings, screen)
    raise typer.Exit(code)


def _caption(url: str, settings: Settings, screen: Screen, when: When = "every") -> int:
    check(url, settings)
    from streamer.local import LocalRun

    with LocalRun(url, settings, told=screen.told, when=when) as run:
        bad = 0
        try:
            for event in run.events():
                bad += event.event in ("error", "skipped")
                screen.show(event)
        except KeyboardInterrupt:
            screen.finish(None)
            raise
        error = run.status().error
    if not screen.events and not error:
        error = "the source gave nothing to caption"
    screen.finish(error)
    return FAILED if error or bad else OK


def check(url: str, settings: Settings) -> None:
    """Refuses at the border, before anything is started, what cannot work.

    A live source may be away just now; it is waited for.

    Raises ConfigError, ModelError, SourceError.
    """
    from streamer.sources import TRUSTING, Limits, absolute, open_source
    from streamer.sources.live import is_live

    source = settings.source
    resolve(settings.model.name)
    if settings.pipeline != Settings().pipeline:
        from streamer.core.pipeline import build_pipeline  # imports torch: only when needed

        build_pipeline(settings.pipeline)
    if is_live(absolute(url), source.live, limits=Limits(), policy=TRUSTING):
        return
    with open_source(absolute(url), fps=source.fps) as opened:
        check_chunk(opened.info, source)
