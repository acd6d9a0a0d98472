"""OpenAI's protocol, with OpenAI's own client: a video and a question in, an answer out."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
import pytest

from streamer.adapters.asks import AskRequest, Refused, Reply
from streamer.adapters.memory_uploads import MemoryUploads
from streamer.adapters.uploads import upload_id
from streamer.api.openai_errors import PATHS
from streamer.config import Settings
from streamer.errors import SourceError
from streamer.events import Event, Totals, encode_chunk_events
from tests.unit.streamer.api_jobs import ALICE, BOB, TOKENS, URL, Api, api, finish, make_job

VIDEO = b"\0\0\0\x20ftypisom" + bytes(range(256)) * 5000
DATA = f"data:video/mp4;base64,{base64.b64encode(VIDEO).decode()}"
WORDS = ("A cat", " sits.", " It sleeps.")
WAIT_S = 10.0


@dataclass
class Workers:
    """What decoders, tokenizers and captioners would do: every job is seen, every ask answered."""

    here: Api
    t1: float = 12.0
    state: str = "ended"
    error: str | None = None
    refused: tuple[Refused, str] | None = None
    replies: tuple[str, ...] | None = None
    """The text of each reply; WORDS by and by if None."""
    deaf: bool = False
    """Nobody answers."""
    asked: list[AskRequest] = field(default_factory=list)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Jobs with their records."""
    uploads: list[bytes] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.wait(0.005):
            queue = self.here.queue
            for job in queue.active():
                record = queue.job(job)
                if record and "delete_at" in record and job not in dict(self.seen):
                    self.see(job, record)
            for request in [] if self.deaf else self.here.asks.take("caption-1", count=1):
                self.asked.append(request)
                self.answer(request)

    def see(self, job: str, record: dict[str, str]) -> None:
        self.seen.append((job, record))
        given = upload_id(json.loads(record["spec"])["url"])
        if given is not None:
            self.uploads.append(b"".join(self.here.uploads.open(given)))
        if self.t1:
            event = Event(id="1-0", event="seen", job=job, chunk=1, t0=0.0, t1=self.t1)
            fields = encode_chunk_events([event], Totals(chunks=1, t1=self.t1))
            self.here.queue.append(job, "events", 1, fields)
        if self.error:
            self.here.queue.update_job(job, {"error": self.error})
        if self.state != "running":
            finish(self.here.queue, job, self.state)

    def answer(self, request: AskRequest) -> None:
        asks = self.here.asks
        if self.refused:
            kind, said = self.refused
            asks.tell(request.id, Reply(n=1, done=True, error=said, refused=kind))
            return
        texts = self.replies or ["".join(WORDS[:n]) for n in range(1, len(WORDS) + 1)]
        for n, text in enumerate(texts, 1):
            done = n == len(texts)
            asks.tell(
                request.id,
                Reply(
                    n=n,
                    text=text,
                    done=done,
                    t0=request.t0 or 0.0,
                    t1=request.t1 or 2.0,
                    input_tokens=40 if done else None,
                    output_tokens=8 if done else None,
                ),
            )
        asks.done(request.id)


@contextmanager
def working(here: Api, **how: Any) -> Iterator[Workers]:
    workers = Workers(here, **how)
    thread = threading.Thread(target=workers.run)
    thread.start()
    try:
        yield workers
    finally:
        workers.stop.set()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def client(here: Api, token: str = "none") -> openai.OpenAI:
    """OpenAI's own, unchanged."""
    through = httpx2.Client(transport=httpx2.MockTransport(lambda request: _ask(here, request)))
    return openai.OpenAI(
        base_url="http://127.0.0.1:8000/v1", api_key=token, max_retries=0, http_client=through
    )


def _ask(here: Api, request: httpx2.Request) -> httpx2.Response:
    answer = here.client.request(
        request.method, str(request.url), content=request.content, headers=dict(request.headers)
    )
    return httpx2.Response(answer.status_code, content=answer.content, headers=dict(answer.headers))


def about(url: str, text: str = "What happens?") -> Any:
    parts = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


def ask(here: Api, url: str = URL, **more: Any) -> Any:
    given = {"model": "streamer", "messages": about(url)} | more
    return client(here).chat.completions.create(**given)


def test_an_answer_is_streamed_as_it_is_written() -> None:
    here = api()
    with working(here) as workers:
        chunks = list(ask(here, stream=True, stream_options={"include_usage": True}))
    assert [chunk.object for chunk in chunks] == ["chat.completion.chunk"] * len(chunks)
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    *spoken, final, usage = chunks
    assert spoken[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content for chunk in spoken) == "".join(WORDS)
    assert {chunk.choices[0].finish_reason for chunk in spoken} == {None}
    assert final.choices[0].finish_reason == "stop"
    assert (usage.choices, usage.usage.prompt_tokens, usage.usage.completion_tokens) == ([], 40, 8)
    # and the whole video was asked about, by a job that nobody has any more
    (asked,) = workers.asked
    assert (asked.prompt, asked.t0, asked.t1) == ("What happens?", 0.0, 12.0)
    ((job, record),) = workers.seen
    assert (asked.job, record["questions"]) == (job, "[]")
    assert float(record["delete_at"]) > here.clock.now()
    assert here.queue.jobs() == []


def test_nothing_is_said_twice_where_another_captioner_begins_anew() -> None:
    here = api()
    with working(here, replies=("A cat", "A cat sits.", "A", "A cat", "A cat sits. It sleeps.")):
        chunks = list(ask(here, stream=True))
    spoken = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(spoken) == "A cat sits. It sleeps."


def test_without_include_usage_there_is_none() -> None:
    here = api()
    with working(here):
        chunks = list(ask(here, stream=True))
    assert {chunk.usage for chunk in chunks} == {None}
    assert all(chunk.choices for chunk in chunks)


def test_a_whole_answer() -> None:
    here = api()
    with working(here):
        answer = ask(here)
    assert (answer.object, answer.model) == ("chat.completion", "streamer")
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "".join(WORDS))
    assert choice.finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (40, 48)
    assert answer.span["t1"] == 12.0
    assert here.queue.jobs() == []


def test_an_answer_that_was_cut_off_says_so() -> None:
    here = api()
    with working(here) as workers:
        answer = ask(here, max_tokens=8)
        assert answer.choices[0].finish_reason == "length"
        ask(here, max_completion_tokens=100_000)
    assert [request.max_new_tokens for request in workers.asked] == [8, 64]


def test_a_video_in_the_request_reaches_who_decodes_it_and_is_forgotten() -> None:
    here = api()
    with working(here) as workers:
        assert ask(here, DATA).choices[0].message.content == "".join(WORDS)
    assert workers.uploads == [VIDEO]
    ((_, record),) = workers.seen
    given = upload_id(json.loads(record["spec"])["url"])
    assert given
    with pytest.raises(SourceError, match="kept no longer"):
        list(here.uploads.open(given))


def test_a_job_is_asked_about_the_present_and_stays() -> None:
    here = api()
    make_job(here.queue)
    with working(here) as workers:
        assert ask(here, "job:cam").choices[0].message.content == "".join(WORDS)
    (asked,) = workers.asked
    assert (asked.job, asked.t0, asked.t1) == ("cam", None, None)
    assert here.queue.jobs() == ["cam"]


def test_the_last_user_text_is_the_question() -> None:
    here = api()
    turns = [
        {"role": "system", "content": "Be brief."},
        *about(URL, "What is it?"),
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "  What colour? "},
    ]
    with working(here) as workers:
        ask(here, messages=turns, temperature=0.7, seed=1)
    assert [request.prompt for request in workers.asked] == ["What colour?"]


def test_a_live_source_is_asked_about_after_some_seconds() -> None:
    here = api(fetch={"allow_networks": ["0.0.0.0/0"]})
    with working(here, state="running", t1=10.5) as workers:
        workers.see = lambda job, record: _live(here, workers, job, record)  # type: ignore[method-assign]
        assert ask(here).choices[0].message.content == "".join(WORDS)
    assert workers.asked[0].t1 == 10.5
    assert here.queue.jobs() == []


def _live(here: Api, workers: Workers, job: str, record: dict[str, str]) -> None:
    workers.seen.append((job, record))
    wall = "2026-01-01T00:00:00Z"
    event = Event(id="1-0", event="seen", job=job, chunk=1, t0=0.0, t1=10.5, wall0=wall, wall1=wall)
    fields = encode_chunk_events([event], Totals(chunks=1, t1=10.5))
    here.queue.append(job, "events", 1, fields)


def refused(here: Api, **given: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(here, **given)
    assert caught.value.body is not None, "it is not in OpenAI's shape"
    assert caught.value.response.headers["content-type"] == "application/json"
    return caught.value


NO_VIDEO: Any = [{"role": "user", "content": "What happens?"}]
IMAGE: Any = [
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b.png"}}]}
]


@pytest.mark.parametrize(
    ("given", "status", "code", "said"),
    [
        ({"messages": NO_VIDEO}, 400, None, "give exactly one"),
        ({"messages": about(URL) + about(URL)}, 400, None, "2 video_url parts"),
        ({"messages": about(URL, " ")}, 400, None, "has no text"),
        ({"messages": IMAGE}, 400, None, "'video_url'"),
        ({"messages": []}, 400, None, "at least 1 item"),
        ({"messages": about(URL, "x" * 2001)}, 400, "context_length_exceeded", "2001 characters"),
        ({"messages": about(URL), "n": 2}, 400, None, "n: "),
        ({"url": "data:image/png;base64,AA"}, 400, None, "data:video/mp4"),
        ({"url": "data:video/mp4;base64,A*"}, 400, None, "not base64"),
        ({"url": "http://127.0.0.1/v.mp4"}, 400, None, "fetch.allow_networks"),
        ({"url": f"upload:{'0' * 32}"}, 400, None, "'upload' is not supported"),
        ({"url": "job:none"}, 404, None, "no job none"),
        ({"url": "job:../x"}, 400, None, "job:<id>"),
        ({"model": "gpt-4o"}, 404, "model_not_found", "there is no model"),
    ],
)
def test_what_is_wrong_is_said_in_the_shape_that_openai_has(
    given: dict[str, Any], status: int, code: str | None, said: str
) -> None:
    here = api()
    error = refused(here, **given)
    assert (error.status_code, error.code) == (status, code)
    assert said in error.message
    assert here.queue.jobs() == []


def test_errors_before_any_route_have_that_shape_too() -> None:
    here = api(api={"tokens": TOKENS, "max_upload_bytes": 1 << 20})
    make_job(here.queue, tenant="alice")
    with pytest.raises(openai.AuthenticationError) as unknown:
        client(here, "wrong").models.list()
    assert (unknown.value.type, unknown.value.code) == ("authentication_error", "invalid_api_key")
    alice, bob = (client(here, token).chat.completions for token in (ALICE, BOB))
    with pytest.raises(openai.NotFoundError):
        bob.create(model="streamer", messages=about("job:cam"))
    with pytest.raises(openai.APIStatusError) as too_long:
        alice.create(model="streamer", messages=about(DATA * 2))
    assert (too_long.value.status_code, too_long.value.code) == (413, "request_too_large")
    for path in PATHS:
        assert "error" in here.client.get(path).json(), path


def test_a_video_may_be_as_long_as_allowed_and_no_longer() -> None:
    here = api(api={"max_upload_bytes": 1 << 20})
    with working(here):
        fits = base64.b64encode(bytes(1 << 20)).decode()
        assert ask(here, f"data:video/mp4;base64,{fits}").choices
        longer = base64.b64encode(bytes((1 << 20) + 3)).decode()
        error = refused(here, url=f"data:video/mp4;base64,{longer}")
    assert (error.status_code, "give its URL" in error.message) == (413, True)


class Watched(MemoryUploads):
    """Uploads that tell whether there were any."""

    put_any = False

    def put(self, content: bytes, *, keep_s: float) -> str:
        self.put_any = True
        return super().put(content, keep_s=keep_s)


def test_a_service_that_is_full_says_so() -> None:
    watched = Watched()
    here = Api(Settings(pools={"caption": {"jobs": 1}}), uploads=watched)
    make_job(here.queue)
    error = refused(here, url=DATA)
    assert isinstance(error, openai.RateLimitError)
    assert error.code == "rate_limit_exceeded"
    assert not watched.put_any  # nothing was sent that nobody will decode


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ({"t1": 0, "state": "failed", "error": "no video"}, 400, "invalid_video"),
        ({"t1": 0}, 400, "invalid_video"),
        ({"refused": ("too_long", "9 tokens too many")}, 400, "context_length_exceeded"),
        ({"refused": ("nothing_kept", "it is gone")}, 400, "nothing_kept"),
        ({"refused": ("failed", "it broke")}, 500, None),
    ],
)
def test_what_goes_wrong_later_is_said_in_either_way(
    how: dict[str, Any], status: int, code: str | None
) -> None:
    here = api()
    with working(here, **how):
        error = refused(here)
        assert (error.status_code, error.code) == (status, code)
        with pytest.raises(openai.APIError) as streamed:
            list(ask(here, stream=True))
    assert (streamed.value.code, streamed.value.message) == (code, error.body["message"])  # type: ignore[index]
    assert here.queue.jobs() == []


def test_a_video_that_does_not_end_is_waited_for_no_longer_than_allowed() -> None:
    here = api(api={"answer_s": 0.3})
    with working(here, state="running"):
        error = refused(here)
    assert (error.status_code, error.code) == (504, "timeout")
    assert "12 s of it were seen" in error.message
    assert here.queue.jobs() == []


def test_a_question_that_nobody_answers() -> None:
    here = api(api={"answer_s": 0.3})
    with working(here, deaf=True):
        error = refused(here)
    assert (error.status_code, error.code) == (504, "timeout")
    assert here.asks.take("caption-1", count=1) == []  # it is taken back
    assert here.queue.jobs() == []


def test_silence_is_filled_with_comments() -> None:
    here = api(api={"answer_s": 1.0, "keep_alive_s": 0.1})
    with working(here, deaf=True):
        body = {"model": "streamer", "messages": about(URL), "stream": True}
        text = here.client.post("/v1/chat/completions", json=body).text
    assert text.count(": keep-alive\n\n") >= 2
    assert '"code":"timeout"' in text
    assert "[DONE]" not in text


def test_the_model_has_two_names() -> None:
    here = api(model={"name": "Qwen/Qwen3-VL-2B-Instruct"})
    names = [model.id for model in client(here).models.list()]
    assert names == ["streamer", "Qwen/Qwen3-VL-2B-Instruct"]
    with working(here):
        assert ask(here, model="Qwen/Qwen3-VL-2B-Instruct").model == "Qwen/Qwen3-VL-2B-Instruct"
