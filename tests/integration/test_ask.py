"""Asks over HTTP of a long stream, answered by the embedded model from what Redis holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from streamer.actors.caption import CaptionWorker
from streamer.actors.desk import AskDesk
from streamer.adapters.asks import Asks
from streamer.adapters.clock import SYSTEM_CLOCK
from streamer.adapters.redis_asks import RedisAsks
from streamer.adapters.redis_client import connect
from streamer.adapters.redis_queue import RedisQueue
from streamer.adapters.redis_server import EmbeddedRedis
from streamer.config import DEFAULT_QUESTION, JobSettings
from streamer.core.keyframes import KeyframePolicy
from streamer.core.pipeline import build_pipeline
from streamer.demo import PAN, RATE, SAMPLED, SCALE, STILL, demo_clip
from streamer.embedded.render import render
from streamer.groups import last_group
from streamer.jobs import Job, Question
from streamer.language.decoding import Ask, answer
from streamer.language.session import Session
from streamer.model import VideoModel, load_model
from streamer.types import Gap
from streamer.vision.stream_encoder import StreamEncoder
from streamer.wire import ChunkHead, TokenChunk, decode, encode
from tests.integration.api_running import running, settings_for
from tests.unit.streamer.tiny import chunks_of

JOB = Job(
    id="cam",
    url="/nowhere/that/is/gone.mp4",
    questions=(Question(id="default", prompt=DEFAULT_QUESTION),),
    settings=JobSettings(),
)
LOOPS = 17
"""Of the 26 seconds of the demo in which the camera is still: more than seven minutes."""
WORDS = 32
"""Longest answer."""


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return load_model("embedded", device="cpu")


@pytest.fixture(scope="module")
def chunks(model: VideoModel) -> list[TokenChunk]:
    """The demo over and over, two frames a second, two seconds a chunk; a gap at the end."""
    frames = render(demo_clip()).every(RATE // SAMPLED).frames[:, ::SCALE, ::SCALE]
    frames = np.concatenate([frames[: STILL * SAMPLED], frames[(STILL + PAN) * SAMPLED :]])
    encoder = StreamEncoder(
        model.tower,
        model.geometry,
        job=JOB.id,
        pipeline=build_pipeline(JOB.settings.pipeline),
        policy=KeyframePolicy(),
    )
    told = [encoder.encode(chunk) for chunk in chunks_of(np.concatenate([frames] * LOOPS))]
    last = told[-1].head
    gap = Gap(number=last.number + 1, t0=last.t1, t1=last.t1 + 9.0, reason="nothing came")
    return [*told, encoder.gap(gap)]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory, chunks: list[TokenChunk]) -> Iterator[str]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        with connect(server.url) as client:
            queue = RedisQueue(client)
            queue.create_job(JOB.id, JOB.record())
            for chunk in chunks:
                queue.append(JOB.id, "tokens", chunk.head.number, encode(chunk))
        yield server.url


@contextmanager
def captioner(
    url: str, model: VideoModel, name: str = "caption-1", *, idle_s: float = 10.0
) -> Iterator[None]:
    """A caption worker in a thread; it has no jobs, and no decoder is anywhere."""
    over, broken = threading.Event(), []
    with connect(url) as client, ThreadPoolExecutor(1) as executor:
        queue = RedisQueue(client)
        desk = AskDesk(
            name,
            RedisAsks(client, idle_s=idle_s),
            queue,
            model,
            SYSTEM_CLOCK,
            max_new_tokens=WORDS,
            executor=executor,
        )
        worker = CaptionWorker(model, queue, SYSTEM_CLOCK, batch=8, max_new_tokens=WORDS, desk=desk)

        def work() -> None:
            try:
                while not over.is_set():
                    worker.work()
            except BaseException as exc:
                broken.append(exc)
                raise

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
    assert broken == []


@pytest.fixture(scope="module")
def url(redis_url: str) -> Iterator[str]:
    """Of the API's route."""
    with running(settings_for(redis_url, answer_s=60)) as server:
        yield f"{server.url}/v1/jobs/{JOB.id}/ask"


def ask(url: str, **body: Any) -> Any:
    response = httpx.post(url, json={"prompt": DEFAULT_QUESTION} | body, timeout=90)
    assert response.status_code == 200, response.text
    return response.json()


def spanned(chunks: list[TokenChunk], t0: float, t1: float) -> list[ChunkHead]:
    return [c.head for c in chunks if c.head.has_body and c.head.t1 > t0 and c.head.t0 < t1]


def test_a_minute_that_ended_five_minutes_ago(
    redis_url: str,
    url: str,
    model: VideoModel,
    chunks: list[TokenChunk],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given seven minutes of tokens, and no way to decode anything
    def opened(*args: object, **kwargs: object) -> None:
        raise AssertionError("a decoder was opened")

    monkeypatch.setattr("av.open", opened)
    now = chunks[-1].head.t0
    assert now > 420
    t0, t1 = now - 360.0, now - 300.0
    span = spanned(chunks, t0, t1)
    assert {head.kind for head in span} == {"I", "P"}
    # When the minute is asked about
    with captioner(redis_url, model):
        said = ask(url, t0=t0, t1=t1)
    # Then the answer cites what it was read from
    assert said["text"]
    assert (said["t0"], said["t1"]) == (span[0].t0, span[-1].t1)
    assert (said["chunk0"], said["chunk1"]) == (span[0].number, span[-1].number)
    assert said["t0"] <= t0
    assert t1 <= said["t1"] < t1 + 2
    # And it cost at most the span's own tokens and one full tubelet
    kept, full = sum(head.tokens for head in span), span[0].grid[0] * span[0].grid[1]
    assert kept <= said["visual_tokens"] <= kept + full
    assert said["dense_tokens"] == sum(head.dense for head in span)
    assert said["visual_tokens"] < said["dense_tokens"] / 3


def test_groups_now_and_past_are_answered_as_they_were_captioned(
    redis_url: str, url: str, model: VideoModel, chunks: list[TokenChunk]
) -> None:
    starts = [chunk.head.number for chunk in chunks if chunk.head.kind == "I"]
    with connect(redis_url) as client, captioner(redis_url, model):
        queue = RedisQueue(client)
        for upto in (None, *(start - 1 for start in starts[5:9])):
            entries = last_group(queue, JOB.id, upto=upto)
            session = Session(model)
            group = [decode(entry.fields) for entry in entries]
            for chunk in group:
                if chunk.head.has_body:
                    session.append(chunk)
            seen = [chunk.head for chunk in group if chunk.head.has_body]
            own = answer(
                model, [Ask(session=session, prompt=DEFAULT_QUESTION)], max_new_tokens=WORDS
            )[0]
            span = {} if upto is None else {"t0": seen[0].t0, "t1": seen[-1].t1}
            said = ask(url, **span)
            assert said["text"] == own.text
            assert said["input_tokens"] == own.input_tokens
            assert (said["t0"], said["t1"]) == (seen[0].t0, seen[-1].t1)
            assert said["visual_tokens"] == sum(head.tokens for head in seen)


def test_what_does_not_fit_is_refused_with_a_span_that_does(
    redis_url: str, url: str, model: VideoModel
) -> None:
    with captioner(redis_url, model):
        response = httpx.post(url, json={"prompt": "What moves?", "t0": 0}, timeout=90)
        problem = response.json()
        assert (response.status_code, problem["status"]) == (422, 422)
        assert "tokens of context, and" in problem["detail"]
        fits = float(problem["detail"].split("ask about 0 to ")[1].removesuffix(" s"))
        assert fits > 60
        said = ask(url, t0=0.0, t1=fits)
        assert (said["t0"], said["t1"]) == (0.0, fits)
        response = httpx.post(url, json={"prompt": "?", "t0": 9e3, "t1": 9.1e3}, timeout=90)
        assert response.status_code == 409
        assert "it keeps those from 0 to" in response.json()["detail"]


def test_many_ask_at_the_same_time(redis_url: str, url: str, model: VideoModel) -> None:
    with captioner(redis_url, model), ThreadPoolExecutor(12) as pool:
        spans = [(20.0 * n, 20.0 * n + 10) for n in range(12)]
        answers = list(pool.map(lambda span: ask(url, t0=span[0], t1=span[1]), spans))
    assert all(said["text"] for said in answers)
    assert [(said["t0"], said["t1"]) for said in answers] == spans
    assert len({said["id"] for said in answers}) == 12


def test_a_captioner_that_dies_leaves_the_question_to_another(
    redis_url: str, url: str, model: VideoModel
) -> None:
    # Given a captioner that took a question, said a word of it, and is heard of no more
    with connect(redis_url) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, url, t0=0, t1=10)
        dead: Asks = RedisAsks(client)
        deadline = time.monotonic() + 10
        while not (taken := dead.take("caption-7", count=1)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # When another one comes
        with captioner(redis_url, model, "caption-8", idle_s=0.5):
            said = answer.result(60)
        # Then it answers
        assert said["id"] == taken[0].id
        assert said["text"]
        assert client.xlen("streamer:asks") == 0
