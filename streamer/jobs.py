"""A job: what to caption and how. Its record in the queue is this, and how far it has come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from streamer.config import Settings
from streamer.errors import QueueError

JobState = Literal["running", "ended", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Asked about every chunk."""

    id: str
    prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One source to be captioned."""

    id: str
    url: str
    questions: tuple[Question, ...]
    settings: Settings

    def record(self) -> dict[str, str]:
        """The fields of a new job."""
        spec = {
            "url": self.url,
            "questions": [asdict(question) for question in self.questions],
            "settings": self.settings.model_dump(mode="json"),
        }
        return {"spec": json.dumps(spec), "state": "running"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """How far a job has come."""

    state: JobState
    last_chunk: int | None
    """Number of the last entry of the token stream, once there will be no more."""
    error: str | None
    """Why it failed, or why the source ended early: one sentence."""


def read_job(job_id: str, record: Mapping[str, str]) -> Job:
    """The job behind a record."""
    try:
        spec: dict[str, Any] = json.loads(record["spec"])
        return Job(
            id=job_id,
            url=spec["url"],
            questions=tuple(Question(**question) for question in spec["questions"]),
            settings=Settings(**spec["settings"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        said = " ".join(str(exc).split())
        raise QueueError(f"the record of job {job_id} is malformed: {said}") from exc


def read_status(record: Mapping[str, str]) -> JobStatus:
    """The progress in a record."""
    state = record.get("state", "running")
    last = record.get("last_chunk")
    if last is not None and not last.isdecimal():
        raise QueueError(f"a job's record is malformed: last_chunk {last!r} is not a number")
    return JobStatus(
        state="ended" if state == "ended" else "failed" if state == "failed" else "running",
        last_chunk=int(last) if last is not None else None,
        error=record.get("error"),
    )
