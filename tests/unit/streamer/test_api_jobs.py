"""Jobs over HTTP: made once, within bounds, listed in order, paused, deleted."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from streamer.adapters.clock import ManualClock
from streamer.config import DEFAULT_PIPELINE, Settings
from streamer.events import Totals, encode_chunk_events
from streamer.jobs import Question, read_job
from streamer.views import JobPage, JobView, reader
from streamer.workers import Placement, Progress, SourceState, WorkerReport
from tests.unit.streamer.api_jobs import (
    ALICE,
    BOB,
    TOKENS,
    URL,
    Api,
    api,
    caption,
    finish,
    make_job,
    write,
)

SCHEMAS = {
    "rlt": {
        "type": "object",
        "properties": {
            "threshold": {"type": "number", "minimum": 0},
            **{name: {} for name in DEFAULT_PIPELINE if name != "name"},
        },
        "additionalProperties": False,
        "x-stage": "pixel",
    },
    "tome": {
        "type": "object",
        "properties": {"rounds": {"type": "integer"}},
        "additionalProperties": False,
        "x-stage": "token",
    },
    "fastv": {"type": "object", "x-stage": "decoder"},
}

DEEP = json.loads("[" * 100 + "]" * 100)


def errors(answer: Any) -> dict[str, str]:
    """The fields that a refusal names."""
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return {error["field"]: error["message"] for error in answer.json()["errors"]}


def test_a_job_is_made_with_the_defaults() -> None:
    here = Api(Settings(question="What moves?"), clock=ManualClock())
    answer = here.submit()
    assert answer.status_code == 201
    view = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{view['id']}"
    assert view["created_at"] == "2023-11-14T22:13:20Z"
    assert {k: view[k] for k in ("state", "url", "fps", "chunk_s", "pipeline", "questions")} == {
        "state": "queued",
        "url": URL,
        "fps": 2.0,
        "chunk_s": 2.0,
        "pipeline": [DEFAULT_PIPELINE],
        "questions": [{"id": "default", "prompt": "What moves?", "when": "every"}],
    }
    record = here.queue.job(view["id"])
    assert record
    job = read_job(view["id"], record)
    assert (job.url, job.tenant, job.settings) == (URL, "local", here.settings.job)
    assert here.queue.active() == {view["id"]: "local"}
    assert here.client.get(f"/v1/jobs/{view['id']}").json() == view


def test_a_job_chooses_for_itself() -> None:
    here = api()
    view = here.submit(
        fps=4,
        chunk_s=0.5,
        pipeline=[],
        keyframes={"interval_s": 8},
        source={"url": URL, "live": True, "behind_s": 5},
        questions=[
            {"prompt": "  a  "},
            {"id": "q1", "prompt": "b", "when": "on_change"},
            {"prompt": "c", "when": "every"},
        ],
    ).json()
    record = here.queue.job(view["id"])
    assert record
    job = read_job(view["id"], record)
    assert (job.settings.source.fps, job.settings.source.chunk_s) == (4.0, 0.5)
    assert job.settings.source.ahead == here.settings.source.ahead
    assert (job.settings.source.live, job.settings.source.behind_s) == (True, 5.0)
    assert view["live"] is True
    assert job.settings.pipeline == ()
    default = here.settings.keyframes
    assert job.settings.keyframes == default.model_copy(update={"interval_s": 8.0})
    assert job.questions == (
        Question(id="q2", prompt="a"),
        Question(id="q1", prompt="b", when="on_change"),
        Question(id="q3", prompt="c"),
    )


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"source": {}}, "source.url", "field required"),
        ({"source": {"url": ""}}, "source.url", "at least 1 character"),
        ({"source": {"url": "file:///etc/passwd"}}, "source.url", "fetch.allow_paths"),
        ({"source": {"url": "http://127.0.0.1/v.mp4"}}, "source.url", "fetch.allow_networks"),
        ({"source": {"url": "gopher://a/b"}}, "source.url", "'gopher' is not supported"),
        ({"source": {"url": URL, "live": 1}}, "source.live", "valid boolean"),
        ({"source": {"url": URL, "behind_s": 0}}, "source.behind_s", "greater than 0"),
        ({"source": {"url": f"upload:{'0' * 32}"}}, "source.url", "'upload' is not supported"),
        ({"questions": [{"prompt": "x", "when": "never"}]}, "questions.0.when", "'on_change'"),
        ({"questions": [{"prompt": " \n"}]}, "questions.0.prompt", "at least 1 character"),
        ({"questions": [{"prompt": "x" * 2001}]}, "questions.0.prompt", "at most 2000"),
        ({"questions": [{"prompt": "\ud800"}]}, "questions.0.prompt", "valid string"),
        ({"questions": [{"id": "a/b", "prompt": "x"}]}, "questions.0.id", "match pattern"),
        ({"questions": [{"id": "a", "prompt": "x"}] * 2}, "questions.1.id", "'a' is there twice"),
        ({"questions": [{"prompt": "x"}] * 9}, "questions", "api.max_questions"),
        ({"fps": 0}, "fps", "greater than 0"),
        ({"fps": "2"}, "fps", "valid number"),
        ({"fps": 2.5, "chunk_s": 0.5}, "fps", "1.25 frames a chunk"),
        ({"chunk_s": 0.3}, "chunk_s", "0.6 frames a chunk"),
        ({"keyframes": {"cut_share": 2}}, "keyframes.cut_share", "less than or equal to 1"),
        ({"pipeline": [3]}, "pipeline.0", "valid dictionary"),
        ({"pipeline": [{"nam": "rlt"}]}, "pipeline.0.name", "an entry needs a name"),
        ({"pipeline": [{"name": "rtl"}]}, "pipeline.0.name", "did you mean 'rlt'?"),
        (
            {"pipeline": [{"name": "rlt"}, {"name": "rlt", "threshold": -1}]},
            "pipeline.1.threshold",
            "less than the minimum",
        ),
        ({"pipeline": [{"name": "rlt", "x": 1}]}, "pipeline.0", "'x' was unexpected"),
        ({"pipeline": [{"name": "tome", "rounds": 2.0}]}, "pipeline.0.rounds", "not of type"),
        ({"pipeline": [{"name": "tome"}, {"name": "rlt"}]}, "pipeline.1.name", "and first"),
        ({"pipeline": [{"name": "fastv"}, {"name": "tome"}]}, "pipeline.1.name", "before those"),
        ({"pipeline": [{"name": "tome", "x": "\ud800"}]}, "pipeline.0.x", "not a text"),
        ({"pipeline": [{"name": "rlt", "x": DEEP}]}, "pipeline.0.x", "nested too deeply"),
        ({"pipeline": [{"name": "rlt", "x": [math.nan]}]}, "pipeline.0.x", "finite"),
        ({"colour": 1}, "colour", "not permitted"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(
    changes: dict[str, Any], field: str, said: str
) -> None:
    here = api()
    here.roster.publish("operators", json.dumps(SCHEMAS))
    body = json.dumps({"source": {"url": URL}} | changes)
    answer = here.client.post(
        "/v1/jobs", content=body, headers={"content-type": "application/json"}
    )
    told = errors(answer)
    assert said in told[field], told
    assert here.queue.jobs() == []


def test_all_that_is_wrong_is_told_at_once() -> None:
    told = errors(api().submit(fps=-1, questions=[{"prompt": ""}, {"id": ""}], x=1))
    assert set(told) == {"fps", "questions.0.prompt", "questions.1.id", "x"}


def test_numbers_that_json_has_not_are_refused() -> None:
    for content in ('{"source":{"url":"u"},"fps":NaN}', '{"source":{"url":"u"},"fps":1e999}'):
        answer = api().client.post(
            "/v1/jobs", content=content, headers={"content-type": "application/json"}
        )
        assert answer.status_code in (400, 422)


def test_before_the_first_worker_an_operator_only_needs_a_name() -> None:
    here = api()
    assert here.submit(pipeline=[{"name": "whatever", "x": 1}]).status_code == 201
    assert "pipeline.0.name" in errors(here.submit(pipeline=[{"x": 1}]))


def test_a_job_may_ask_nothing() -> None:
    here = api()
    view = here.submit(questions=[]).json()
    assert view["questions"] == []


def test_a_question_without_words_is_the_services_own() -> None:
    here = Api(Settings(question="What moves?"))
    view = here.submit(questions=[{"when": "on_change"}]).json()
    assert view["questions"] == [{"id": "q1", "prompt": "What moves?", "when": "on_change"}]
    path = f"/v1/jobs/{view['id']}/questions"
    assert here.client.post(path, json={"id": "again"}).json()["prompt"] == "What moves?"


def test_a_url_is_shown_without_credentials() -> None:
    here = api()
    url = "https://user:secret@93.184.216.34/v.mp4?token=secret"
    view = here.submit(source={"url": url}).json()
    assert view["url"] == "https://93.184.216.34/v.mp4?…"
    record = here.queue.job(view["id"])
    assert record
    assert read_job("x", record).url == url
    refused = here.submit(source={"url": "https://user:secret@127.0.0.1/?token=secret"})
    assert "secret" not in refused.text


def test_what_the_operator_allows_may_be_fetched() -> None:
    here = api(fetch={"allow_networks": ["127.0.0.0/8"]})
    assert here.submit(source={"url": "http://127.0.0.1:9/v.mp4"}).status_code == 201


# Idempotency


def test_a_key_makes_one_job() -> None:
    here = api()
    headers = {"Idempotency-Key": "order-17"}
    first = here.client.post("/v1/jobs", json={"source": {"url": URL}}, headers=headers)
    again = here.client.post("/v1/jobs", json={"source": {"url": URL}}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert first.json() == again.json()
    assert len(here.queue.jobs()) == 1


def test_a_key_used_for_another_body_is_refused() -> None:
    here = api()
    headers = {"Idempotency-Key": "order-17"}
    here.client.post("/v1/jobs", json={"source": {"url": URL}}, headers=headers)
    other = here.client.post("/v1/jobs", json={"source": {"url": URL}, "fps": 1}, headers=headers)
    assert "another body" in errors(other)["Idempotency-Key"]


def test_a_key_is_its_tenants_own() -> None:
    here = api(api={"tokens": TOKENS})
    ids = {
        here.as_(token)
        .post("/v1/jobs", json={"source": {"url": URL}}, headers={"Idempotency-Key": "k"})
        .json()["id"]
        for token in (ALICE, BOB)
    }
    assert len(ids) == 2


def test_a_replay_needs_no_room() -> None:
    here = api(pools={"caption": {"jobs": 1}})
    headers = {"Idempotency-Key": "k"}
    body = {"source": {"url": URL}}
    assert here.client.post("/v1/jobs", json=body, headers=headers).status_code == 201
    assert here.client.post("/v1/jobs", json=body, headers=headers).status_code == 200
    assert here.client.post("/v1/jobs", json=body).status_code == 429


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ä"])
def test_an_impossible_key_is_refused(key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    answer = api().client.post("/v1/jobs", json={"source": {"url": URL}}, headers=headers)
    assert "Idempotency-Key" in errors(answer)


def test_the_same_key_at_the_same_time_makes_one_job() -> None:
    here = api()

    def submit(_: int) -> str:
        answer = here.client.post(
            "/v1/jobs", json={"source": {"url": URL}}, headers={"Idempotency-Key": "k"}
        )
        assert answer.status_code in (200, 201)
        return str(answer.json()["id"])

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(submit, range(8)))) == 1
    assert len(here.queue.jobs()) == 1


# Room


def test_jobs_beyond_capacity_are_refused_with_the_number_that_fits() -> None:
    here = api(pools={"decode": {"max": 3}, "caption": {"max": 1, "jobs": 2}})
    assert here.client.get("/v1/workers").json()["fits"] == 2
    here.submit()
    assert here.client.get("/v1/workers").json()["fits"] == 1
    here.submit()
    answer = here.submit()
    assert answer.status_code == 429
    problem = answer.json()
    assert (problem["fits"], problem["limit"], problem["active"]) == (0, 2, 2)
    assert int(answer.headers["retry-after"]) > 0
    assert "wait for one to end" in problem["detail"]
    status = here.client.get("/v1/workers").json()
    assert (status["fits"], status["limit"], status["active"]) == (0, 2, 2)
    finish(here.queue, here.queue.jobs()[0])
    assert here.submit().status_code == 201


def test_the_controller_says_how_many_fit() -> None:
    here = api()
    here.roster.publish("capacity", "1")
    assert here.submit().status_code == 201
    assert here.submit().status_code == 429


def test_a_token_has_its_own_bound() -> None:
    here = api(api={"tokens": TOKENS})
    for _ in range(2):
        assert here.submit(ALICE).status_code == 201
    problem = here.submit(ALICE).json()
    assert (problem["fits"], problem["limit"], problem["active"]) == (0, 2, 2)
    assert here.submit(BOB).status_code == 201
    assert here.as_(BOB).get("/v1/workers").json()["fits"] == 13


# Views


def test_a_view_tells_how_far_a_job_is_and_what_it_saves() -> None:
    here = api()
    make_job(here.queue)
    write(here.queue, "cam", 1, 2)
    here.queue.update_job("cam", {"state": "running"})
    here.roster.place({"cam": Placement(tenant="local", decode="decode-1", caption="caption-2")})
    at = {"cam": Progress(chunk=5, t1=10.0)}
    for report in (
        WorkerReport(name="tokenize-1", kind="tokenize", boot="a", beat=1, jobs=at),
        WorkerReport(name="decode-1", kind="decode", boot="a", beat=1, jobs=at),
    ):
        here.roster.report(report)
    body = here.client.get("/v1/jobs/cam").text
    view = reader(JobView)(body)
    assert (view.state, view.chunks, view.captions, view.t1) == ("running", 2, 2, 4.0)
    assert (view.patches.total, view.patches.kept) == (960, 240)
    assert (view.tokens.dense, view.tokens.kept) == (240, 60)
    assert view.lag_s == 6.0
    assert (view.workers.decode, view.workers.tokenize) == ("decode-1", None)
    assert view.workers.caption == "caption-2"
    # and nothing that the service says is unknown to those who read it
    assert set(json.loads(body)) == set(JobView.__dataclass_fields__)


def test_a_live_job_tells_of_its_source_and_of_its_level() -> None:
    # Given a live job whose last picture was captioned three seconds after it was taken
    here = Api(clock=ManualClock())
    make_job(here.queue)
    here.queue.update_job("cam", {"state": "running"})
    wall = datetime.fromtimestamp(here.clock.now() - 3, UTC).isoformat()
    event = replace(caption("cam", 2), wall0=wall, wall1=wall)
    totals = Totals(chunks=2, captions=1, unchanged=3, asked=4, gaps=1, skipped=2, levels=5, t1=4.0)
    here.queue.append("cam", "events", 2, encode_chunk_events([event], totals))
    source = SourceState(connected=True, pid=7, rss_bytes=9)

    def report(source: SourceState | None) -> None:
        decoding = {"cam": Progress(chunk=0, t1=6.0, source=source)}
        tokenizing = {"cam": Progress(chunk=2, t1=4.5, level=2)}
        for kind, at in (("decode", decoding), ("tokenize", tokenizing)):
            name = f"{kind}-1"
            here.roster.report(WorkerReport(name=name, kind=kind, boot="a", beat=1, jobs=at))

    def seen(*names: str) -> tuple[Any, ...]:
        view = here.client.get("/v1/jobs/cam").json()
        return tuple(view[name] for name in names)

    # When its source is connected, then it is as far behind as its last picture is old
    report(source)
    assert seen("live", "connected", "source_error", "lag_s", "level") == (True, True, None, 3.0, 2)
    counted = seen("unchanged", "asked", "reconnects", "gaps", "skipped", "levels")
    assert counted == (3, 4, 1, 1, 2, 5)
    # When it is not, then it says why, and is behind what it has
    report(replace(source, connected=False, reason="the server is silent"))
    assert seen("connected", "source_error", "lag_s") == (False, "the server is silent", 0.5)
    # When it is over, then nobody is connected to it
    finish(here.queue, "cam")
    assert seen("live", "connected", "source_error") == (True, None, None)


@pytest.mark.parametrize(
    ("url", "source", "live"),
    [(URL, None, False), (URL, SourceState(connected=True), True), ("rtsp://h/1", None, True)],
)
def test_who_decodes_a_source_knows_whether_it_is_live(
    url: str, source: SourceState | None, live: bool
) -> None:
    here = api()
    make_job(here.queue, url=url)
    at = {"cam": Progress(chunk=0, t1=0.0, source=source)}
    here.roster.report(WorkerReport(name="decode-1", kind="decode", boot="a", beat=1, jobs=at))
    assert here.client.get("/v1/jobs/cam").json()["live"] is live


def test_a_gap_of_a_file_is_no_reconnection() -> None:
    here = api()
    make_job(here.queue)
    totals = Totals(chunks=1, gaps=1)
    here.queue.append("cam", "events", 1, encode_chunk_events([caption("cam", 1)], totals))
    view = here.client.get("/v1/jobs/cam").json()
    assert (view["live"], view["gaps"], view["reconnects"]) == (False, 1, 0)


def test_a_lag_nobody_knows_is_null() -> None:
    here = api()
    make_job(here.queue)
    assert here.client.get("/v1/jobs/cam").json()["lag_s"] is None


def test_a_finished_job_says_when_and_why() -> None:
    here = api()
    make_job(here.queue)
    here.queue.update_job("cam", {"error": "the server answered 404"})
    finish(here.queue, "cam", "failed")
    view = here.client.get("/v1/jobs/cam").json()
    assert (view["state"], view["error"]) == ("failed", "the server answered 404")
    assert view["ended_at"] == "2023-11-14T22:15:00Z"


def test_a_malformed_record_is_an_error_and_hides_no_other() -> None:
    here = api()
    make_job(here.queue)
    here.queue.create_job("bad", {"spec": "{", "created_at": "x"})
    answer = here.client.get("/v1/jobs/bad")
    assert answer.status_code == 500
    assert "spec" not in answer.text
    assert [job["id"] for job in here.client.get("/v1/jobs").json()["jobs"]] == ["cam"]


def test_jobs_are_listed_newest_first_page_by_page() -> None:
    here = api()
    for n in range(7):  # two of an age: then by id
        make_job(here.queue, f"job-{n}", created_at=1_700_000_000.0 + n // 2)
    finish(here.queue, "job-5")
    seen: list[str] = []
    page = JobPage(next="")
    while page.next is not None:
        after = f"&after={page.next}" if page.next else ""
        page = reader(JobPage)(here.client.get(f"/v1/jobs?limit=3{after}").text)
        seen += [job.id for job in page.jobs]
    assert seen == [f"job-{n}" for n in (6, 5, 4, 3, 2, 1, 0)]
    ended = here.client.get("/v1/jobs", params={"state": "ended", "limit": 1}).json()
    assert ([job["id"] for job in ended["jobs"]], ended["next"]) == (["job-5"], None)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "state=gone", "after=x", "after=1.000~"]
)
def test_a_list_that_cannot_be_is_refused(query: str) -> None:
    assert list(errors(api().client.get(f"/v1/jobs?{query}"))) == [query.partition("=")[0]]


# Changes


def test_a_deleted_job_is_gone() -> None:
    here = api()
    make_job(here.queue)
    assert here.client.delete("/v1/jobs/cam").status_code == 204
    assert here.queue.job("cam") is None
    for answer in (here.client.delete("/v1/jobs/cam"), here.client.get("/v1/jobs/cam")):
        assert answer.status_code == 404


def test_a_job_is_paused_and_resumed_however_often() -> None:
    here = api()
    make_job(here.queue)
    here.queue.update_job("cam", {"state": "running"})
    for verb, state in (("pause", "paused"), ("pause", "paused"), ("resume", "running")) * 2:
        answer = here.client.post(f"/v1/jobs/cam/{verb}")
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    finish(here.queue, "cam")
    for verb in ("pause", "resume"):
        answer = here.client.post(f"/v1/jobs/cam/{verb}")
        assert answer.status_code == 409
        assert "has ended" in answer.json()["detail"]


def test_a_keyframe_is_asked_for_as_often_as_one_likes() -> None:
    here = api()
    make_job(here.queue)
    for asked in ("1", "2"):
        answer = here.client.post("/v1/jobs/cam/keyframe")
        assert (answer.status_code, answer.text) == (202, "null")
        assert (here.queue.job("cam") or {})["keyframes"] == asked
    finish(here.queue, "cam")
    assert here.client.post("/v1/jobs/cam/keyframe").status_code == 409
    assert here.client.post("/v1/jobs/none/keyframe").status_code == 404


def test_what_the_service_says_of_itself_is_what_clients_read() -> None:
    here = api()
    job = make_job(here.queue)
    view = reader(JobView)(here.client.get("/v1/jobs/cam").text)
    assert view.questions == job.questions
    assert replace(view, questions=()) == JobView(
        id="cam",
        state="queued",
        url=URL,
        created_at=view.created_at,
        fps=2.0,
        chunk_s=2.0,
        pipeline=(DEFAULT_PIPELINE,),
    )
