"""Decode workers on Ray as the tokenizers see them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import ray

from streamer.actors.decode import End, Failure, Reading
from streamer.actors.ray_cluster import NAMESPACE
from streamer.adapters.clock import Clock
from streamer.jobs import Job
from streamer.types import FrameChunk

TIMEOUT_S = 90.0
"""For a chunk; to come to one late in a source that cannot be entered midway may take longer."""
ATTEMPTS = 5
"""Workers that may be lost at one place of a source before its job fails."""
RETRY_S = 0.2
WAIT_S = 0.1


class RemoteDecoder:
    """A decode actor seen by one job's tokenizer: one chunk is always being decoded ahead.

    An actor that dies is asked again; one that gives no answer in time is killed, once.
    """

    def __init__(self, reading: Reading, clock: Clock) -> None:
        self.reading = reading
        self.clock = clock
        self.worker: str | None = None
        self.asked: tuple[float, Any, float] | None = None
        """Where from, the pending answer, and since when."""
        self.got: tuple[float, FrameChunk | End | Failure] | None = None
        self.lost = 0
        self.late = 0
        self.quiet_until = 0.0

    @property
    def pending(self) -> Any | None:
        return self.asked[1] if self.asked else None

    def use(self, worker: str | None) -> None:
        if worker != self.worker:
            self._close_there()
            self.worker, self.asked = worker, None

    def ready(self, start_s: float) -> bool:
        if self.got and _same(self.got[0], start_s):
            return True
        if self.asked is None or not _same(self.asked[0], start_s):
            self._ask(start_s)
        if self.asked is None:
            return False
        _, pending, since = self.asked
        try:
            self._receive(start_s, ray.get(pending, timeout=0))
        except ray.exceptions.GetTimeoutError:
            if self.clock.monotonic() - since > max(TIMEOUT_S, start_s):
                self._give_up(start_s)
        except ray.exceptions.RayActorError as exc:
            self._lose(start_s, exc)
        return self.got is not None

    def read(self, start_s: float) -> FrameChunk | End | Failure:
        while not self.ready(start_s):
            self.clock.sleep(WAIT_S)
        assert self.got is not None
        _, read = self.got
        self.got = None
        self.lost = self.late = 0
        if isinstance(read, FrameChunk):
            self._ask(read.t1)
        return read

    def close(self) -> None:
        self.use(None)
        self.got = None

    def _ask(self, start_s: float) -> None:
        self.asked = None
        now = self.clock.monotonic()
        if self.worker is None or now < self.quiet_until:
            return
        try:
            actor = ray.get_actor(self.worker, namespace=NAMESPACE)
        except ValueError:  # not there yet, or no more
            self.quiet_until = now + RETRY_S
            return
        self.asked = (start_s, actor.read.remote(self.reading, start_s), now)

    def _receive(self, start_s: float, read: FrameChunk | End | Failure) -> None:
        self.got, self.asked = (start_s, read), None

    def _lose(self, start_s: float, exc: Exception) -> None:
        self.lost += 1
        self.asked, self.quiet_until = None, self.clock.monotonic() + RETRY_S * self.lost
        if self.lost >= ATTEMPTS and not isinstance(exc, ray.exceptions.ActorUnavailableError):
            reason = f"{self.lost} decoders in a row died on it at {start_s:g} s"
            self._receive(start_s, Failure(reason=reason))

    def _give_up(self, start_s: float) -> None:
        self.late += 1
        self.asked = None
        with suppress(ValueError):
            ray.kill(ray.get_actor(self.worker, namespace=NAMESPACE), no_restart=False)
        if self.late > 1:
            limit_s = max(TIMEOUT_S, start_s)
            reason = f"no picture within {limit_s:g} s, twice; it hangs at {start_s:g} s"
            self._receive(start_s, Failure(reason=reason))

    def _close_there(self) -> None:
        if self.worker is not None:
            with suppress(ValueError):
                ray.get_actor(self.worker, namespace=NAMESPACE).close.remote(self.reading.job)


class RemoteDecoders:
    """All decoders of one tokenizer."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.all: list[RemoteDecoder] = []

    def of(self, job: Job) -> RemoteDecoder:
        decoder = RemoteDecoder(Reading.of(job), self.clock)
        self.all = [*(kept for kept in self.all if kept.worker is not None), decoder]
        return decoder

    def wait(self) -> None:
        """Until one of them has something, or a moment."""
        pending = [decoder.pending for decoder in self.all if decoder.pending is not None]
        if pending:
            ray.wait(pending, num_returns=1, timeout=WAIT_S)
        else:
            self.clock.sleep(WAIT_S)


def _same(a: float, b: float) -> bool:
    return abs(a - b) < 1e-6
