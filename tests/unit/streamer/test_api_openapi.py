"""The OpenAPI document: complete, and true however strange the requests are."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from streamer import __version__
from streamer.api import examples
from streamer.api.openai_errors import is_openai
from streamer.api.schemas import JOB_ID
from streamer.events import Event
from streamer.sse import MessageParser
from streamer.views import JobView, reader
from tests.unit.streamer.api_jobs import ADMIN, TOKENS, api, finish, make_job, write

EXAMPLES = 50
"""Requests to each operation."""

HERE = api(pools={"caption": {"jobs": 50}}, api={"tokens": TOKENS, "answer_s": 0.01})
"""Where nobody works, and nothing is waited for."""
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", HERE.app)


@pytest.fixture(autouse=True)
def _nothing_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def public(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("93.184.216.34", port))]

    monkeypatch.setattr(socket, "getaddrinfo", public)


@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_every_answer_is_as_documented(case: schemathesis.Case[Any]) -> None:
    job_id = str(case.path_parameters.get("job", ""))
    if re.fullmatch(JOB_ID, job_id) and len(job_id) % 2:  # else hardly one would ever be found
        case.path_parameters["job"] = "done" if case.path.endswith("/events") else "live"
    for job in ("live", "done"):
        if HERE.queue.job(job) is None:
            make_job(HERE.queue, job)
            write(HERE.queue, job, 1, 2)
    finish(HERE.queue, "done")
    answer = case.call_and_validate(
        headers={"Authorization": f"Bearer {ADMIN}"},
        # fields have rules that no schema can tell, and nobody answers questions in time
        excluded_checks=[positive_data_acceptance, not_a_server_error],
    )
    assert answer.status_code < 500 or answer.status_code == 504


def test_the_document_says_what_it_is_and_how_to_get_in() -> None:
    document = HERE.app.openapi()
    assert document["info"]["title"] == "Streamer"
    assert document["info"]["version"] == __version__
    schemes = document["components"]["securitySchemes"].values()
    assert {(scheme["type"], scheme.get("name")) for scheme in schemes} == {
        ("http", None),
        ("apiKey", "streamer_token"),
    }
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_operation_is_described_with_its_refusals() -> None:
    document = HERE.app.openapi()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert operation["description"], (method, path)
            assert len(operation["tags"]) == 1
            answers = operation["responses"]
            assert "403" in answers
            openai = is_openai(path)
            if path.startswith("/v1"):
                assert {"401", "503"} <= answers.keys(), (method, path)
            if "{job}" in path:
                assert {"404", "422"} <= answers.keys(), (method, path)
            if "requestBody" in operation:
                assert {"400", "413", "415"} <= answers.keys(), (method, path)
                assert ("422" in answers) is not openai, (method, path)
            for status, answer in answers.items():
                assert answer["description"] != "Successful Response", (method, path)
                if int(status) >= 400:
                    kind = "application/json" if openai else "application/problem+json"
                    assert list(answer["content"]) == [kind], (method, path, status)


def test_examples_are_as_the_schemas_say() -> None:
    document = HERE.app.openapi()
    for name, schema in document["components"]["schemas"].items():
        whole = schema | {"components": document["components"]}
        for example in schema.get("examples", []):
            Draft202012Validator(whole).validate(example)
        assert schema.get("type") or name
    job = document["components"]["schemas"]["JobView"] | {"components": document["components"]}
    Draft202012Validator(job).validate(examples.JOB)
    assert reader(JobView)(json.dumps(examples.JOB)).chunks == 12
    messages = list(MessageParser().feed(examples.EVENTS.encode()))
    assert [message.event for message in messages] == ["state", "caption", "end"]
    assert Event(**json.loads(messages[1].data)).id == messages[1].id == "12-0"


def test_every_path_and_metric_is_in_the_reference() -> None:
    reference = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
    for path in HERE.app.openapi()["paths"]:
        last = [part for part in path.split("/") if not part.startswith("{")][-1]
        assert re.search(rf"[/ ]{re.escape(last.partition('.')[0])}\b", reference), path
    for family in (*HERE.app.state.metrics.collect(),):
        name = family.name + ("_total" if family.type == "counter" else "")
        assert name in reference or name.removeprefix("streamer") in reference, name
