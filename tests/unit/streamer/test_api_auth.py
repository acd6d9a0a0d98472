"""Who may do what: tokens, tenants, and a browser's pages on a machine without tokens."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from streamer.api.local_only import is_loopback
from tests.unit.streamer.api_jobs import ADMIN, ALICE, BOB, TOKENS, URL, Api, api, finish, make_job

OPERATIONS = [
    ("GET", "/v1/jobs"),
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs/cam"),
    ("DELETE", "/v1/jobs/cam"),
    ("POST", "/v1/jobs/cam/pause"),
    ("POST", "/v1/jobs/cam/resume"),
    ("POST", "/v1/jobs/cam/questions"),
    ("DELETE", "/v1/jobs/cam/questions/default"),
    ("GET", "/v1/jobs/cam/events"),
    ("GET", "/v1/workers"),
    ("PATCH", "/v1/pools"),
    ("GET", "/metrics"),
]


@pytest.fixture
def here() -> Api:
    """A service with tokens, and a job of alice's."""
    here = api(api={"tokens": TOKENS})
    make_job(here.queue, tenant="alice")
    finish(here.queue, "cam")
    return here


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@pytest.mark.parametrize("given", ["", "Bearer wrong-0123456789", "Basic YTpi", "Bearer ", ALICE])
def test_without_a_known_token_nothing_is_answered(
    here: Api, method: str, path: str, given: str
) -> None:
    answer = here.client.request(method, path, headers={"Authorization": given} if given else {})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith('Bearer realm="streamer"')
    assert ("invalid_token" in challenge) == given.startswith("Bearer w")


def test_what_needs_no_token(here: Api) -> None:
    for path in ("/", "/healthz", "/readyz", "/openapi.json", "/docs"):
        assert here.client.get(path).status_code == 200


def test_a_cookie_is_good_for_reading_only(here: Api) -> None:
    cookie = {"Cookie": f"streamer_token={quote(ALICE)}"}
    for path in ("/v1/jobs/cam", "/v1/jobs/cam/events"):
        assert here.client.get(path, headers=cookie).status_code == 200
    for method, path in OPERATIONS:
        if method != "GET":
            assert here.client.request(method, path, headers=cookie).status_code == 401
    wrong = here.client.get("/v1/jobs", headers={"Cookie": "streamer_token=wrong"})
    assert wrong.status_code == 401


def test_a_token_of_any_characters_works_as_a_cookie() -> None:
    token = "sécret; with=signs%41"
    here = api(api={"tokens": [{"name": "a", "token": token}]})
    cookie = {"Cookie": f"streamer_token={quote(token, safe='')}"}
    assert here.client.get("/v1/jobs", headers=cookie).status_code == 200


def test_jobs_of_others_are_not_there(here: Api) -> None:
    make_job(here.queue, "bobs", tenant="bob")
    for method, path in OPERATIONS:
        if "/cam" in path:
            body = {"prompt": "x"} if path.endswith("questions") else None
            assert here.as_(BOB).request(method, path, json=body).status_code == 404, path
    listed = {
        token: [job["id"] for job in here.as_(token).get("/v1/jobs").json()["jobs"]]
        for token in (ALICE, BOB, ADMIN)
    }
    assert listed == {ALICE: ["cam"], BOB: ["bobs"], ADMIN: ["cam", "bobs"]}
    assert here.as_(ADMIN).get("/v1/jobs/bobs").status_code == 200


def test_a_new_job_belongs_to_its_token(here: Api) -> None:
    view = here.submit(BOB).json()
    assert here.queue.active()[view["id"]] == "bob"
    assert here.as_(ALICE).get(f"/v1/jobs/{view['id']}").status_code == 404


def test_only_an_administrator_scales(here: Api) -> None:
    answer = here.as_(ALICE).patch("/v1/pools", json={"caption": 2})
    assert (answer.status_code, "admin" in answer.json()["detail"]) == (403, True)
    assert here.roster.sizes() == {}
    assert here.as_(ADMIN).patch("/v1/pools", json={"caption": 2}).status_code == 200
    assert api().client.patch("/v1/pools", json={"caption": 2}).status_code == 200


def test_tokens_are_in_no_answer(here: Api) -> None:
    for path in ("/openapi.json", "/metrics", "/v1/jobs", "/v1/workers"):
        text = here.as_(ALICE).get(path).text
        assert not any(token in text for token in (ALICE, BOB, ADMIN))


# Without tokens


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "a.localhost", "127.1.2.3"],
)
def test_this_machine_is_answered(host: str) -> None:
    assert api().client.get("/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.1:8000", "", "[::1", "a@b"]
)
def test_a_name_that_is_not_ours_is_refused(host: str) -> None:
    for path in ("/", "/v1/jobs", "/metrics", "/v1/jobs/cam/events"):
        answer = api().client.get(path, headers={"Host": host})
        assert answer.status_code == 403
        assert "api.tokens" in answer.json()["detail"]


def test_with_tokens_any_name_will_do() -> None:
    here = api(api={"tokens": TOKENS, "host": "0.0.0.0"})
    headers = {"Host": "streamer.example"}
    assert here.as_(ALICE).get("/v1/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:9000", "x"])
def test_pages_of_others_may_not_write(origin: str) -> None:
    here = api()
    make_job(here.queue)
    for method, path in OPERATIONS:
        if method != "GET":
            answer = here.client.request(method, path, headers={"Origin": origin})
            assert answer.status_code == 403
    assert here.queue.job("cam")
    answer = here.client.get("/v1/jobs", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers  # nor may they read


def test_our_own_page_may_write() -> None:
    client: TestClient = api().client
    headers = {"Origin": "http://127.0.0.1:8000"}
    assert client.post("/v1/jobs", json={"source": {"url": URL}}, headers=headers).is_success


def test_loopback_hosts() -> None:
    for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost."):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.com", "", "localhost.evil.com"):
        assert not is_loopback(host)
