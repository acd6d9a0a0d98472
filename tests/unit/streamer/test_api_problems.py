"""Every refusal is a problem document that tells what to do, and nothing from inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streamer.adapters.memory_queue import MemoryQueue
from streamer.config import Settings
from streamer.errors import QueueError
from tests.unit.streamer.api_jobs import URL, Api, api, make_job

INSIDE = "redis://:secret@10.0.0.7:6379"


class Away:
    """A queue and a roster that cannot be reached."""

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            raise QueueError(f"Redis at {INSIDE} could not {name}")

        return call


AWAY: Any = Away()


class Broken(MemoryQueue):
    def job(self, job_id: str) -> dict[str, str] | None:
        raise RuntimeError(INSIDE)


def problem(answer: Any, status: int) -> dict[str, Any]:
    """The document of a refusal, whose form is right."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["type"] == "about:blank"
    assert document["title"]
    assert document["detail"]
    return document


def test_what_is_not_there() -> None:
    assert problem(api().client.get("/v2"), 404)["detail"] == "there is nothing at /v2"
    assert problem(api().client.get("/v1/jobs/"), 404)
    assert problem(api().client.get("/v1/jobs/none"), 404)["detail"] == "there is no job none"
    assert problem(api().client.get("/v1/jobs/-x"), 422)["errors"][0]["field"] == "job"


def test_a_method_that_is_not_for_it() -> None:
    answer = api().client.put("/v1/jobs/cam")
    assert "PUT" in problem(answer, 405)["detail"]
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("body", [b"{", b"", b"\xff", b"[" * 100_000])
def test_a_body_that_is_not_json(body: bytes) -> None:
    answer = api().client.post(
        "/v1/jobs", content=body, headers={"content-type": "application/json"}
    )
    problem(answer, 400 if body else 422)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_is_not_said_to_be_json(kind: str) -> None:
    here = api()
    answer = here.client.post(
        "/v1/jobs", content=b'{"source":{"url":"u"}}', headers={"content-type": kind}
    )
    problem(answer, 415)
    assert here.queue.jobs() == []


def test_json_by_any_spelling_is_json() -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    body = f'{{"source":{{"url":"{URL}"}}}}'
    assert api().client.post("/v1/jobs", content=body, headers=headers).status_code == 201


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long(chunked: bool) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(300):
            yield b" " * 1024

    body = chunks() if chunked else b" " * 300 * 1024
    headers = {"content-type": "application/json"}
    problem(api().client.post("/v1/jobs", content=body, headers=headers), 413)


def test_while_redis_is_away_clients_are_asked_to_come_again() -> None:
    here = Api(Settings(), AWAY, AWAY)
    for answer in (
        here.client.get("/v1/jobs"),
        here.client.get("/v1/jobs/cam"),
        here.client.get("/v1/jobs/cam/events"),
        here.client.delete("/v1/jobs/cam"),
        here.client.get("/v1/workers"),
        here.client.patch("/v1/pools", json={"caption": 2}),
        here.submit(),
        here.client.get("/readyz"),
    ):
        document = problem(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
        assert "secret" not in answer.text
        assert "10.0.0.7" not in answer.text
        assert "Redis" in document["detail"]
    assert here.client.get("/healthz").status_code == 200


def test_an_error_nobody_foresaw_tells_nothing_from_inside() -> None:
    answer = Api(Settings(), Broken()).client.get("/v1/jobs/cam")
    assert "secret" not in problem(answer, 500)["detail"]
    assert "secret" not in answer.text


def test_a_job_deleted_in_between_is_not_found() -> None:
    class Vanishing(MemoryQueue):
        def job(self, job_id: str) -> dict[str, str] | None:
            record = super().job(job_id)
            self.delete_job(job_id)
            return record

    for path, method in (("", "GET"), ("/pause", "POST")):
        here = Api(Settings(), Vanishing())
        make_job(here.queue)
        problem(here.client.request(method, f"/v1/jobs/cam{path}"), 404)
