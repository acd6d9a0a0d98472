"""The command line: parse, call one function, print."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
import yaml
from rich.console import Console
from rich.status import Status

from streamer import __version__
from streamer.checkpoint import resolve
from streamer.config import Settings, load
from streamer.errors import ConfigError, StreamerError
from streamer.events import Event
from streamer.log import configure

OK, FAILED, INTERRUPTED = 0, 1, 130

app = typer.Typer(
    help="Streamer turns a video URL into a stream of captions, at the price of change.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


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
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Caption a video, from its URL to its last event, on this machine.

    Exits 0 only if every chunk got a caption (or was truly without pictures).

    Example: streamer caption video.mp4 --json --question "How many things move?"
    """
    configure(verbose=verbose)
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
        raise typer.Exit(_caption(url, settings, json=json, truth=None))


@app.command()
def demo(
    json: Annotated[bool, typer.Option("--json", help="One event a line on stdout.")] = False,
) -> None:
    """Render a clip, serve it over HTTP, caption it, and print what was true beside it."""
    from streamer.demo import served_demo, truths

    configure()
    with _one_sentence(), served_demo() as url:
        raise typer.Exit(_caption(url, load(), json=json, truth=truths()))


def _caption(url: str, settings: Settings, *, json: bool, truth: list[str] | None) -> int:
    check(url, settings)
    from streamer.local import LocalRun

    bad = 0
    with (
        _stdout_of_our_own() as stdout,
        _waiting(enabled=not json) as line,
        LocalRun(url, settings, told=line.told) as run,
    ):
        for event in run.events():
            bad += event.event not in ("caption", "unchanged", "gap")
            line.event(event, settings)
            lines = [event.to_json_line()] if json else _lines(event, truth)
            stdout.write("".join(f"{text}\n" for text in lines))
            stdout.flush()
        status = run.status()
    if not json:
        errors.print(line.summary())
    error = status.error or (None if line.chunks else "the source gave nothing to caption")
    if error:
        errors.print(f"streamer: {error}", markup=False)
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
    open_source(absolute(url), fps=source.fps, decoder="pyav").close()


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
    """What a user did wrong ends in one sentence on stderr, not in a traceback."""
    try:
        yield
    except StreamerError as exc:
        errors.print(f"streamer: {exc}", markup=False)
        raise typer.Exit(FAILED) from exc
    except KeyboardInterrupt as exc:
        raise typer.Exit(INTERRUPTED) from exc


@dataclass(slots=True)
class _Line:
    """The live line: what is waited for, then how the stream goes."""

    status: Status | None
    started: float
    first_s: float | None = None
    chunks: int = 0
    media_s: float = 0.0
    kept: int = 0
    dense: int = 0

    def told(self, what: str) -> None:
        if self.status:
            self.status.update(f"{what} …")

    def event(self, event: Event, settings: Settings) -> None:
        now = time.monotonic()
        if self.first_s is None:
            self.first_s = now - self.started
        self.chunks += 1
        self.media_s = event.t1
        self.kept += event.input_tokens or 0
        self.dense += event.dense_tokens or 0
        if self.status:
            took = max(now - self.started - self.first_s, 1e-3)
            fps = self.media_s * settings.source.fps / took
            lag = (event.chunk_latency_ms or 0) / 1e3
            rate = f"{fps:.1f} fps · " if self.chunks > 1 else ""
            self.status.update(f"{rate}lag {lag:.1f} s · tokens {self.kept} / {self.dense}")

    def summary(self) -> str:
        share = 100 * self.kept / self.dense if self.dense else 0.0
        first = "" if self.first_s is None else f", the first after {self.first_s:.0f} s"
        return (
            f"{self.chunks} events for {self.media_s:g} s of video{first}; "
            f"{self.kept} of {self.dense} tokens ({share:.0f} %)"
        )


@contextmanager
def _stdout_of_our_own() -> Iterator[TextIO]:
    """The real stdout, while what others print there (Ray does) is dropped."""
    stdout = sys.stdout
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield stdout


@contextmanager
def _waiting(*, enabled: bool) -> Iterator[_Line]:
    if not enabled:
        yield _Line(None, time.monotonic())
        return
    with errors.status("starting …") as status:
        yield _Line(status, time.monotonic())


def _lines(event: Event, truth: list[str] | None) -> list[str]:
    aside = f"({event.event}: {event.reason})" if event.reason else f"({event.event})"
    said = event.text if event.event == "caption" else aside
    cost = "" if event.dense_tokens is None else f"  [{event.input_tokens}/{event.dense_tokens}]"
    lines = [f"{event.t0:6.1f} – {event.t1:5.1f} s  {said}{cost}"]
    if truth and event.chunk <= len(truth):
        true = truth[event.chunk - 1]
        lines.append(f"{'':18}{'= truth' if true == said else f'truth: {true}'}")
    return lines
