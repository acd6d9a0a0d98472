"""Jobs of a running service: submit, watch, list, end them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import typer

from streamer.adapters.clock import SYSTEM_CLOCK
from streamer.commands.connection import Job, Jobs, Token, Url, connect
from streamer.commands.ending import FAILED, OK, one_sentence, say
from streamer.commands.options import Asking, ChunkS, Fps, Json, Live, Pipeline, operators
from streamer.errors import ConfigError, ServiceError
from streamer.jobs import JobState
from streamer.screen import Screen, errors

if TYPE_CHECKING:
    from streamer.client import Client

Format = Literal["json", "vtt", "srt"]
GONE = 404
PATIENCE_S, PAUSE_S = 60.0, 0.5


def submit(
    video: Annotated[
        str,
        typer.Argument(metavar="URL", help="URL of a video or stream, or a file of the service's."),
    ],
    question: Annotated[
        list[str] | None, typer.Option(help="What to ask about the video; may be repeated.")
    ] = None,
    when: Asking = None,
    live: Live = None,
    fps: Fps = None,
    chunk_s: ChunkS = None,
    pipeline: Pipeline = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key again gives the same job, not a second one.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow its events to the last.")] = False,
    json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Give a video to a running service, and print the job's id.

    With --json it prints the job, or with --watch its events, as JSON.

    Example: streamer submit https://example.com/video.mp4 --question "What moves?" --watch
    """
    from streamer.views import to_json_line

    with one_sentence(), connect(url, token) as service:
        made = service.submit(
            os.path.realpath(video) if os.path.isfile(video) else video,
            questions=question or None,
            when=when,
            live=live,
            fps=fps,
            chunk_s=chunk_s,
            pipeline=operators(pipeline),
            idempotency_key=idempotency_key,
        )
        if not (watch and json):
            typer.echo(to_json_line(made) if json else made.id)
        code = _follow(service, made.id, json=json) if watch else OK
    raise typer.Exit(code)


def watch(
    job: Job,
    after: Annotated[
        str | None, typer.Option(metavar="ID", help="Begin behind this event, e.g. 12-0.")
    ] = None,
    json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Follow a job's events to the last one, over every lost connection.

    Exits 0 if the job ended well. Ctrl-C ends the watching, not the job.

    Example: streamer watch job-5f0c9a --json --after 12-0
    """
    with one_sentence(), connect(url, token) as service:
        code = _follow(service, job, json=json, after=after)
    raise typer.Exit(code)


def jobs(
    state: Annotated[JobState | None, typer.Option(help="Only those in this state.")] = None,
    json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List the jobs: state, how far behind, how far in the video, tokens kept.

    Example: streamer jobs --state running
    """
    from streamer.tables import job_table, paper
    from streamer.views import to_json_line

    with one_sentence(), connect(url, token) as service:
        found = service.jobs(state)
        if json:
            for job in found:
                typer.echo(to_json_line(job))
        else:
            paper().print(job_table(list(found)))


def ask(
    job: Job,
    prompt: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
    start: Annotated[
        float | None, typer.Option("--from", min=0, help="Media seconds; now if not given.")
    ] = None,
    end: Annotated[
        float | None, typer.Option("--to", min=0, help="Media seconds; up to now if not given.")
    ] = None,
    json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Ask one question about a job, as it is now or as it was.

    It is answered from what is stored; the job goes on meanwhile. What was read for it is said on
    stderr.

    Example: streamer ask job-5f0c9a "Who came in?" --from 60 --to 120
    """
    from streamer.views import to_json_line

    with one_sentence(), connect(url, token) as service:
        answer = service.ask(job, prompt, start, end)
        typer.echo(to_json_line(answer) if json else answer.text)
    if not json:
        errors.print(
            f"{answer.t0:.1f} – {answer.t1:.1f} s, {answer.visual_tokens} of {answer.dense_tokens} "
            f"tokens, {answer.latency_ms / 1e3:.1f} s",
            markup=False,
        )


def export(
    job: Job,
    format: Annotated[Format, typer.Option(help="json, vtt (WebVTT) or srt (SubRip).")] = "vtt",
    start: Annotated[float | None, typer.Option("--from", min=0, help="Media seconds.")] = None,
    end: Annotated[float | None, typer.Option("--to", min=0, help="Media seconds.")] = None,
    question: Annotated[
        str | None, typer.Option(help="Only the answers to this one, by id.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="New file; stdout if not given.")
    ] = None,
    url: Url = None,
    token: Token = None,
) -> None:
    """Write what was said of a video as subtitles, or as JSON.

    Example: streamer export job-5f0c9a --format srt --out video.srt
    """
    with one_sentence(), connect(url, token) as service, _file(out) as file:
        for piece in service.export(job, format, t0=start, t1=end, question=question):
            file.write(piece)


@contextmanager
def _file(path: Path | None) -> Iterator[BinaryIO]:
    """Where a file's bytes go. One that is cut short is not left behind."""
    if path is None:
        yield typer.get_binary_stream("stdout")
        return
    try:
        with path.open("xb") as file:
            try:
                yield file
            except BaseException:
                path.unlink()
                raise
    except OSError as exc:
        raise ConfigError(f"--out {path} cannot be written: {exc.strerror}") from exc


def cancel(job: Jobs, url: Url = None, token: Token = None) -> None:
    """End jobs and delete what they have said.

    Example: streamer cancel job-5f0c9a job-7d21b3
    """
    _each(job, url, token, "cancelled", lambda service, job_id: service.cancel(job_id))


def pause(job: Jobs, url: Url = None, token: Token = None) -> None:
    """Let jobs rest until they are resumed.

    Example: streamer pause job-5f0c9a
    """
    _each(job, url, token, "paused", lambda service, job_id: service.pause(job_id))


def resume(job: Jobs, url: Url = None, token: Token = None) -> None:
    """Let paused jobs go on.

    Example: streamer resume job-5f0c9a
    """
    _each(job, url, token, "resumed", lambda service, job_id: service.resume(job_id))


def _follow(service: Client, job_id: str, *, json: bool, after: str | None = None) -> int:
    job, events = service.job(job_id), service.events(job_id, after=after)
    with Screen(json=json, fps=job.fps or 0.0, named=len(job.questions) > 1) as screen:
        screen.told("waiting for its first event")
        for event in events:
            screen.show(event)
        error = _error(service, job_id)
        screen.finish(error)
    return FAILED if error else OK


def _error(service: Client, job_id: str) -> str | None:
    """What went wrong with a job that is over; a service that is away just now is waited for."""
    until = SYSTEM_CLOCK.monotonic() + PATIENCE_S
    while True:
        try:
            job = service.job(job_id)
        except ServiceError as exc:
            if exc.status == GONE:
                return f"job {job_id} was deleted"
            refused = exc.status is not None and exc.status < 500
            if refused or SYSTEM_CLOCK.monotonic() > until:
                raise
            SYSTEM_CLOCK.sleep(PAUSE_S)
        else:
            return job.error or ("the job failed" if job.state == "failed" else None)


def _each(
    job_ids: list[str],
    url: str | None,
    token: str | None,
    done: str,
    act: Callable[[Client, str], object],
) -> None:
    """Does one thing to every job, also where it cannot be done to another."""
    code = OK
    with one_sentence(), connect(url, token) as service:
        for job_id in job_ids:
            try:
                act(service, job_id)
            except ServiceError as exc:
                if exc.status is None:
                    raise
                say(exc)
                code = FAILED
            else:
                typer.echo(f"{job_id} {done}")
    raise typer.Exit(code)
