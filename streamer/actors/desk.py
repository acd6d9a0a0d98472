"""The desk of a captioner: single questions taken from the asks, answered from stored tokens.

A context of its own is read for each, a part at a time, so that captions never wait for a long one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import structlog

from streamer.adapters.asks import AskRequest, Asks, Refused, Reply
from streamer.adapters.clock import Clock
from streamer.adapters.queue import Queue
from streamer.archive import archived_as
from streamer.config import MOST_CONTEXT
from streamer.core.pipeline import build_pipeline
from streamer.errors import ArchiveError, QueueError, StreamerError, StreamGone, WireError
from streamer.jobs import Job, read_job
from streamer.language.decoding import Answer, Ask
from streamer.language.session import Session, read
from streamer.model import VideoModel, first_line
from streamer.spans import ContextLength, Excerpt, Older, SpanRefused, excerpt_now, excerpt_of
from streamer.wire import TokenChunk

LOOK_S = 0.15
"""How often asks are looked for."""
TELL_S = 0.1
"""How often an answer in the making is told."""
MOST_OPEN = 4
"""Contexts at a time; the others wait for another captioner, or their turn."""
PREFILL = 2048
"""Tokens read before captions have their turn again."""

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    """What an ask is answered from."""

    job: Job
    excerpt: Excerpt
    max_new_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fetching:
    """An ask for which that is being fetched."""

    request: AskRequest
    began: float
    found: Future[_Found]


@dataclass(slots=True, kw_only=True, eq=False)
class _Open:
    """An ask at this desk."""

    request: AskRequest
    began: float
    max_new_tokens: int
    session: Session
    excerpt: Excerpt
    unread: deque[TokenChunk]
    told: int = 0
    told_at: float | None = None


class AskDesk:
    """Of one captioner; not shared between threads.

    An error of the queue ends nothing here: an ask is told again, or taken over by another desk.
    """

    def __init__(
        self,
        name: str,
        asks: Asks,
        queue: Queue,
        model: VideoModel,
        clock: Clock,
        *,
        max_new_tokens: int,
        older: Older | None = None,
        executor: Executor | None = None,
    ) -> None:
        """name: the worker's. max_new_tokens: most of an answer. older: what left the queue, given
        a job's name in the archive.

        executor: fetches what is to be read, so that captions do not wait for that; None fetches
        it at once.
        """
        self.name = name
        self.asks = asks
        self.queue = queue
        self.model = model
        self.clock = clock
        self.max_new_tokens = max_new_tokens
        self.older = older
        self.executor = executor or _AtOnce()
        known = int(model.model.config.text_config.max_position_embeddings)
        self.limit = min(known, MOST_CONTEXT)
        self._fetching: dict[str, _Fetching] = {}
        self._open: dict[str, _Open] = {}
        self._reading: deque[str] = deque()
        self._ended: dict[str, Reply] = {}
        """Last replies that are not told yet."""
        self._looked_at: float | None = None

    @property
    def busy(self) -> bool:
        """Whether contexts are to be read, so that `take` should be called again soon."""
        fetched = any(one.found.done() for one in self._fetching.values())
        return fetched or bool(self._reading)

    def take(self, *, room: int) -> Mapping[str, Ask]:
        """At most `room` questions whose contexts have been read; does some of that reading."""
        now = self.clock.monotonic()
        if self._looked_at is None or now - self._looked_at >= LOOK_S:
            self._looked_at = now
            held = len(self._fetching) + len(self._open)
            self._look(min(room - len(self._fetching) - len(self._reading), MOST_OPEN - held))
        for key in [key for key, one in self._fetching.items() if one.found.done()]:
            self._begin(self._fetching.pop(key))
        ready: dict[str, Ask] = {}
        left = PREFILL
        while self._reading and left > 0 and len(ready) < room:
            key = self._reading[0]
            tokens = self._read(self._open[key], most=left)
            if tokens is None:
                self._reading.popleft()
                continue
            left -= tokens
            if not self._open[key].unread:
                self._reading.popleft()
                ready[key] = self._ask(self._open[key])
        return ready

    def told(self, key: str, text: str) -> None:
        """All that an answer says so far."""
        ask, now = self._open.get(key), self.clock.monotonic()
        if ask is None or (ask.told_at is not None and now - ask.told_at < TELL_S):
            return
        ask.told, ask.told_at = ask.told + 1, now
        try:
            self.asks.tell(key, Reply(n=ask.told, text=text))
        except QueueError as exc:  # the next one says more
            log.warning("queue_lost", worker=self.name, reason=str(exc))

    def hear(self, key: str, answer: Answer) -> None:
        """The whole answer."""
        ask = self._open.pop(key, None)
        if ask is None:
            return
        excerpt = ask.excerpt
        first, last = excerpt.first, excerpt.last
        live = first.live and last.live
        self._end(
            key,
            Reply(
                n=ask.told + 1,
                text=answer.text,
                done=True,
                t0=first.t0,
                t1=last.t1,
                chunk0=first.number,
                chunk1=last.number,
                wall0=first.wall0 if live else None,
                wall1=last.wall1 if live else None,
                visual_tokens=excerpt.tokens,
                dense_tokens=excerpt.dense_tokens,
                input_tokens=answer.input_tokens,
                output_tokens=answer.output_tokens,
                latency_ms=round((self.clock.monotonic() - ask.began) * 1e3, 2),
            ),
        )

    def fail(self, key: str, reason: str) -> None:
        """It cannot be answered; the reason is one sentence."""
        self._refuse(key, reason, "failed")

    def _look(self, most: int) -> None:
        try:
            self._tell_ends()
            if held := self._fetching.keys() | self._open.keys():
                self._forget(held - self.asks.wanted(list(held)))
            for request in self.asks.take(self.name, count=max(0, most)):
                self._fetching[request.id] = _Fetching(
                    request=request,
                    began=self.clock.monotonic(),
                    found=self.executor.submit(self._fetch, request),
                )
        except QueueError as exc:
            log.warning("queue_lost", worker=self.name, reason=str(exc))

    def _fetch(self, request: AskRequest) -> _Found:
        """What is to be read; in another thread. Raises StreamerError."""
        record = self.queue.job(request.job)
        if record is None:
            raise StreamGone(f"job {request.job} was deleted")
        job = read_job(request.job, record)
        question = self.model.layout.question(request.prompt, 0)
        most = min(request.max_new_tokens or self.max_new_tokens, self.max_new_tokens)
        length = ContextLength(self.model.layout, limit=self.limit, reserve=len(question) + most)
        if request.t0 is None and request.t1 is None:
            excerpt = excerpt_now(self.queue, job.id, length=length)
        else:
            t0 = 0.0 if request.t0 is None else request.t0
            t1 = math.inf if request.t1 is None else request.t1
            older = self._older_of(job)
            excerpt = excerpt_of(self.queue, job.id, t0, t1, length=length, older=older)
        return _Found(job=job, excerpt=excerpt, max_new_tokens=most)

    def _older_of(self, job: Job) -> Older | None:
        """What left the queue of this job, and of none that had its id before."""
        if self.older is None:
            return None
        older, name = self.older, archived_as(job.id, job.created_at)
        return lambda _, t0, t1: older(name, t0, t1)

    def _begin(self, fetched: _Fetching) -> None:
        key = fetched.request.id
        try:
            found = fetched.found.result()
            session = Session(self.model, build_pipeline(found.job.settings.pipeline))
        except SpanRefused as exc:
            self._refuse(key, str(exc), exc.why)
        except StreamGone:
            self._refuse(key, f"job {fetched.request.job} was deleted", "gone")
        except (QueueError, ArchiveError) as exc:  # its sentence is for who runs the service
            log.warning("ask_failed", ask=key, reason=str(exc))
            self._refuse(key, "what is stored cannot be read just now; try again", "failed")
        except StreamerError as exc:
            self._refuse(key, str(exc), "failed")
        except Exception as exc:  # noqa: BLE001  # see _crash
            self._crash(fetched.request, exc)
        else:
            self._open[key] = _Open(
                request=fetched.request,
                began=fetched.began,
                max_new_tokens=found.max_new_tokens,
                session=session,
                excerpt=found.excerpt,
                unread=deque(found.excerpt.chunks),
            )
            self._reading.append(key)

    def _read(self, ask: _Open, *, most: int) -> int | None:
        """Reads at most about `most` tokens of its context; how many, None if that failed."""
        tokens = 0
        try:
            while ask.unread and tokens < most:
                chunk = ask.unread.popleft()
                head = chunk.head
                ask.session.append(chunk, where=f"job {head.job} chunk {head.number}")
                tokens += max(1, head.tokens)
            read([ask.session])
        except WireError as exc:
            self._refuse(ask.request.id, str(exc), "failed")
            return None
        except Exception as exc:  # noqa: BLE001  # see _crash; lack of memory, e.g.
            self._crash(ask.request, exc)
            return None
        return tokens

    def _ask(self, ask: _Open) -> Ask:
        return Ask(
            session=ask.session, prompt=ask.request.prompt, max_new_tokens=ask.max_new_tokens
        )

    def _refuse(self, key: str, reason: str, refused: Refused) -> None:
        ask = self._open.pop(key, None)
        told = ask.told if ask else 0
        self._end(key, Reply(n=told + 1, done=True, error=reason, refused=refused))

    def _crash(self, request: AskRequest, exc: Exception) -> None:
        """What nobody foresaw is this ask's own affair; captions go on."""
        log.error("ask_crashed", ask=request.id, job=request.job, exc_info=exc)
        self._refuse(request.id, f"an internal error: {first_line(exc)}", "failed")

    def _end(self, key: str, last: Reply) -> None:
        self._ended[key] = last
        try:
            self._tell_ends()
        except QueueError as exc:  # told at the next look
            log.warning("queue_lost", worker=self.name, reason=str(exc))

    def _tell_ends(self) -> None:
        for key, last in list(self._ended.items()):
            self.asks.tell(key, last)
            self.asks.done(key)
            del self._ended[key]

    def _forget(self, keys: set[str]) -> None:
        """Nobody waits for these any more; what is under way ends by itself, unheard."""
        for key in keys:
            self.asks.done(key)
            if (fetching := self._fetching.pop(key, None)) is not None:
                fetching.found.cancel()
            self._open.pop(key, None)
        self._reading = deque(key for key in self._reading if key in self._open)


class _AtOnce(Executor):
    """No thread at all."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as exc:  # noqa: BLE001  # raised again by whoever takes the result
            future.set_exception(exc)
        return future
