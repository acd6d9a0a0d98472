"""Asks over HTTP: the answer with its span, what refuses one, and how many may wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from streamer.adapters.asks import MOST_WAITING, AskRequest, Refused, Reply
from streamer.api.asks import answer_stream, ask_request
from streamer.api.problems import Refusal
from streamer.errors import QueueError
from tests.unit.streamer.api_jobs import ALICE, BOB, TOKENS, Api, api, finish, make_job

SAID = {
    "t0": 2.0,
    "t1": 6.0,
    "chunk0": 2,
    "chunk1": 3,
    "visual_tokens": 90,
    "dense_tokens": 240,
    "input_tokens": 130,
    "output_tokens": 4,
    "latency_ms": 12.5,
}
PATH = "/v1/jobs/cam/ask"


@contextmanager
def captioner(here: Api, *replies: Reply) -> Iterator[list[AskRequest]]:
    """Answers every ask with these replies; gives what it was asked."""
    asked: list[AskRequest] = []
    over = threading.Event()

    def serve() -> None:
        while not over.wait(0.005):
            for request in here.asks.take("caption-1", count=10):
                asked.append(request)
                for reply in replies:
                    here.asks.tell(request.id, reply)
                here.asks.done(request.id)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join()


def done(text: str = "A car came.", **more: Any) -> Reply:
    return Reply(n=2, text=text, done=True, **(SAID | more))


def waiting(here: Api) -> list[AskRequest]:
    return here.asks.take("caption-9", count=10)


def test_an_answer_cites_its_span() -> None:
    here = api()
    make_job(here.queue)
    with captioner(here, Reply(n=1, text="A car"), done()) as asked:
        answer = here.client.post(
            PATH, json={"prompt": " What came? ", "t0": 2.5, "t1": 5, "max_tokens": 9}
        )
    assert answer.status_code == 200, answer.text
    [request] = asked
    said = answer.json()
    assert said == SAID | {
        "id": request.id,
        "job": "cam",
        "prompt": "What came?",
        "text": "A car came.",
    }
    assert (request.job, request.prompt, request.max_new_tokens) == ("cam", "What came?", 9)
    assert (request.t0, request.t1) == (2.5, 5.0)
    left = request.deadline - time.time()
    assert here.settings.api.answer_s - 5 < left <= here.settings.api.answer_s


def test_about_now_and_up_to_now() -> None:
    here = api()
    make_job(here.queue)
    with captioner(here, done(wall0=1.7e9, wall1=1.7e9 + 4)) as asked:
        now = here.client.post(PATH, json={"prompt": "What?"}).json()
        assert (now["wall0"], now["wall1"]) == (1.7e9, 1.7e9 + 4)
        assert here.client.post(PATH, json={"prompt": "What?", "t0": 3}).status_code == 200
    assert [(request.t0, request.t1) for request in asked] == [(None, None), (3.0, None)]


def test_jobs_that_ended_or_are_paused_are_asked_too() -> None:
    here = api()
    make_job(here.queue)
    here.queue.update_job("cam", {"paused": "1"})
    with captioner(here, done()):
        assert here.client.post(PATH, json={"prompt": "What?"}).status_code == 200
        finish(here.queue, "cam")
        assert here.client.post(PATH, json={"prompt": "What?"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "prompt", "field required"),
        ({"prompt": "  "}, "prompt", "at least 1 character"),
        ({"prompt": "x" * 2001}, "prompt", "at most 2000"),
        ({"prompt": "?", "t0": -1}, "t0", "greater than or equal to 0"),
        ({"prompt": "?", "t1": 3}, "", "t1 needs t0"),
        ({"prompt": "?", "t0": 5, "t1": 3}, "", "t0 5 is after t1 3"),
        ({"prompt": "?", "t0": "5"}, "t0", "valid number"),
        ({"prompt": "?", "max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"prompt": "?", "when": "every"}, "when", "not permitted"),
    ],
)
def test_what_is_not_a_question_is_refused(body: Any, field: str, message: str) -> None:
    here = api()
    make_job(here.queue)
    answer = here.client.post(PATH, json=body)
    assert answer.status_code == 422
    [problem] = answer.json()["errors"]
    assert message in problem["message"]
    assert problem["field"] in (field, "body")
    assert waiting(here) == []


def test_jobs_of_others_cannot_be_asked() -> None:
    here = api(api={"tokens": TOKENS})
    make_job(here.queue, tenant="alice")
    with captioner(here, done()):
        assert here.as_(BOB).post(PATH, json={"prompt": "?"}).status_code == 404
        assert here.as_(ALICE).post(PATH, json={"prompt": "?"}).status_code == 200
        none = here.as_(ALICE).post("/v1/jobs/none/ask", json={"prompt": "?"})
    assert (none.status_code, none.json()["detail"]) == (404, "there is no job none")


@pytest.mark.parametrize(
    ("refused", "status"),
    [("nothing_kept", 409), ("too_long", 422), ("gone", 404), ("failed", 500), (None, 500)],
)
def test_a_captioners_refusal_is_passed_on(refused: Refused | None, status: int) -> None:
    here = api()
    make_job(here.queue)
    sentence = "it keeps those from 4 to 60 s"
    with captioner(here, Reply(n=1, done=True, error=sentence, refused=refused)):
        answer = here.client.post(PATH, json={"prompt": "?", "t0": 0, "t1": 2})
    assert (answer.status_code, answer.json()["detail"]) == (status, sentence)
    assert answer.headers["content-type"] == "application/problem+json"


def test_where_nobody_answers_it_says_so_in_time() -> None:
    here = api(api={"answer_s": 0.2})
    make_job(here.queue)
    answer = here.client.post(PATH, json={"prompt": "?"})
    assert answer.status_code == 504
    assert "no captioner answered within 0.2 s" in answer.json()["detail"]
    assert answer.json()["code"] == "timeout"
    assert waiting(here) == []  # and nobody begins any more


def test_more_than_can_be_answered_wait_elsewhere() -> None:
    here = api()
    make_job(here.queue)
    for n in range(MOST_WAITING):
        here.asks.put(AskRequest(id=f"ask-{n}", job="cam", prompt="?", deadline=time.time() + 99))
    answer = here.client.post(PATH, json={"prompt": "?"})
    assert answer.status_code == 429
    assert "questions wait" in answer.json()["detail"]
    assert "retry-after" in answer.headers


def test_a_lost_redis_is_said() -> None:
    here = api()
    make_job(here.queue)

    def lost(request: AskRequest) -> None:
        raise QueueError("Redis is away")

    here.asks.put = lost  # type: ignore[method-assign]
    assert here.client.post(PATH, json={"prompt": "?"}).status_code == 503


def test_those_who_wait_keep_nobody_from_other_requests() -> None:
    # Given a hundred questions that nobody answers
    here = api(api={"answer_s": 3})
    make_job(here.queue)
    slowest = 0.0
    with here.client, ThreadPoolExecutor(100) as pool:
        asked = [pool.submit(here.client.post, PATH, json={"prompt": "?"}) for _ in range(100)]
        while not all(one.done() for one in asked):
            began = time.monotonic()
            assert here.client.get("/v1/jobs/cam").status_code == 200
            slowest = max(slowest, time.monotonic() - began)
        assert {one.result().status_code for one in asked} == {504}
    assert slowest < 2.0


def test_replies_are_streamed_as_they_come() -> None:
    here = api()
    make_job(here.queue)
    service = here.app.state.service

    async def listen() -> list[str]:
        request = ask_request(service, job="cam", prompt="?")
        return [reply.text async for reply in answer_stream(service, request)]

    with captioner(here, Reply(n=1, text="A"), Reply(n=2, text="A car"), done()):
        assert asyncio.run(listen()) == ["A", "A car", "A car came."]


def test_one_who_leaves_takes_the_question_back() -> None:
    here = api()
    make_job(here.queue)
    service = here.app.state.service

    async def leave() -> str:
        request = ask_request(service, job="cam", prompt="?")
        listening = asyncio.ensure_future(anext(answer_stream(service, request)))
        while not here.asks.wanted([request.id]):
            await asyncio.sleep(0.01)
        listening.cancel()
        await asyncio.wait([listening])
        return request.id

    assert here.asks.wanted([asyncio.run(leave())]) == set()


def test_a_refusal_ends_the_stream() -> None:
    here = api()
    make_job(here.queue)
    service = here.app.state.service

    async def listen() -> None:
        async for _ in answer_stream(service, ask_request(service, job="cam", prompt="?")):
            raise AssertionError("nothing was said")

    with (
        captioner(here, Reply(n=1, done=True, error="too long", refused="too_long")),
        pytest.raises(Refusal, match="too long"),
    ):
        asyncio.run(listen())
