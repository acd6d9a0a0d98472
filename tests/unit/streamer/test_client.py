"""The client, on a service that is a function: requests, errors, events over lost connections."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamer
from streamer import Client, Event, Question, ServiceError
from streamer.adapters.clock import ManualClock
from streamer.client import DEFAULT_URL
from streamer.errors import ConfigError, WireError

JOB: dict[str, Any] = {
    "id": "cam",
    "state": "running",
    "url": "http://example.com/a.mp4",
    "created_at": "2026-01-02T03:04:05Z",
    "ended_at": None,
    "error": None,
    "questions": [{"id": "q1", "prompt": "What moves?"}],
    "fps": 2.0,
    "chunk_s": 2.0,
    "pipeline": [{"name": "rlt", "threshold": 0.1}],
    "lag_s": 1.5,
    "reconnects": 0,
    "chunks": 3,
    "captions": 3,
    "t1": 6.0,
    "patches": {"total": 480, "kept": 120},
    "tokens": {"dense": 120, "kept": 30},
    "workers": {"decode": "decode-0", "tokenize": "tokenize-0", "caption": None},
    "later": {"unknown": True},
}
WORKERS = {
    "fits": 30,
    "limit": 32,
    "active": 2,
    "pools": {
        "decode": {
            "min": 1,
            "max": 3,
            "workers": [
                {
                    "name": "decode-0",
                    "state": "ready",
                    "node": "10.0.0.5",
                    "pid": 41,
                    "backlog": 1,
                    "busy": 0.25,
                    "chunks": 9,
                    "rss_bytes": 1 << 28,
                    "jobs": ["cam"],
                }
            ],
        },
        "tokenize": {"min": 2, "max": 2, "workers": []},
    },
}

Answer = httpx.Response | Exception


@dataclass
class Service:
    """Answers in order, and remembers what it was asked."""

    answers: list[Answer]
    asked: list[httpx.Request] = field(default_factory=list)
    clock: ManualClock = field(default_factory=ManualClock)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, **more: Any) -> Client:
        return Client(transport=httpx.MockTransport(self), clock=self.clock, **more)

    def body(self, n: int = 0) -> Any:
        return json.loads(self.asked[n].content)


def ok(value: object, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=value)


def problem(status: int, **fields: Any) -> httpx.Response:
    return httpx.Response(status, json=fields, headers={"Content-Type": "application/problem+json"})


def test_a_job_is_submitted_once_however_often_it_is_sent() -> None:
    # Given a connection that is lost twice, and a service that may have got the request
    lost = httpx.ReadError("connection reset")
    service = Service([httpx.ConnectError("refused"), lost, ok(JOB, 201)])
    # When
    job = service.client().submit("http://example.com/a.mp4", questions="What moves?")
    # Then all three requests have one key and one body
    assert job.id == "cam"
    assert len({request.headers["Idempotency-Key"] for request in service.asked}) == 1
    assert [service.body(n) for n in range(3)] == [
        {"source": {"url": "http://example.com/a.mp4"}, "questions": [{"prompt": "What moves?"}]}
    ] * 3


def test_two_jobs_have_two_keys_unless_told() -> None:
    service = Service([ok(JOB)] * 4)
    client = service.client()
    client.submit("a")
    client.submit("a")
    client.submit("a", idempotency_key="mine")
    keys = [request.headers["Idempotency-Key"] for request in service.asked]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


def test_what_a_job_chooses_is_sent_and_nothing_else() -> None:
    service = Service([ok(JOB), ok(JOB)])
    client = service.client(token="secret")
    client.submit("a")
    client.submit(
        "a",
        questions=["What?", Question(id="who", prompt="Who?")],
        fps=4,
        chunk_s=1,
        pipeline=[],
        keyframes={"interval_s": 8},
    )
    assert service.body(0) == {"source": {"url": "a"}}
    assert service.body(1) == {
        "source": {"url": "a"},
        "questions": [{"prompt": "What?"}, {"id": "who", "prompt": "Who?"}],
        "fps": 4,
        "chunk_s": 1,
        "pipeline": [],
        "keyframes": {"interval_s": 8},
    }
    assert service.asked[0].headers["Authorization"] == "Bearer secret"


def test_when_to_ask_is_said_where_it_is_not_always() -> None:
    service = Service([ok(JOB)] * 5)
    client = service.client()
    client.submit("a", when="on_change")
    client.submit("a", questions="What?", when="on_change", live=True)
    client.submit("a", questions=[Question(id="who", prompt="Who?", when="on_change")])
    client.submit("a", questions=[])
    client.submit("a", when="every")
    asked = [service.body(n).get("questions") for n in range(5)]
    assert asked == [
        [{"id": "default", "when": "on_change"}],
        [{"prompt": "What?", "when": "on_change"}],
        [{"id": "who", "prompt": "Who?", "when": "on_change"}],
        [],
        None,
    ]
    assert service.body(1)["source"] == {"url": "a", "live": True}


def test_an_answer_is_waited_for_longer_than_anything_else() -> None:
    answer = {"text": "Two.", "t0": 2.0, "t1": 4.0, "visual_tokens": 30, "later": 1}
    service = Service([ok(answer), httpx.ReadError("reset")])
    client = service.client()
    said = client.ask("cam", "How many?", 2.5)
    assert (said.text, said.t0, said.t1, said.visual_tokens) == ("Two.", 2.0, 4.0, 30)
    assert service.body() == {"prompt": "How many?", "t0": 2.5}
    timeout = service.asked[0].extensions["timeout"]
    assert timeout["read"] >= 3600 > timeout["connect"]
    with pytest.raises(ServiceError, match="cannot be reached"):  # and is not asked for twice
        client.ask("cam", "How many?")


def test_an_export_comes_in_pieces() -> None:
    service = Service([httpx.Response(200, content=b"WEBVTT"), problem(404, detail="no job cam")])
    client = service.client()
    assert b"".join(client.export("cam", "vtt", t0=0, t1=9.5, question="q1")) == b"WEBVTT"
    assert dict(service.asked[0].url.params) == {"from": "0", "to": "9.5", "question": "q1"}
    with pytest.raises(ServiceError, match="no job cam"):
        list(client.export("cam", "vtt"))


def test_a_job_is_read_with_all_its_parts() -> None:
    service = Service([ok(JOB), ok({"id": "old", "state": "ended"})])
    job = service.client().job("cam")
    assert job.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert job.questions == (Question(id="q1", prompt="What moves?"),)
    assert (job.tokens.kept, job.tokens.dense, job.patches.total) == (30, 120, 480)
    assert (job.workers.decode, job.workers.caption) == ("decode-0", None)
    assert not job.finished
    assert service.client().job("old").finished


def test_pages_follow_each_other() -> None:
    jobs = [JOB | {"id": f"j{n}"} for n in range(5)]
    service = Service(
        [
            ok({"jobs": jobs[:2], "next": "c1"}),
            ok({"jobs": jobs[2:4], "next": "c2"}),
            ok({"jobs": jobs[4:], "next": None}),
        ]
    )
    found = service.client().jobs("running")
    assert [job.id for job in found] == ["j0", "j1", "j2", "j3", "j4"]
    assert [request.url.params.get("after") for request in service.asked] == [None, "c1", "c2"]
    assert {request.url.params["state"] for request in service.asked} == {"running"}


def test_status_and_scale() -> None:
    service = Service([ok(WORKERS), ok({})])
    client = service.client()
    status = client.status()
    assert (status.fits, status.limit, status.active) == (30, 32, 2)
    assert status.pools["decode"].workers[0].jobs == ("cam",)
    assert (status.pools["tokenize"].min, status.pools["tokenize"].workers) == (2, ())
    client.scale(tokenize=2, decode=(1, 3))
    assert service.asked[1].method == "PATCH"
    assert service.body(1) == {"tokenize": 2, "decode": {"min": 1, "max": 3}}


@pytest.mark.parametrize(
    ("act", "method", "path"),
    [
        (lambda c: c.job("a b"), "GET", "/v1/jobs/a%20b"),
        (lambda c: c.cancel("cam"), "DELETE", "/v1/jobs/cam"),
        (lambda c: c.pause("cam"), "POST", "/v1/jobs/cam/pause"),
        (lambda c: c.resume("cam"), "POST", "/v1/jobs/cam/resume"),
        (lambda c: c.keyframe("cam"), "POST", "/v1/jobs/cam/keyframe"),
        (lambda c: list(c.export("cam", "srt")), "GET", "/v1/jobs/cam/captions.srt"),
        (lambda c: c.remove_question("cam", "q/1"), "DELETE", "/v1/jobs/cam/questions/q%2F1"),
    ],
)
def test_where_requests_go(act: Callable[[Client], object], method: str, path: str) -> None:
    service = Service([ok(JOB)])
    act(service.client(url="http://service:8000"))
    [request] = service.asked
    assert (request.method, str(request.url)) == (method, f"http://service:8000{path}")


def test_a_base_path_is_kept() -> None:
    service = Service([ok(JOB)])
    service.client(url="https://example.com/streamer/").job("cam")
    assert str(service.asked[0].url) == "https://example.com/streamer/v1/jobs/cam"


def test_a_question_is_added_once() -> None:
    service = Service([httpx.ConnectError("refused"), ok({"id": "q2", "prompt": "Who?"}, 201)])
    assert service.client().add_question("cam", "Who?") == Question(id="q2", prompt="Who?")
    assert service.body(1) == {"prompt": "Who?"}
    # an answer that is lost may have had its effect: it is for the caller to look
    service = Service([httpx.ReadError("reset"), ok({"id": "q2", "prompt": "Who?"}, 201)])
    with pytest.raises(ServiceError, match="cannot be reached"):
        service.client().add_question("cam", "Who?", "q2")
    assert service.body(0) == {"prompt": "Who?", "id": "q2"}
    service = Service([ok({"id": "q1", "prompt": "Who?", "when": "on_change"}, 201)])
    added = service.client().add_question("cam", "Who?", when="on_change")
    assert (added.when, service.body()) == ("on_change", {"prompt": "Who?", "when": "on_change"})


def test_what_a_lost_request_deleted_is_deleted() -> None:
    service = Service([httpx.ReadError("reset"), problem(404, title="no such job")])
    service.client().cancel("cam")
    service = Service([httpx.ConnectError("refused"), problem(404, title="no such job")])
    with pytest.raises(ServiceError, match="no such job"):
        service.client().cancel("cam")


@pytest.mark.parametrize(
    ("answer", "sentence", "status"),
    [
        (problem(404, title="Not found", detail="there is no job cam"), "there is no job cam", 404),
        (problem(401, title="a token is needed"), "a token is needed", 401),
        (
            problem(
                422,
                detail="the request is not valid",
                errors=[
                    {"field": "fps", "message": "must be above 0"},
                    {"field": "source.url", "message": "is missing"},
                ],
            ),
            "fps: must be above 0; source.url: is missing",
            422,
        ),
        (problem(429, detail="room for 0 more\njobs", fits=0), "room for 0 more jobs", 429),
        (
            httpx.Response(502, text="<html>Bad gateway</html>"),
            f"the service at {DEFAULT_URL} answered 502 Bad Gateway",
            502,
        ),
        (
            httpx.Response(307, headers={"Location": "https://elsewhere"}),
            f"the service at {DEFAULT_URL} answered 307 Temporary Redirect",
            307,
        ),
        (
            problem(400, title=["odd"]),
            f"the service at {DEFAULT_URL} answered 400 Bad Request",
            400,
        ),
    ],
)
def test_a_refusal_is_one_sentence(answer: httpx.Response, sentence: str, status: int) -> None:
    with pytest.raises(ServiceError) as caught:
        Service([answer]).client().job("cam")
    assert (str(caught.value), caught.value.status) == (sentence, status)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"<html>", "JobView: b'<html>' cannot be read: Invalid JSON"),
        (b"[]", "JobView: "),
        (b'{"id": 1, "state": "running"}', "JobView.id: 1"),
        (b'{"id": "a", "state": "odd"}', "JobView.state: 'odd'"),
    ],
)
def test_an_answer_that_is_none_of_ours(body: bytes, what: str) -> None:
    with pytest.raises(ServiceError, match="sent what cannot be read") as caught:
        Service([httpx.Response(200, content=body)]).client().job("cam")
    assert what in str(caught.value)


def test_a_service_that_is_not_there() -> None:
    service = Service([httpx.ConnectError("[Errno 111] Connection refused")] * 3)
    with pytest.raises(ServiceError) as caught:
        service.client(url="http://user:secret@127.0.0.1:9").job("cam")
    assert str(caught.value) == (
        "the service at http://127.0.0.1:9 cannot be reached ([Errno 111] Connection refused): "
        "is it running?"
    )
    assert caught.value.status is None
    assert len(service.asked) == 3


def test_an_answer_that_takes_too_long_is_not_asked_for_again() -> None:
    service = Service([httpx.ReadTimeout("timed out")])
    with pytest.raises(ServiceError, match="did not answer in time"):
        service.client().job("cam")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("127.0.0.1:8000", "it looks like http"),
        ("ftp://host", "it looks like http"),
        ("http://", "it looks like http"),
        ("http://host:port", "it looks like http"),
        ("", "it looks like http"),
    ],
)
def test_a_url_that_is_none(url: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Client(url)


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "schlüssel", "a\0"])
def test_a_token_that_is_none_is_not_repeated(token: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Client(token=token)
    assert "the token must be" in str(caught.value)
    assert not token or token not in str(caught.value)
    with pytest.raises(ConfigError, match="the idempotency key must be"):
        Service([]).client().submit("a", idempotency_key=token or " ")


@pytest.mark.parametrize(
    "pipeline", [[{"threshold": float("nan")}], [{"since": datetime.now(UTC)}]]
)
def test_what_is_no_json_is_not_sent(pipeline: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match="cannot be written as JSON"):
        Service([]).client().submit("a", pipeline=pipeline)


def test_the_environment_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_URL", "http://elsewhere:9")
    monkeypatch.setenv("STREAMER_TOKEN", "t")
    assert Client.from_environment().url == "http://elsewhere:9"
    monkeypatch.delenv("STREAMER_URL")
    with Client.from_environment() as client:
        assert client.url == DEFAULT_URL


# Events


def line(chunk: int, n: int = 0, **more: Any) -> bytes:
    event = {
        "id": f"{chunk}-{n}",
        "event": "caption",
        "job": "cam",
        "chunk": chunk,
        "t0": 2.0 * chunk - 2,
        "t1": 2.0 * chunk,
        "question": f"q{n}",
        "text": "Ein Ding fährt.\n😀",
        "later": 1,
    } | more
    data = json.dumps(event, ensure_ascii=False)
    return f"id: {event['id']}\nevent: {event['event']}\ndata: {data}\n\n".encode()


END = b'event: end\ndata: {"job":"cam","state":"ended","error":null}\n\n'


class Stream(httpx.SyncByteStream):
    """Pieces of a body, then perhaps a lost connection."""

    def __init__(self, pieces: Sequence[bytes], lost: Exception | None = None) -> None:
        self.pieces, self.lost, self.closed = pieces, lost, False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.lost:
            raise self.lost

    def close(self) -> None:
        self.closed = True


def stream(*pieces: bytes, lost: Exception | None = None) -> httpx.Response:
    return httpx.Response(
        200,
        stream=Stream(pieces, lost),
        headers={"Content-Type": "text/event-stream; charset=utf-8"},
    )


def ids(events: Iterator[Event]) -> list[str]:
    return [event.id for event in events]


def cursors(service: Service) -> list[str | None]:
    return [request.headers.get("Last-Event-ID") for request in service.asked]


def test_events_come_to_the_end() -> None:
    service = Service([stream(b": hello\n\n", line(1), line(1, 1), line(2), END, line(3))])
    events = list(service.client().events("cam"))
    assert [event.id for event in events] == ["1-0", "1-1", "2-0"]
    assert events[0] == Event(
        id="1-0",
        event="caption",
        job="cam",
        chunk=1,
        t0=0.0,
        t1=2.0,
        question="q0",
        text="Ein Ding fährt.\n😀",
    )
    [request] = service.asked
    assert request.url.path == "/v1/jobs/cam/events"
    assert request.headers["Accept"] == "text/event-stream"


def test_other_messages_are_not_events() -> None:
    state = b'event: state\ndata: {"job":"cam","state":"paused"}\n\n'
    later = b"id: 9-9\nevent: summary\ndata: what a later version says\n\n"
    service = Service([stream(state, line(1), later, b"data: unnamed\n\n", line(2), END)])
    assert ids(service.client().events("cam")) == ["1-0", "2-0"]


def test_a_lost_connection_goes_on_behind_the_last_event() -> None:
    lost = httpx.ReadError("reset")
    half = line(3)[:-20]
    service = Service(
        [
            stream(line(1), line(2), half, lost=lost),
            httpx.ConnectError("refused"),
            httpx.Response(503, text="starting"),
            problem(429, title="too many subscribers"),
            stream(half),  # an orderly end in the middle
            stream(),
            httpx.ReadTimeout("silent"),
            stream(line(3), line(4), END),
        ]
    )
    assert ids(service.client().events("cam")) == ["1-0", "2-0", "3-0", "4-0"]
    assert cursors(service) == [None, *["2-0"] * 7]


def test_an_event_that_comes_again_is_given_once() -> None:
    service = Service(
        [stream(line(1), line(2, 1)), stream(line(1), line(2), line(2, 1), line(10), END)]
    )
    assert ids(service.client().events("cam")) == ["1-0", "2-1", "10-0"]


def test_a_subscriber_may_begin_behind_an_event() -> None:
    service = Service([stream(line(13), END)])
    assert ids(service.client().events("cam", after="12-1")) == ["13-0"]
    assert cursors(service) == ["12-1"]
    with pytest.raises(WireError, match="event id 'twelve'"):
        service.client().events("cam", after="twelve")


def test_no_content_is_the_end() -> None:
    service = Service([stream(line(1)), httpx.Response(204)])
    assert ids(service.client().events("cam")) == ["1-0"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422, 307])
def test_a_refusal_ends_the_events(status: int) -> None:
    service = Service([stream(line(1)), problem(status, title="no")])
    events = service.client().events("cam")
    assert next(events).id == "1-0"
    with pytest.raises(ServiceError, match=r"^no$") as caught:
        next(events)
    assert caught.value.status == status


def test_what_is_no_event_stream_is_refused() -> None:
    with pytest.raises(ServiceError, match="answered 200"):
        next(Service([httpx.Response(200, text="<html>login</html>")]).client().events("cam"))


@pytest.mark.parametrize(
    "torn",
    [
        b"event: caption\ndata: {\n\n",
        b'event: caption\ndata: {"id":"1-0"}\n\n',
        line(1).replace(b'"id": "1-0"', b'"id": "one"'),
    ],
)
def test_a_torn_event_is_told(torn: bytes) -> None:
    with pytest.raises(ServiceError, match="an event that cannot be read"):
        list(Service([stream(torn, END)]).client().events("cam"))


def test_it_waits_longer_each_time_and_no_shorter_than_asked() -> None:
    lost = httpx.ConnectError("refused")
    waits: list[float] = []

    class Clock(ManualClock):
        def sleep(self, seconds: float) -> None:
            waits.append(seconds)
            super().sleep(seconds)

    service = Service(
        [stream(line(1)), *[lost] * 8, stream(b"retry: 4000\n\n", line(2)), lost, stream(END)],
        clock=Clock(),
    )
    assert ids(service.client().events("cam")) == ["1-0", "2-0"]
    least = [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 4, 8]
    assert len(waits) == len(least)
    for wait, low in zip(waits, least, strict=True):
        assert low <= wait <= 1.5 * low


def test_a_service_that_was_never_there_is_not_waited_for_for_ever() -> None:
    service = Service([httpx.ConnectError("refused")] * 100)
    with pytest.raises(ServiceError, match="is it running"):
        next(service.client(timeout_s=20).events("cam"))
    assert 20 <= service.clock.monotonic() < 70


def test_one_that_was_there_is_waited_for_for_ever() -> None:
    lost: list[Answer] = [httpx.ConnectError("refused")] * 2000
    service = Service([stream(line(1)), *lost, stream(line(2), END)])
    assert ids(service.client().events("cam")) == ["1-0", "2-0"]


def test_a_subscriber_that_leaves_closes_its_connection() -> None:
    body = Stream([line(1), line(2), END])
    answer = httpx.Response(200, stream=body, headers={"Content-Type": "text/event-stream"})
    for _ in Service([answer]).client().events("cam"):
        break
    assert body.closed


@given(st.lists(st.integers(0, 400), max_size=8), st.lists(st.integers(1, 60), max_size=30))
def test_wherever_connections_break_each_event_comes_once(
    breaks: list[int], sizes: list[int]
) -> None:
    """A service that keeps its promise: everything behind the cursor, in order."""
    events = [(chunk, n) for chunk in range(1, 6) for n in range(2)]
    answers = iter(breaks)

    def service(request: httpx.Request) -> httpx.Response:
        cursor = request.headers.get("Last-Event-ID", "0-0")
        seen = tuple(map(int, cursor.split("-")))
        body = b"".join(line(*event) for event in events if event > seen) + END
        body = body[: next(answers, len(body))]
        cuts = [0, *sorted(size * 7 for size in sizes), len(body)]
        return stream(*(body[a:b] for a, b in pairwise(cuts)))

    client = Client(transport=httpx.MockTransport(service), clock=ManualClock())
    assert ids(client.events("cam")) == [f"{chunk}-{n}" for chunk, n in events]


# What the package shows


def test_the_package_lists_its_names() -> None:
    assert sorted(streamer.__all__) == streamer.__all__
    assert set(streamer.__all__) <= set(dir(streamer))
    for name in streamer.__all__:
        assert getattr(streamer, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        streamer.Klient  # noqa: B018 # asked for on purpose
