"""What a person or a script sees while a job runs: events on stdout, everything else on stderr."""

from __future__ import annotations

import io
import sys
import time
from contextlib import ExitStack, redirect_stdout
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

from streamer.events import Event, parse_event_id

DIM, RESET = "\33[2m", "\33[0m"

errors = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


class _Nowhere(io.TextIOBase):
    """Takes text and drops it; never closed, because others keep hold of what stdout was."""

    def write(self, text: str) -> int:
        return len(text)


class Screen:
    """Prints events as they come, under a live line where stderr is a terminal.

    json: one JSON object a line on stdout, and no live line.
    truth: what is true of each chunk, where it is known.
    named: says which question is answered.
    """

    def __init__(
        self, *, json: bool, fps: float, truth: list[str] | None = None, named: bool = False
    ) -> None:
        self.json = json
        self.fps = fps
        self.truth = truth
        self.named = named
        self.stdout = sys.stdout
        self.dims = sys.stdout.isatty()
        """Whether what says nothing new is dimmed."""
        self.status: Status | None = None
        self.started = time.monotonic()
        self.first: tuple[float, float] | None = None
        """When the first event came, and the media time it reached."""
        self.events = 0
        self.media_s = 0.0
        self.kept = 0
        self.dense = 0
        self.level = 0
        self.cleanup = ExitStack()

    def __enter__(self) -> Self:
        # Ray prints on stdout what befalls its workers; a script reads only events there
        self.cleanup.enter_context(redirect_stdout(_Nowhere()))
        if not self.json and errors.is_terminal:
            self.status = self.cleanup.enter_context(errors.status("starting …"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cleanup.close()

    def told(self, what: str) -> None:
        """Says what is being waited for."""
        if self.status:
            self.status.update(f"{what} …")
        elif not self.json:
            errors.print(f"{what} …", markup=False)

    def show(self, event: Event) -> None:
        """Prints one event."""
        self._count(event)
        if self.json:
            text = event.to_json_line()
        else:
            text = self._for_people(event)
            if self.dims and event.event in ("unchanged", "seen"):
                text = f"{DIM}{text}{RESET}"
        if self.status:
            self.status.stop()
        self.stdout.write(f"{text}\n")
        self.stdout.flush()
        if self.status:
            self.status.update(self._live(event))
            self.status.start()

    def finish(self, error: str | None) -> None:
        """Ends the live line with one line on the whole job, and one on what went wrong."""
        if self.status:
            self.status.stop()
            self.status = None
        if not self.json:
            errors.print(self._summary())
        if error:
            errors.print(f"streamer: {error}", markup=False)

    def _summary(self) -> str:
        share = 100 * self.kept / self.dense if self.dense else 0.0
        first = "" if self.first is None else f", the first after {self.first[0]:.0f} s"
        return (
            f"{self.events} events for {self.media_s:g} s of video{first}; "
            f"{self.kept} of {self.dense} tokens ({share:.0f} %)"
        )

    def _count(self, event: Event) -> None:
        self.first = self.first or (time.monotonic() - self.started, event.t1)
        self.events += 1
        self.level = self.level if event.level is None else event.level
        self.media_s = event.t1
        if parse_event_id(event.id)[1]:
            return  # its chunk's tokens were counted with the first question
        self.kept += event.input_tokens or 0
        self.dense += event.dense_tokens or 0

    def _live(self, event: Event) -> str:
        assert self.first is not None
        took = time.monotonic() - self.started - self.first[0]
        sampled = (self.media_s - self.first[1]) * self.fps
        rate = f"{sampled / took:.1f} fps · " if sampled and took else ""
        level = f" · level {self.level}" if self.level else ""
        return f"{rate}lag {_lag_s(event):.1f} s{level} · tokens {self.kept} / {self.dense}"

    def _for_people(self, event: Event) -> str:
        said = event.text if event.event == "caption" else f"({_aside(event)})"
        cost = (
            "" if event.dense_tokens is None else f"  [{event.input_tokens}/{event.dense_tokens}]"
        )
        name = f"{event.question}: " if self.named and event.question else ""
        line = f"{event.t0:6.1f} – {event.t1:5.1f} s  {_clock(event)}{name}{said}{cost}"
        if not self.truth or event.chunk > len(self.truth):
            return line
        true = self.truth[event.chunk - 1]
        return f"{line}\n{'':18}{'= truth' if true == said else f'truth: {true}'}"


def _aside(event: Event) -> str:
    """What an event is that says nothing of the pictures."""
    what: str = event.event
    if event.event in ("gap", "skipped"):
        of = "of " if event.event == "gap" else ""
        what = f"{what} {of}{event.t1 - event.t0:.1f} s"
    if event.event == "level":
        what = f"{what} {event.level}"
    return f"{what}: {event.reason}" if event.reason else what


def _lag_s(event: Event) -> float:
    """How old what was seen is: since it was decoded, or of a live source since it happened."""
    wall = _wall(event)
    return (event.chunk_latency_ms or 0) / 1e3 if wall is None else max(0.0, time.time() - wall)


def _clock(event: Event) -> str:
    """When it happened, by this machine's clock; empty for files."""
    wall = _wall(event)
    return "" if wall is None else f"{datetime.fromtimestamp(wall, UTC).astimezone():%H:%M:%S}  "


def _wall(event: Event) -> float | None:
    """The end of a live source's span in Unix seconds."""
    try:
        return None if event.wall1 is None else datetime.fromisoformat(event.wall1).timestamp()
    except ValueError:  # of another version
        return None
