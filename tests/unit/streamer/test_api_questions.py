"""Questions of a running job: added and removed, none lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from streamer.jobs import read_questions
from tests.unit.streamer.api_jobs import Api, api, finish, make_job


def asked(here: Api) -> list[str]:
    record = here.queue.job("cam")
    assert record
    return [question.id for question in read_questions(record)]


def test_questions_come_and_go() -> None:
    here = api()
    make_job(here.queue)
    path = "/v1/jobs/cam/questions"
    given = here.client.post(path, json={"id": "cars", "prompt": "How many cars?"})
    assert given.status_code == 201
    assert given.json() == {"id": "cars", "prompt": "How many cars?", "when": "every"}
    who = here.client.post(path, json={"prompt": "Who?", "when": "on_change"}).json()
    assert who == {"id": "q1", "prompt": "Who?", "when": "on_change"}
    assert here.client.post(path, json={"prompt": "Where?"}).json()["id"] == "q2"
    assert asked(here) == ["default", "cars", "q1", "q2"]
    assert here.client.delete(f"{path}/q1").status_code == 204
    assert here.client.post(path, json={"prompt": "When?"}).json()["id"] == "q1"
    for name in ("default", "cars", "q1"):
        assert here.client.delete(f"{path}/{name}").status_code == 204
    assert asked(here) == ["q2"]
    assert here.client.delete(f"{path}/q2").status_code == 204  # then nothing is asked
    assert asked(here) == []


def test_what_cannot_be_is_refused() -> None:
    here = api(api={"max_questions": 2})
    make_job(here.queue)
    path = "/v1/jobs/cam/questions"
    assert here.client.delete(f"{path}/other").status_code == 404
    assert here.client.post(path, json={"id": "default", "prompt": "x"}).status_code == 409
    assert here.client.post(path, json={"prompt": " "}).status_code == 422
    assert here.client.post(path, json={"prompt": "x"}).status_code == 201
    answer = here.client.post(path, json={"prompt": "y"})
    assert (answer.status_code, "2 questions" in answer.json()["detail"]) == (409, True)
    finish(here.queue, "cam")
    assert here.client.post(path, json={"prompt": "x"}).status_code == 409
    assert here.client.delete(f"{path}/default").status_code == 409
    assert here.client.post("/v1/jobs/none/questions", json={"prompt": "x"}).status_code == 404
    assert asked(here) == ["default", "q1"]


def test_questions_added_at_the_same_time_are_all_kept() -> None:
    here = api(api={"max_questions": 64})
    make_job(here.queue)

    def add(n: int) -> int:
        body = {"prompt": f"{n}?"} if n % 2 else {"id": f"n{n}", "prompt": f"{n}?"}
        return here.client.post("/v1/jobs/cam/questions", json=body).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(add, range(40))) == {201}
    assert len(set(asked(here))) == 41
