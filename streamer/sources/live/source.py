"""Live source: chunks of what goes on unread, through every loss of its connection."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from streamer.adapters.clock import SYSTEM_CLOCK, Clock
from streamer.sources.guard import FetchPolicy
from streamer.sources.info import Limits
from streamer.sources.live.backoff import Backoff
from streamer.sources.live.cutter import Cutter
from streamer.sources.live.messages import Message
from streamer.sources.live.process import DecodingProcess
from streamer.sources.live.sampling import HOLD_S
from streamer.sources.live.shelf import Shelf
from streamer.sources.live.task import Task
from streamer.sources.live.timeline import Anchor
from streamer.sources.url import redact
from streamer.types import FrameChunk
from streamer.workers import SourceState

Start = Callable[[Task, Clock, Callable[[DecodingProcess, Message | None], None]], DecodingProcess]

_WATCH_S = 0.2
_STEADY_S = 5.0  # a connection that held for so long was a good one
_MEASURE_S = 1.0
_PATIENCE_S = 30.0  # before a process is replaced again
_MOST_SLACK_S = 60.0
_JOIN_S = 2.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """How a live source is held on to; see `streamer.config.LiveSettings`."""

    stall_s: float = 10.0
    retry_s: float = 0.5
    retry_max_s: float = 30.0
    recycle_s: float = 6 * 3600.0
    recycle_bytes: int = 1 << 30
    buffer_bytes: int = 128 << 20


class LiveSource:
    """A live source that is connected to, again and again, until it is closed.

    Safe to call from several threads. A thread of its own watches the process that decodes: one
    without pictures for too long is killed, an old or large one is replaced: by one that has its
    first picture before the other goes, unless the server takes one viewer at a time.
    """

    def __init__(
        self,
        url: str,
        *,
        fps: float,
        chunk_s: float,
        behind_s: float,
        limits: Limits,
        policy: FetchPolicy,
        options: LiveOptions,
        start_s: float = 0.0,
        start_wall: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
        start: Start = DecodingProcess,
    ) -> None:
        """Starts at once. start_s, start_wall: where an earlier reader got to, in media and in Unix
        seconds; media time goes on from there by the clock. start: makes the processes."""
        self._url = url
        self._shown = redact(url)
        self._options = options
        self._clock = clock
        self._start = start
        self._task = Task(url=url, fps=fps, limits=limits, policy=policy)
        self._overlaps = True
        self._changed = threading.Condition()
        self._cutter = Cutter(
            fps=fps,
            chunk_s=chunk_s,
            start_s=start_s,
            resize=_resized,
            reason=f"{self._shown}: its reader was replaced",
        )
        self._shelf = Shelf(most_bytes=options.buffer_bytes, most_s=behind_s, start_s=start_s)
        self._anchor: Anchor | None = None
        if start_s > 0:
            unix = clock.now() if start_wall is None else start_wall
            arrival = unix - clock.now() + clock.monotonic()
            epoch = arrival - start_s
            self._anchor = Anchor(t=start_s, arrival=arrival, epoch=epoch, steady=epoch)
        self._place: str | None = None
        self._current: DecodingProcess | None = None
        self._next: DecodingProcess | None = None
        self._backoff = Backoff(first_s=options.retry_s, most_s=options.retry_max_s)
        self._retry_at = self._recycle_at = self._measured_at = clock.monotonic()
        self._rss_bytes = 0
        self._connected_at: float | None = None
        self._lost_at: float | None = None
        self._connections, self._proven = 0, start_s > 0
        self._reason: str | None = f"{self._shown}: not connected yet"
        self._failure: str | None = None
        self._over = self._closed = False
        self._thread = threading.Thread(target=self._watch, name="live watch", daemon=True)
        self._thread.start()

    def chunk(self, start_s: float, *, wait_s: float) -> FrameChunk | None:
        """The first chunk that ends behind `start_s`; None when there is none within `wait_s`.

        Where it begins later, its `hole` says why. Chunks that end before `start_s` are forgotten.
        """
        with self._changed:
            found = self._shelf.take(start_s)
            if found is None:
                self._changed.wait_for(
                    lambda: self._shelf.holds(start_s) or self._idle, timeout=wait_s
                )
                found = self._shelf.take(start_s)
            if found is None:
                return None
            return dataclasses.replace(found, newest_s=max(found.t1, self._cutter.newest_s))

    @property
    def ended(self) -> bool:
        """Whether the source said that it is over; `chunk` still gives what is left."""
        return self._over

    @property
    def failure(self) -> str | None:
        """Why it can never work."""
        return self._failure

    @property
    def state(self) -> SourceState:
        with self._changed:
            process = self._current
            return SourceState(
                connected=self._connected_at is not None,
                reconnects=max(0, self._connections - 1),
                reason=self._reason,
                pid=0 if process is None else process.pid,
                rss_bytes=0 if process is None else self._rss_bytes,
            )

    def close(self) -> None:
        """Ends its process; what waits to be taken is gone."""
        with self._changed:
            self._closed = True
            processes = [p for p in (self._current, self._next) if p is not None]
            self._current = self._next = None
            self._changed.notify_all()
        for process in processes:
            process.close()
        self._thread.join(_JOIN_S)

    @property
    def _idle(self) -> bool:
        """Whether nothing will come any more."""
        return self._closed or self._over or self._failure is not None

    def _watch(self) -> None:
        with self._changed:
            while not self._idle:
                try:
                    self._tend(self._clock.monotonic())
                except Exception:  # whatever goes wrong once, it is held on to
                    log.exception("live_watch_failed", source=self._shown)
                self._changed.wait(_WATCH_S)

    def _tend(self, now: float) -> None:
        if self._lost_at is not None and now - self._lost_at > HOLD_S:
            self._put(self._cutter.flush(epoch=self._unix_epoch))
            self._lost_at = None
        if self._current is None:
            if now >= self._retry_at:
                self._connect()
            return
        if self._is_stalled(self._current, now):
            self._current.kill()
            self._lose(f"{self._shown}: no picture came for {self._options.stall_s:g} s")
        elif self._next is None:
            self._recycle(self._current, now)
        elif self._is_stalled(self._next, now):
            self._next.kill()
            self._spare()

    def _is_stalled(self, process: DecodingProcess, now: float) -> bool:
        if process.seen_at is None:
            return now - process.started_at > self._options.stall_s + self._task.limits.connect_s
        slack_s = 0.0 if self._anchor is None else min(self._anchor.burst_s, _MOST_SLACK_S)
        return now - process.seen_at > self._options.stall_s + slack_s

    def _recycle(self, process: DecodingProcess, now: float) -> None:
        """Replaces a process that is old or large."""
        if now - self._measured_at > _MEASURE_S:
            self._measured_at, self._rss_bytes = now, process.rss_bytes
        if process.began_at is None:
            return
        age_s = now - process.began_at
        large = self._rss_bytes > self._options.recycle_bytes and age_s > _PATIENCE_S
        due = large or age_s > self._options.recycle_s
        if not due or now < self._recycle_at:
            return
        log.info("decoder_recycled", source=self._shown, age_s=age_s, rss_bytes=self._rss_bytes)
        if self._overlaps:
            self._next = self._begin()
        else:
            process.kill()
            self._connect()

    def _connect(self) -> None:
        self._current = self._begin()
        if self._current is None:
            self._lose(f"{self._shown}: no process can be started; check the machine's limits")

    def _begin(self) -> DecodingProcess | None:
        task = dataclasses.replace(self._task, anchor=self._anchor, place=self._place)
        try:
            return self._start(task, self._clock, self._take)
        except (OSError, RuntimeError) as exc:  # no more processes, or threads
            log.error("decoder_not_started", source=self._shown, reason=str(exc))
            self._recycle_at = self._clock.monotonic() + _PATIENCE_S
            return None

    def _take(self, process: DecodingProcess, message: Message | None) -> None:
        """Called by the threads of the processes."""
        with self._changed:
            if self._idle or process not in (self._current, self._next):
                return
            if message is None:
                self._ended(process, process.end or "")
            elif message.kind == "over":
                self._finish()
            elif message.kind == "never" and not self._proven:
                self._failure = message.reason
                self._stop(message.reason)
            elif message.kind in {"lost", "never"}:
                self._ended(process, message.reason)
            elif process is self._current:
                self._see(message)
            elif message.picture is not None and self._current is not None:
                self._current.kill()
                self._current, self._next, self._overlaps = self._next, None, True
                self._see(message)

    def _ended(self, process: DecodingProcess, reason: str) -> None:
        process.kill()
        if process is self._next:
            self._spare()
        else:
            self._lose(reason)

    def _spare(self) -> None:
        """There is no successor; perhaps because the server takes one viewer at a time."""
        self._next, self._overlaps = None, False
        self._recycle_at = self._clock.monotonic() + _PATIENCE_S

    def _lose(self, reason: str) -> None:
        now = self._clock.monotonic()
        steady_s = 0.0 if self._connected_at is None else now - self._connected_at
        if steady_s > _STEADY_S:
            self._backoff.succeeded()
        if self._connected_at is not None:
            self._lost_at = now
            self._cutter.reason = reason
        log.warning("source_lost", source=self._shown, reason=reason)
        self._connected_at, self._reason = None, reason
        self._current, self._next = self._next, None
        self._retry_at = now + self._backoff.failed()

    def _see(self, message: Message) -> None:
        if self._connected_at is None:
            self._connected_at, self._lost_at = self._clock.monotonic(), None
            self._connections, self._proven = self._connections + 1, True
            self._reason = None
            log.info("source_connected", source=self._shown, connections=self._connections)
        if message.anchor is not None:
            self._anchor = message.anchor
        self._place = message.place
        if message.picture is not None:
            self._put(
                self._cutter.push(
                    message.slot,
                    message.count,
                    message.picture,
                    epoch=self._unix_epoch,
                    cost_ms=message.cost_ms,
                )
            )

    def _finish(self) -> None:
        self._put(self._cutter.flush(epoch=self._unix_epoch))
        self._over = True
        self._stop(f"{self._shown}: the source has ended")

    def _stop(self, reason: str) -> None:
        for process in (self._current, self._next):
            if process is not None:
                process.kill()
        self._current = self._next = self._connected_at = None
        self._reason = reason
        self._changed.notify_all()

    def _put(self, chunks: Iterator[FrameChunk]) -> None:
        for chunk in chunks:
            self._shelf.put(chunk)
            self._changed.notify_all()

    @property
    def _unix_epoch(self) -> float:
        """Unix time at media time 0."""
        epoch = 0.0 if self._anchor is None else self._anchor.epoch
        return epoch + self._clock.now() - self._clock.monotonic()


def _resized(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    import av  # only where pictures change their size

    frame: Any = av.VideoFrame.from_ndarray(picture, format="rgb24")
    image: NDArray[np.uint8] = frame.reformat(width=width, height=height).to_ndarray()
    return image
