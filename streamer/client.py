"""A running service from Python: jobs, their events, its workers.

with Client("http://127.0.0.1:8000") as client:
    job = client.submit("https://example.com/video.mp4", questions="What moves?")
    for event in client.events(job.id):
        print(event.text)
"""

from __future__ import annotations

import json
import os
import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import httpx

from streamer.adapters.clock import SYSTEM_CLOCK, Clock
from streamer.errors import ConfigError, ServiceError, WireError
from streamer.events import Event, parse_event_id
from streamer.follow import Subscription
from streamer.jobs import JobState, Question, When
from streamer.problem import refusal, unreachable
from streamer.views import Answer, JobPage, JobView, Status, reader

DEFAULT_URL = "http://127.0.0.1:8000"
PAGE = 100
"""Jobs asked for at once."""
PAUSES_S = (0.1, 0.4)
"""Before a request whose connection was lost is sent again."""
ANSWER_S = 3600.0
"""Longest wait for an answer; the service gives up earlier, by its own setting."""
JSON = "application/json"
LIKE = "it looks like http://127.0.0.1:8000"

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

Sizing = int | tuple[int, int]
Format = Literal["json", "vtt", "srt"]
T = TypeVar("T")


class Client:
    """A connection to a service; a context manager. Safe to share between threads.

    A request whose connection is lost is sent again where that cannot do anything twice.
    Every method raises ServiceError when the service cannot be reached or refuses, in one sentence.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """timeout_s: longest wait for an answer; an event stream may be silent for twice as long.

        Raises ConfigError for a URL or a token that cannot be one.
        """
        base = _base(url)
        headers = {"Accept": JSON}
        if token is not None:
            headers["Authorization"] = f"Bearer {_header(token, 'the token')}"
        self.url = str(base.copy_with(userinfo=b""))
        """Without credentials."""
        self._timeout_s = timeout_s
        self._clock = clock
        self._jitter = random.Random()
        self._http = httpx.Client(
            base_url=base,
            headers=headers,
            timeout=timeout_s,
            transport=transport,
            trust_env=base.host not in _LOOPBACK,  # no proxy stands before one's own machine
        )

    @classmethod
    def from_environment(cls) -> Self:
        """The service that STREAMER_URL and STREAMER_TOKEN name."""
        url = os.environ.get("STREAMER_URL") or DEFAULT_URL
        return cls(url, token=os.environ.get("STREAMER_TOKEN") or None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(
        self,
        url: str,
        *,
        questions: str | Sequence[str | Question] | None = None,
        when: When | None = None,
        live: bool | None = None,
        fps: float | None = None,
        chunk_s: float | None = None,
        pipeline: Sequence[Mapping[str, Any]] | None = None,
        keyframes: Mapping[str, float] | None = None,
        idempotency_key: str | None = None,
    ) -> JobView:
        """Makes a job; what is not given is the service's default.

        questions: [] asks nothing, and the job may be asked about at any time.
        when: about every chunk, or only when what is seen changes; of questions that are given as
        text, and of the service's own.
        live: whether its source goes on unread; found out if not given.
        idempotency_key: the same key again gives the job that it has made already.
        """
        own = [{"id": "default"} | _when(when)] if _when(when) else None
        asked = [questions] if isinstance(questions, str) else questions
        body = {
            "source": {"url": url} | ({} if live is None else {"live": live}),
            "questions": own if asked is None else [_question(one, when) for one in asked],
            "fps": fps,
            "chunk_s": chunk_s,
            "pipeline": None if pipeline is None else list(pipeline),
            "keyframes": None if keyframes is None else dict(keyframes),
        }
        key = _header(idempotency_key or uuid.uuid4().hex, "the idempotency key")
        return self._read(
            JobView,
            self._ask(
                "POST",
                "/v1/jobs",
                body={name: value for name, value in body.items() if value is not None},
                headers={"Idempotency-Key": key},
            ),
        )

    def jobs(self, state: JobState | None = None) -> Iterator[JobView]:
        """All jobs, or those in one state."""
        known = {"limit": str(PAGE)} | ({} if state is None else {"state": state})
        page = JobPage(next="")
        while page.next is not None:
            params = known | ({"after": page.next} if page.next else {})
            page = self._read(JobPage, self._ask("GET", "/v1/jobs", params=params))
            yield from page.jobs

    def job(self, job_id: str) -> JobView:
        return self._read(JobView, self._ask("GET", _path(job_id)))

    def cancel(self, job_id: str) -> None:
        """Ends the job, if it runs, and deletes what it has said."""
        self._ask("DELETE", _path(job_id))

    def pause(self, job_id: str) -> JobView:
        return self._read(JobView, self._ask("POST", _path(job_id, "pause")))

    def resume(self, job_id: str) -> JobView:
        return self._read(JobView, self._ask("POST", _path(job_id, "resume")))

    def keyframe(self, job_id: str) -> None:
        """Asks for an I-chunk, with which a new group begins."""
        self._ask("POST", _path(job_id, "keyframe"), repeat=False)

    def ask(
        self, job_id: str, prompt: str, t0: float | None = None, t1: float | None = None
    ) -> Answer:
        """The answer to a question about now, or about a span of media time.

        It is read from what is stored, and waited for as long as the service does.
        """
        asked = {"prompt": prompt, "t0": t0, "t1": t1}
        body = {name: value for name, value in asked.items() if value is not None}
        answer = self._ask(
            "POST", _path(job_id, "ask"), body=body, repeat=False, timeout_s=ANSWER_S
        )
        return self._read(Answer, answer)

    def export(
        self,
        job_id: str,
        format: Format,
        *,
        t0: float | None = None,
        t1: float | None = None,
        question: str | None = None,
    ) -> Iterator[bytes]:
        """What was said so far, or from t0 to t1, as the bytes of a file, piece by piece."""
        span = {"from": t0, "to": t1, "question": question}
        params = {name: str(value) for name, value in span.items() if value is not None}
        path = _path(job_id, f"captions.{format}")
        try:
            with self._http.stream("GET", path, params=params) as response:
                if not response.is_success:
                    response.read()
                    raise refusal(response, self.url)
                yield from response.iter_bytes()
        except httpx.RequestError as exc:
            raise unreachable(exc, self.url) from exc

    def add_question(
        self,
        job_id: str,
        prompt: str,
        question: str | None = None,
        *,
        when: When | None = None,
    ) -> Question:
        """Asks it about the chunks that are not captioned yet.

        question: its id, by which events name it; given by the service if not by you.
        when: about every chunk, or only when what is seen changes.
        """
        asked = {"prompt": prompt} | ({} if question is None else {"id": question}) | _when(when)
        answer = self._ask("POST", _path(job_id, "questions"), body=asked, repeat=False)
        return self._read(Question, answer)

    def remove_question(self, job_id: str, question: str) -> None:
        self._ask("DELETE", _path(job_id, "questions", question))

    def status(self) -> Status:
        """How many jobs there are and may be, and the workers."""
        return self._read(Status, self._ask("GET", "/v1/workers"))

    def scale(
        self,
        *,
        decode: Sizing | None = None,
        tokenize: Sizing | None = None,
        caption: Sizing | None = None,
    ) -> None:
        """Sets pools to a number of workers, or to (min, max) of them; others stay as they are."""
        sizes = {"decode": decode, "tokenize": tokenize, "caption": caption}
        body = {
            kind: size if isinstance(size, int) else {"min": size[0], "max": size[1]}
            for kind, size in sizes.items()
            if size is not None
        }
        self._ask("PATCH", "/v1/pools", body=body)

    def events(self, job_id: str, *, after: str | None = None) -> Iterator[Event]:
        """Every event of a job behind `after`, or from the first, each once, as it comes.

        A lost connection is made again for ever; the first one is waited for no longer than the
        timeout. Raises WireError for an `after` that is no event id.
        """
        place = None if after is None else parse_event_id(after)
        return iter(
            Subscription(
                self._http,
                _path(job_id, "events"),
                after=place,
                url=self.url,
                timeout_s=self._timeout_s,
                clock=self._clock,
            )
        )

    def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        repeat: bool = True,
        timeout_s: float | None = None,
    ) -> bytes:
        """The answer's body.

        repeat: the request may be sent again when it is not known whether it arrived.
        timeout_s: longest wait, where it is not the usual one.
        """
        patience = httpx.Timeout(self._timeout_s, read=timeout_s or self._timeout_s)
        content = None if body is None else _json(body)
        given = dict(headers or {}) | ({} if content is None else {"Content-Type": JSON})
        before = False
        for pause_s in (*PAUSES_S, None):
            try:
                response = self._http.request(
                    method, path, content=content, params=params, headers=given, timeout=patience
                )
            except httpx.RequestError as exc:
                arrived = not isinstance(exc, httpx.ConnectError)
                if pause_s is None or isinstance(exc, httpx.TimeoutException):
                    raise unreachable(exc, self.url) from exc
                if arrived and not repeat:
                    raise unreachable(exc, self.url) from exc
                before = before or arrived
                self._clock.sleep(pause_s * self._jitter.uniform(0.5, 1.0))
                continue
            if response.is_success:
                return response.content
            if before and method == "DELETE" and response.status_code == httpx.codes.NOT_FOUND:
                return b""  # the first request did it
            raise refusal(response, self.url)
        raise AssertionError("the last attempt returns or raises")

    def _read(self, cls: type[T], body: bytes) -> T:
        try:
            return reader(cls)(body)
        except WireError as exc:
            raise ServiceError(
                f"the service at {self.url} sent what cannot be read: {exc}"
            ) from exc


def _base(url: str) -> httpx.URL:
    try:
        base = httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise ConfigError(f"the service's URL cannot be read: {exc}; {LIKE}") from exc
    if base.scheme not in ("http", "https") or not base.host:
        raise ConfigError(f"the service's URL has no http(s) address: {LIKE}")
    return base


def _header(value: str, what: str) -> str:
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigError(f"{what} must be letters, digits and signs of ASCII, without spaces")
    return value


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"what is asked for cannot be written as JSON: {exc}") from exc


def _path(job_id: str, *below: str) -> str:
    return "/".join(["/v1/jobs", *(quote(part, safe="") for part in (job_id, *below))])


def _question(asked: str | Question, when: When | None) -> dict[str, str]:
    if isinstance(asked, str):
        return {"prompt": asked} | _when(when)
    return {"id": asked.id, "prompt": asked.prompt} | _when(asked.when)


def _when(when: When | None) -> dict[str, str]:
    """Nothing where every service does it so."""
    return {} if when in (None, "every") else {"when": when}
