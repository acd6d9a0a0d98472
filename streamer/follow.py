"""One subscriber's place in a job's events, over as many connections as it takes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import get_args

import httpx

from streamer.adapters.clock import Clock
from streamer.errors import ServiceError, WireError
from streamer.events import Event, EventKind, event_id, parse_event_id
from streamer.problem import refusal, unreachable
from streamer.sse import Message, MessageParser
from streamer.views import reader

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
"""Between two connections, unless the server asks for longer."""
LONGEST_ASKED_S = 300.0
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers that say: not now."""


class Subscription:
    """The events of one job behind `after`, each once, to the last.

    A lost connection is made again for ever. Only the first one is waited for no longer than
    `timeout_s`; a connection that is silent for twice as long counts as lost.
    Raises ServiceError where the job is unknown or the service refuses.
    """

    def __init__(
        self,
        http: httpx.Client,
        path: str,
        *,
        after: tuple[int, int] | None,
        url: str,
        timeout_s: float,
        clock: Clock,
    ) -> None:
        """url: the service's, for people."""
        self._http = http
        self._path = path
        self._seen = after
        self._url = url
        self._timeout = httpx.Timeout(timeout_s, read=2 * timeout_s)
        self._clock = clock
        self._jitter = random.Random()
        self._read = reader(Event)
        self._patient_until: float | None = clock.monotonic() + timeout_s
        self._least_s = self._delay_s = FIRST_DELAY_S
        self._ended = False

    def __iter__(self) -> Iterator[Event]:
        while not self._ended:
            try:
                for message in self._connection():
                    yield from self._event(message)
            except (httpx.RequestError, httpx.HTTPStatusError) as exc:
                if self._patient_until and self._clock.monotonic() >= self._patient_until:
                    raise unreachable(exc, self._url) from exc
            except WireError as exc:
                raise ServiceError(
                    f"the service at {self._url} sent an event that cannot be read: {exc}"
                ) from exc
            if not self._ended:
                self._clock.sleep(self._delay_s * self._jitter.uniform(1.0, 1.5))
                self._delay_s = min(2 * self._delay_s, max(LONGEST_DELAY_S, self._least_s))

    def _connection(self) -> Iterator[Message]:
        """The messages of one connection, until it is lost or the last one was given."""
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if self._seen:
            headers["Last-Event-ID"] = event_id(*self._seen)
        with self._http.stream(
            "GET", self._path, headers=headers, timeout=self._timeout
        ) as response:
            self._admit(response)
            parser = MessageParser()
            for chunk in response.iter_bytes():
                for message in parser.feed(chunk):
                    if message.event == "end":
                        self._ended = True
                        return
                    yield message
                if parser.retry_ms is not None:
                    self._least_s = min(parser.retry_ms / 1e3, LONGEST_ASKED_S)
                self._delay_s = self._least_s

    def _admit(self, response: httpx.Response) -> None:
        status = response.status_code
        if status == httpx.codes.NO_CONTENT:
            self._ended = True
            return
        kind = response.headers.get("content-type", "").partition(";")[0].strip()
        if status == httpx.codes.OK and kind == "text/event-stream":
            self._patient_until = None
            return
        response.read()
        if status in PASSING:
            response.raise_for_status()
        raise refusal(response, self._url)

    def _event(self, message: Message) -> Iterator[Event]:
        """The event of a message, unless it was given before; other messages are not for us."""
        if message.event in get_args(EventKind):
            event = self._read(message.data)
            place = parse_event_id(event.id)
            if self._seen is None or place > self._seen:
                self._seen = place
                yield event
