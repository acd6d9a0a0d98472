"""A job's record: there and back, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamer.config import JobSettings, KeyframeSettings, Settings, SourceSettings
from streamer.errors import WireError
from streamer.jobs import (
    LOCAL,
    Job,
    JobStatus,
    Question,
    encode_questions,
    read_job,
    read_questions,
    read_status,
)

SETTINGS = JobSettings(
    source=SourceSettings(fps=4, chunk_s=1.5, ahead=3),
    pipeline=({"name": "rlt", "threshold": 0.05}, {"name": "tome", "keep": 0.5}),
    keyframes=KeyframeSettings(interval_s=7.5),
)
JOB = Job(
    id="cam-1",
    url="http://host/späti.mp4?a=1&b=2",
    questions=(
        Question(id="one", prompt="Describe what happens."),
        Question(id="two", prompt='Wie viele "Dinge"?\n'),
    ),
    settings=SETTINGS,
    tenant="ann",
    created_at=1_700_000_000.125,
)


def test_a_job_comes_back_as_it_was() -> None:
    record = JOB.record()
    assert all(isinstance(value, str) for value in record.values())
    assert read_job("cam-1", record) == JOB


def test_a_job_that_has_gone_on_is_still_the_same_job() -> None:
    record = {
        **JOB.record(),
        "state": "failed",
        "last_chunk": "7",
        "error": "it broke",
        "ended_at": "1700000009.500",
    }
    assert read_job("cam-1", record) == JOB
    status = JobStatus(state="failed", last_chunk=7, error="it broke", ended_at=1_700_000_009.5)
    assert read_status(record) == status


def test_what_a_record_does_not_say_has_its_default() -> None:
    record = {name: JOB.record()[name] for name in ("spec", "questions")}
    job = read_job("cam-1", record)
    assert (job.tenant, job.created_at) == (LOCAL, 0.0)
    assert read_status(record).state == "queued"


def test_a_job_that_chooses_nothing_has_the_settings_of_the_service() -> None:
    settings = Settings(source=SourceSettings(fps=1), pipeline=())
    assert settings.job == JobSettings(source=SourceSettings(fps=1), pipeline=())
    assert Settings().job == JobSettings()


def test_questions_may_change_while_the_job_runs() -> None:
    changed = (*JOB.questions[1:], Question(id="new", prompt="Noch etwas?"))
    record = JOB.record() | {"questions": encode_questions(changed)}
    assert read_questions(record) == changed
    assert read_job("cam-1", record).questions == changed


def test_a_new_job_is_queued() -> None:
    assert read_status(JOB.record()) == JobStatus(state="queued", last_chunk=None, error=None)


@pytest.mark.parametrize("state", ["queued", "running", "ended", "failed"])
def test_states_are_read(state: str) -> None:
    status = read_status({"state": state})
    assert status.state == state
    assert status.finished is (state in ("ended", "failed"))


@pytest.mark.parametrize(
    ("state", "told"),
    [("queued", "paused"), ("running", "paused"), ("ended", "ended"), ("failed", "failed")],
)
def test_a_job_that_is_not_over_may_be_paused(state: str, told: str) -> None:
    assert read_status({"state": state, "paused": "1"}).state == told


def test_no_chunk_at_all_is_not_the_same_as_not_yet() -> None:
    assert read_status({"last_chunk": "0"}).last_chunk == 0


def spec(**changes: Any) -> dict[str, str]:
    whole = json.loads(JOB.record()["spec"]) | changes
    given = {k: v for k, v in whole.items() if v is not None}
    return JOB.record() | {"spec": json.dumps(given)}


def questions(text: str) -> dict[str, str]:
    return JOB.record() | {"questions": text}


MALFORMED = {
    "no_spec": {"state": "running"},
    "no_json": JOB.record() | {"spec": "{"},
    "no_object": JOB.record() | {"spec": "[1]"},
    "null": JOB.record() | {"spec": "null"},
    "no_url": spec(url=None),
    "no_questions": {name: v for name, v in JOB.record().items() if name != "questions"},
    "questions_without_json": questions("["),
    "a_number_of_questions": questions("3"),
    "questions_of_text": questions('["What?"]'),
    "a_question_without_prompt": questions('[{"id": "one"}]'),
    "a_question_with_more": questions('[{"id": "one", "prompt": "What?", "when": "never"}]'),
    "settings_of_text": spec(settings="default"),
    "settings_out_of_bounds": spec(settings={"source": {"fps": -1, "ahead": 0}}),
    "settings_of_a_newer_version": spec(settings={"sauce": {"fps": 1}}),
    "settings_that_are_not_a_jobs": spec(settings={"queue": {"url": "redis://h"}}),
    "no_time": JOB.record() | {"created_at": "yesterday"},
}


@pytest.mark.parametrize("record", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_record_is_refused_by_name(record: dict[str, str]) -> None:
    with pytest.raises(WireError, match=r"^the record of job cam-1 is malformed: .") as caught:
        read_job("cam-1", record)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("last", ["", "seven", "1.5"])
def test_a_malformed_progress_is_refused(last: str) -> None:
    with pytest.raises(WireError, match="last_chunk"):
        read_status({"state": "running", "last_chunk": last})
