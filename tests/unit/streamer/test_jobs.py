"""A job's record: there and back, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamer.config import Settings, SourceSettings
from streamer.errors import QueueError
from streamer.jobs import Job, JobStatus, Question, read_job, read_status

SETTINGS = Settings(
    source=SourceSettings(fps=4, chunk_s=1.5),
    pipeline=({"name": "rlt", "threshold": 0.05}, {"name": "tome", "keep": 0.5}),
    question="Wer läuft?",
)
JOB = Job(
    id="cam-1",
    url="http://host/späti.mp4?a=1&b=2",
    questions=(
        Question(id="one", prompt="Describe what happens."),
        Question(id="two", prompt='Wie viele "Dinge"?\n'),
    ),
    settings=SETTINGS,
)


def test_a_job_comes_back_as_it_was() -> None:
    record = JOB.record()
    assert all(isinstance(value, str) for value in record.values())
    assert read_job("cam-1", record) == JOB


def test_a_job_that_has_gone_on_is_still_the_same_job() -> None:
    record = {**JOB.record(), "state": "failed", "last_chunk": "7", "error": "it broke"}
    assert read_job("cam-1", record) == JOB
    assert read_status(record) == JobStatus(state="failed", last_chunk=7, error="it broke")


def test_a_new_job_is_running() -> None:
    assert read_status(JOB.record()) == JobStatus(state="running", last_chunk=None, error=None)


@pytest.mark.parametrize("state", ["running", "ended", "failed"])
def test_states_are_read(state: str) -> None:
    assert read_status({"state": state}).state == state


def test_no_chunk_at_all_is_not_the_same_as_not_yet() -> None:
    assert read_status({"last_chunk": "0"}).last_chunk == 0


def spec(**changes: Any) -> dict[str, str]:
    whole = json.loads(JOB.record()["spec"]) | changes
    return {"spec": json.dumps({k: v for k, v in whole.items() if v is not None})}


MALFORMED = {
    "no_spec": {"state": "running"},
    "no_json": {"spec": "{"},
    "no_object": {"spec": "[1]"},
    "null": {"spec": "null"},
    "no_url": spec(url=None),
    "no_questions": spec(questions=None),
    "a_number_of_questions": spec(questions=3),
    "questions_of_text": spec(questions=["What?"]),
    "a_question_without_prompt": spec(questions=[{"id": "one"}]),
    "a_question_with_more": spec(questions=[{"id": "one", "prompt": "What?", "when": "never"}]),
    "settings_of_text": spec(settings="default"),
    "settings_out_of_bounds": spec(settings={"source": {"fps": -1}, "queue": {"ahead": 0}}),
    "settings_of_a_newer_version": spec(settings={"sauce": {"fps": 1}}),
}


@pytest.mark.parametrize("record", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_record_is_refused_by_name(record: dict[str, str]) -> None:
    with pytest.raises(QueueError, match=r"^the record of job cam-1 is malformed: .") as caught:
        read_job("cam-1", record)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("last", ["", "seven", "1.5"])
def test_a_malformed_progress_is_refused(last: str) -> None:
    with pytest.raises(QueueError, match="last_chunk"):
        read_status({"state": "running", "last_chunk": last})
