"""The client and our own API, over a real Redis: what one promises the other keeps."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from streamer import Client, Event, Question, ServiceError
from streamer.adapters.redis_client import connect
from streamer.adapters.redis_queue import RedisQueue
from streamer.adapters.redis_server import EmbeddedRedis
from streamer.events import Totals, encode_chunk_events

CHUNKS = 40
URL = "http://1.1.1.1/a.mp4"  # an address that is allowed, and that nobody asks

pytestmark = pytest.mark.timeout(180)


class Api:
    """`streamer api`, which can be killed and started again at the same place."""

    def __init__(self, redis_url: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.redis_url = redis_url
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamer", "api", "--port", str(self.port)],
            env={**os.environ, "STREAMER__QUEUE__URL": self.redis_url},
        )
        deadline = time.monotonic() + 60
        while not self._listens():
            assert time.monotonic() < deadline
            assert self.process.poll() is None
            time.sleep(0.1)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisQueue, str]]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server, connect(server.url) as client:
        yield RedisQueue(client), server.url


@pytest.fixture(scope="module")
def api(queue: tuple[RedisQueue, str]) -> Iterator[Api]:
    api = Api(queue[1])
    yield api
    api.kill()


def write(queue: RedisQueue, job: str, chunk: int) -> None:
    """What the caption side writes of a chunk."""
    events = [
        Event(
            id=f"{chunk}-{n}",
            event="caption",
            job=job,
            chunk=chunk,
            t0=2.0 * chunk - 2,
            t1=2.0 * chunk,
            question=f"q{n + 1}",
            text="Ein rotes Ding fährt 😀.\nZwei.",
        )
        for n in range(2)
    ]
    totals = Totals(chunks=chunk, captions=2 * chunk, t1=2.0 * chunk, tokens_dense=40, tokens=10)
    queue.append(job, "events", chunk, encode_chunk_events(events, totals))


def end(queue: RedisQueue, job: str) -> None:
    queue.update_job(job, {"state": "ended", "last_chunk": str(CHUNKS)})


def test_a_job_from_its_submission_to_its_end(api: Api, queue: tuple[RedisQueue, str]) -> None:
    with Client(api.url) as client:
        job = client.submit(
            URL,
            questions=["What moves?", Question(id="who", prompt="Who?")],
            fps=1,
            chunk_s=2,
            pipeline=[],
            keyframes={"interval_s": 8},
        )
        assert (job.state, job.fps, job.pipeline) == ("queued", 1.0, ())
        assert [question.id for question in job.questions] == ["q1", "who"]
        assert client.job(job.id) == job
        assert client.pause(job.id).state == "paused"
        assert client.resume(job.id).state == "queued"
        added = client.add_question(job.id, "How many?", "many")
        assert added == Question(id="many", prompt="How many?")
        with pytest.raises(ServiceError, match="many already") as caught:
            client.add_question(job.id, "How many?", "many")
        assert caught.value.status == 409
        client.remove_question(job.id, "who")
        assert [question.id for question in client.job(job.id).questions] == ["q1", "many"]
        client.cancel(job.id)
        with pytest.raises(ServiceError, match=job.id) as caught:
            client.job(job.id)
        assert caught.value.status == 404


def test_all_pages_of_jobs(api: Api, queue: tuple[RedisQueue, str]) -> None:
    with Client(api.url) as client:
        made = {client.submit(f"http://1.1.1.1/{n}.mp4").id for n in range(5)}
        assert {job.id for job in client.jobs()} >= made
        assert {job.id for job in client.jobs("ended")}.isdisjoint(made)
        for job in made:
            client.cancel(job)


def test_one_key_is_one_job(api: Api, queue: tuple[RedisQueue, str]) -> None:
    with Client(api.url) as client:
        first = client.submit(URL, idempotency_key="k")
        assert client.submit(URL, idempotency_key="k").id == first.id
        with pytest.raises(ServiceError, match="another body"):
            client.submit("http://1.1.1.1/b.mp4", idempotency_key="k")
        client.cancel(first.id)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"fps": -1}, "fps: "),
        ({"fps": 0.3}, "whole number"),
        ({"questions": ""}, "questions.0.prompt: "),
        ({"pipeline": [{"threshold": 0.1}]}, "pipeline"),
        ({"keyframes": {"interval": 8}}, "keyframes.interval: "),
        ({"url": "http://127.0.0.1/a.mp4"}, "source.url: "),
        ({"url": "file:///etc/passwd"}, "source.url: "),
    ],
)
def test_a_refusal_names_the_field(
    api: Api, queue: tuple[RedisQueue, str], given: dict[str, object], sentence: str
) -> None:
    known: dict[str, object] = {"url": URL}
    with Client(api.url) as client, pytest.raises(ServiceError) as caught:
        client.submit(**(known | given))  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.status == 422
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_status_and_scale(api: Api, queue: tuple[RedisQueue, str]) -> None:
    with Client(api.url) as client:
        client.scale(tokenize=2, decode=(1, 3))
        status = client.status()
        sizes = {kind: (pool.min, pool.max) for kind, pool in status.pools.items()}
        assert sizes == {"decode": (1, 3), "tokenize": (2, 2), "caption": sizes["caption"]}


def test_each_event_comes_once_though_the_api_is_killed(
    api: Api, queue: tuple[RedisQueue, str]
) -> None:
    redis, _ = queue
    with Client(api.url) as client:
        job = client.submit(URL, questions=["What?", "Who?"]).id

        def caption() -> None:
            for chunk in range(1, CHUNKS + 1):
                write(redis, job, chunk)
                time.sleep(0.05)
            end(redis, job)

        writing = threading.Thread(target=caption)
        writing.start()
        seen: list[str] = []
        for event in client.events(job):
            seen.append(event.id)
            if len(seen) in (5, 40):
                api.kill()
                api.start()
        writing.join()
        assert seen == [f"{chunk}-{n}" for chunk in range(1, CHUNKS + 1) for n in range(2)]
        view = client.job(job)
        assert (view.state, view.captions, view.tokens.kept) == ("ended", 2 * CHUNKS, 10)
        assert [event.id for event in client.events(job, after=f"{CHUNKS}-0")] == [f"{CHUNKS}-1"]
        assert list(client.events(job, after=f"{CHUNKS}-1")) == []
        client.cancel(job)
