"""How a command ends: its exit code, and one sentence for what went wrong."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from streamer.errors import StreamerError
from streamer.screen import errors

OK, FAILED, INTERRUPTED = 0, 1, 130


@contextmanager
def one_sentence() -> Iterator[None]:
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
        say(exc)
        raise typer.Exit(FAILED) from exc
    except KeyboardInterrupt as exc:
        raise typer.Exit(INTERRUPTED) from exc


def say(exc: StreamerError) -> None:
    """The sentence of an error."""
    errors.print(f"streamer: {exc}", markup=False)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
