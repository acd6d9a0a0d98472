"""The command line: parse, call one function, print."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
import yaml

from streamer import __version__
from streamer.checkpoint import resolve
from streamer.config import Settings, load
from streamer.errors import ConfigError, StreamerError
from streamer.log import configure
from streamer.screen import Screen, errors

OK, FAILED, INTERRUPTED = 0, 1, 130
MAX_CHUNK_BYTES = 1 << 30

app = typer.Typer(
    help="Streamer turns a video URL into a stream of captions, at the price of change.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"streamer {__version__}")
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def caption(
    url: Annotated[str, typer.Argument(help="File path, file:, http: or https: URL of a video.")],
    json: Annotated[bool, typer.Option("--json", help="One event a line on stdout.")] = False,
    question: Annotated[str | None, typer.Option(help="What to ask about every chunk.")] = None,
    fps: Annotated[float | None, typer.Option(help="Sampled frames per second.")] = None,
    chunk_s: Annotated[float | None, typer.Option(help="Media seconds per chunk.")] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(help="Operators as YAML, e.g. '[{name: rlt, threshold: 0.05}]'; [] is dense."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="'embedded', a Qwen3-VL checkpoint folder, or a hub name.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    redis_port: Annotated[int | None, typer.Option(help="Port of the embedded Redis.")] = None,
) -> None:
    """Caption a video, from its URL to its last event, on this machine.

    Exits 0 only if every chunk got a caption (or was truly without pictures).

    Example: streamer caption video.mp4 --json --question "How many things move?"
    """
    configure()
    with _one_sentence():
        overrides = _overrides(
            {
                ("source", "fps"): fps,
                ("source", "chunk_s"): chunk_s,
                ("model", "name"): model,
                ("pipeline",): None if pipeline is None else _yaml(pipeline),
                ("question",): question,
                ("queue", "port"): redis_port,
            }
        )
        settings = load(config, overrides)
        with Screen(json=json, fps=settings.source.fps) as screen:
            code = _caption(url, settings, screen)
    raise typer.Exit(code)


@app.command()
def demo(
    json: Annotated[bool, typer.Option("--json", help="One event a line on stdout.")] = False,
) -> None:
    """Render a clip, serve it over HTTP, caption it, and print what was true beside it."""
    from streamer.demo import served_demo, truths

    configure()
    with _one_sentence():
        settings = load()
        asked = (settings.source, settings.question)
        known = truths() if asked == (Settings().source, Settings().question) else None
        with Screen(json=json, fps=settings.source.fps, truth=known) as screen:
            screen.told("rendering a clip")
            with served_demo() as url:
                code = _caption(url, settings, screen)
    raise typer.Exit(code)


def _caption(url: str, settings: Settings, screen: Screen) -> int:
    check(url, settings)
    from streamer.local import LocalRun

    with LocalRun(url, settings, told=screen.told) as run:
        bad = 0
        for event in run.events():
            bad += event.event not in ("caption", "unchanged", "gap")
            screen.show(event)
        error = run.status().error
    if not screen.events and not error:
        error = "the source gave nothing to caption"
    screen.finish(error)
    return FAILED if error or bad else OK


def check(url: str, settings: Settings) -> None:
    """Refuses at the border, before anything is started, what cannot work.

    Raises ConfigError, ModelError, SourceError.
    """
    from streamer.sources import absolute, open_source

    source = settings.source
    frames = source.fps * source.chunk_s
    if frames < 1 or abs(frames - round(frames)) > 1e-6:
        raise ConfigError(
            f"source: fps {source.fps:g} × chunk_s {source.chunk_s:g} is {frames:g} frames "
            "a chunk; give a whole number of at least 1, e.g. fps 2 and chunk_s 2"
        )
    resolve(settings.model.name)
    if settings.pipeline != Settings().pipeline:
        from streamer.core.pipeline import build_pipeline  # imports torch: only when needed

        build_pipeline(settings.pipeline)
    with open_source(absolute(url), fps=source.fps) as opened:
        size = frames * opened.info.width * opened.info.height * 3
    if size > MAX_CHUNK_BYTES:
        raise ConfigError(
            f"source: fps {source.fps:g} × chunk_s {source.chunk_s:g} is {size / 2**30:.1f} GiB of "
            f"pictures a chunk for this video, more than {MAX_CHUNK_BYTES >> 30} GiB; lower either"
        )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _yaml(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ConfigError(f"--pipeline is not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(value, list):
        raise ConfigError(
            f"--pipeline must be a list of operators, got {value!r}; "
            "e.g. '[{name: rlt}]', or '[]' for none"
        )
    return value


def _overrides(given: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    for path, value in given.items():
        if value is not None:
            at = overrides
            for part in path[:-1]:
                at = at.setdefault(part, {})
            at[path[-1]] = value
    return overrides


@contextmanager
def _one_sentence() -> Iterator[None]:
    """What a user did wrong ends in one sentence on stderr, not in a traceback.

    A polite end (SIGTERM, a closed terminal) is taken like Ctrl-C, so that all is cleaned up; what
    the caller had ignored (nohup) stays ignored.
    """
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, _interrupt)
    try:
        yield
    except StreamerError as exc:
        errors.print(f"streamer: {exc}", markup=False)
        raise typer.Exit(FAILED) from exc
    except KeyboardInterrupt as exc:
        raise typer.Exit(INTERRUPTED) from exc
