"""A job: what to caption and how. Its record in the queue is this, and how far it has come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from streamer.config import JobSettings
from streamer.errors import WireError

JobState = Literal["queued", "running", "paused", "ended", "failed"]

When = Literal["every", "on_change"]

LOCAL = "local"
"""The tenant where there are no tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Asked about the chunks of a job."""

    id: str
    prompt: str
    when: When = "every"
    """About every chunk, or only when what is seen changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One source to be captioned."""

    id: str
    url: str
    questions: tuple[Question, ...]
    settings: JobSettings = field(default_factory=JobSettings)
    tenant: str = LOCAL
    """Whose it is: jobs of one tenant share their turns."""
    created_at: float = 0.0
    """Unix seconds."""

    def record(self) -> dict[str, str]:
        """The fields of a new job."""
        spec = {"url": self.url, "settings": self.settings.model_dump(mode="json")}
        return {
            "spec": json.dumps(spec),
            "questions": encode_questions(self.questions),
            "tenant": self.tenant,
            "created_at": f"{self.created_at:.3f}",
            "state": "queued",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """How far a job has come."""

    state: JobState
    last_chunk: int | None
    """Number of the last entry of the token stream, once there will be no more."""
    error: str | None
    """Why it failed, or why the source ended early: one sentence."""
    ended_at: float | None = None
    """Unix seconds."""

    @property
    def finished(self) -> bool:
        """Nothing more will happen."""
        return self.state in ("ended", "failed")


def read_job(job_id: str, record: Mapping[str, str]) -> Job:
    """The job behind a record."""
    try:
        spec: dict[str, Any] = json.loads(record["spec"])
        return Job(
            id=job_id,
            url=spec["url"],
            questions=read_questions(record),
            settings=JobSettings(**spec["settings"]),
            tenant=record.get("tenant", LOCAL),
            created_at=float(record.get("created_at", 0)),
        )
    except (KeyError, TypeError, ValueError) as exc:
        said = " ".join(str(exc).split())
        raise WireError(f"the record of job {job_id} is malformed: {said}") from exc


def read_questions(record: Mapping[str, str]) -> tuple[Question, ...]:
    """The questions at this moment; they may change while the job runs."""
    questions = tuple(Question(**question) for question in json.loads(record["questions"]))
    for question in questions:
        if question.when not in get_args(When):
            raise ValueError(f"when is {question.when!r}, not one of {', '.join(get_args(When))}")
    return questions


def encode_questions(questions: tuple[Question, ...]) -> str:
    return json.dumps([asdict(question) for question in questions])


def read_status(record: Mapping[str, str]) -> JobStatus:
    """The progress in a record."""
    state = record.get("state", "queued")
    last, ended_at = record.get("last_chunk"), record.get("ended_at")
    if last is not None and not last.isdecimal():
        raise WireError(f"a job's record is malformed: last_chunk {last!r} is not a number")
    try:
        ended = float(ended_at) if ended_at else None
    except ValueError as exc:
        raise WireError(f"a job's record is malformed: ended_at {ended_at!r}") from exc
    status = JobStatus(
        state="queued",
        last_chunk=int(last) if last is not None else None,
        error=record.get("error"),
        ended_at=ended,
    )
    if state in ("ended", "failed"):
        return replace(status, state="ended" if state == "ended" else "failed")
    if record.get("paused"):
        return replace(status, state="paused")
    return replace(status, state="running" if state == "running" else "queued")
