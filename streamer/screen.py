"""What a person or a script sees while a job runs: events on stdout, everything else on stderr."""

from __future__ import annotations

import io
import sys
import time
from contextlib import ExitStack, redirect_stdout
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

from streamer.events import Event, parse_event_id

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
        self.status: Status | None = None
        self.started = time.monotonic()
        self.first: tuple[float, float] | None = None
        """When the first event came, and the media time it reached."""
        self.events = 0
        self.media_s = 0.0
        self.kept = 0
        self.dense = 0
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
        text = event.to_json_line() if self.json else self._for_people(event)
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
        lag = (event.chunk_latency_ms or 0) / 1e3
        return f"{rate}lag {lag:.1f} s · tokens {self.kept} / {self.dense}"

    def _for_people(self, event: Event) -> str:
        aside = f"({event.event}: {event.reason})" if event.reason else f"({event.event})"
        said = event.text if event.event == "caption" else aside
        cost = (
            "" if event.dense_tokens is None else f"  [{event.input_tokens}/{event.dense_tokens}]"
        )
        name = f"{event.question}: " if self.named and event.question else ""
        line = f"{event.t0:6.1f} – {event.t1:5.1f} s  {name}{said}{cost}"
        if not self.truth or event.chunk > len(self.truth):
            return line
        true = self.truth[event.chunk - 1]
        return f"{line}\n{'':18}{'= truth' if true == said else f'truth: {true}'}"
