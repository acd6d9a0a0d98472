"""Decode workers on Ray as the tokenizers see them."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import ray
from ray.exceptions import ActorUnavailableError, RayActorError

from streamer.actors.decode import End, Failure, NotYet, Reading
from streamer.actors.ray_cluster import NAMESPACE
from streamer.adapters.clock import Clock
from streamer.jobs import Job
from streamer.types import FrameChunk

TIMEOUT_S = 90.0
"""For a chunk; to come to one late in a source that cannot be entered midway may take longer."""
LIVE_TIMEOUT_S = 45.0
"""For an answer about a live source, which may be that there is nothing yet."""
ATTEMPTS = 5
"""Workers that may be lost at one place of a file before its job fails."""
RETRY_S = 0.2
RETRY_MAX_S = 5.0
WAIT_S = 0.1


class Actors(Protocol):
    """The decode workers' processes."""

    def find(self, name: str) -> Any:
        """Its handle. Raises ValueError when it is not there."""
        ...

    def kill(self, name: str) -> None:
        """It comes back under the same name."""
        ...


class RayActors:
    """Those of the present cluster."""

    def find(self, name: str) -> Any:
        return ray.get_actor(name, namespace=NAMESPACE)

    def kill(self, name: str) -> None:
        with suppress(ValueError):  # gone already
            ray.kill(self.find(name), no_restart=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    start_s: float
    answer: Future[FrameChunk | End | Failure | NotYet]
    since: float


class RemoteDecoder:
    """A decode actor seen by one job's tokenizer: one chunk is always being decoded ahead.

    An actor that dies is asked again; one that gives no answer in time is killed: for a file once,
    for a live source, which is read for ever, whenever that happens.
    """

    def __init__(self, reading: Reading, clock: Clock, actors: Actors | None = None) -> None:
        self.reading = reading
        self.clock = clock
        self.actors = actors or RayActors()
        self.closed = False
        self.worker: str | None = None
        self.handle: Any = None
        self.asked: _Asked | None = None
        self.got: tuple[float, FrameChunk | End | Failure] | None = None
        self.live = bool(reading.live)
        self.lost = 0
        self.late = 0
        self.quiet_until = 0.0

    @property
    def pending(self) -> Future[FrameChunk | End | Failure | NotYet] | None:
        return self.asked.answer if self.asked else None

    def use(self, worker: str | None) -> None:
        if worker != self.worker:
            self._close_there()
            self.worker, self.handle, self.asked = worker, None, None

    def ready(self, start_s: float, wall_s: float | None = None) -> bool:
        if self.got and _same(self.got[0], start_s):
            return True
        self.live = self.live or wall_s is not None
        if self.asked is None or not _same(self.asked.start_s, start_s):
            self._ask(start_s, wall_s)
        if self.asked is None:
            return False
        if self.asked.answer.done():
            self._receive(self.asked, wall_s)
        elif self.clock.monotonic() - self.asked.since > self._patience_s(start_s):
            self._give_up(start_s)
        return self.got is not None

    def read(self, start_s: float, wall_s: float | None = None) -> FrameChunk | End | Failure:
        while not self.ready(start_s, wall_s):
            self.clock.sleep(WAIT_S)
        assert self.got is not None
        _, read = self.got
        self.got = None
        if isinstance(read, FrameChunk):
            self.live = self.live or read.live
            self._ask(read.t1, read.wall1)
        return read

    def close(self) -> None:
        self.use(None)
        self.got, self.closed = None, True

    def _ask(self, start_s: float, wall_s: float | None) -> None:
        self.asked = None
        now = self.clock.monotonic()
        if self.worker is None or now < self.quiet_until:
            return
        try:
            self.handle = self.handle or self.actors.find(self.worker)
        except ValueError:  # not there yet, or no more
            self.quiet_until = now + RETRY_S
            return
        answer = self.handle.read.remote(self.reading, start_s, wall_s).future()
        self.asked = _Asked(start_s=start_s, answer=answer, since=now)

    def _receive(self, asked: _Asked, wall_s: float | None) -> None:
        self.asked = None
        try:
            read = asked.answer.result()
        except RayActorError as exc:
            self._lose(asked.start_s, exc)
            return
        self.lost = self.late = 0
        if isinstance(read, NotYet):
            self.live = True
            self.reading = replace(self.reading, live=True)  # nobody need ask its server again
            self._ask(asked.start_s, wall_s)
        else:
            self.got = (asked.start_s, read)

    def _patience_s(self, start_s: float) -> float:
        return LIVE_TIMEOUT_S if self.live else max(TIMEOUT_S, start_s)

    def _lose(self, start_s: float, exc: RayActorError) -> None:
        self.lost += 1
        self.handle = None
        self.quiet_until = self.clock.monotonic() + min(RETRY_MAX_S, RETRY_S * self.lost)
        if self.lost >= ATTEMPTS and not self.live and not isinstance(exc, ActorUnavailableError):
            reason = f"{self.lost} decoders in a row died on it at {start_s:g} s"
            self.got = (start_s, Failure(reason=reason))

    def _give_up(self, start_s: float) -> None:
        self.late += 1
        self.handle = self.asked = None
        if self.worker is not None:
            self.actors.kill(self.worker)
        if self.late > 1 and not self.live:
            limit_s = self._patience_s(start_s)
            reason = f"no picture within {limit_s:g} s, twice; it hangs at {start_s:g} s"
            self.got = (start_s, Failure(reason=reason))

    def _close_there(self) -> None:
        if self.worker is not None:
            with suppress(ValueError):
                self.actors.find(self.worker).close.remote(self.reading.job)


class RemoteDecoders:
    """All decoders of one tokenizer."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.all: list[RemoteDecoder] = []

    def of(self, job: Job) -> RemoteDecoder:
        decoder = RemoteDecoder(Reading.of(job), self.clock)
        self.all = [*(kept for kept in self.all if not kept.closed), decoder]
        return decoder

    def wait(self) -> None:
        """Until one of them has something, or a moment."""
        pending = [decoder.pending for decoder in self.all if decoder.pending is not None]
        if pending:
            wait_for(pending, timeout=WAIT_S, return_when=FIRST_COMPLETED)
        else:
            self.clock.sleep(WAIT_S)


def _same(a: float, b: float) -> bool:
    return abs(a - b) < 1e-6
