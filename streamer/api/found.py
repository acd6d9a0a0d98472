"""The job that a path names, if the caller may see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path

from streamer.api.auth import Known
from streamer.api.problems import Refusal
from streamer.api.schemas import JOB_ID
from streamer.api.service import Here
from streamer.jobs import LOCAL

JobId = Annotated[str, Path(pattern=JOB_ID, description="the job's id")]


@dataclass(frozen=True, slots=True)
class Found:
    """A job and its record."""

    id: str
    record: Mapping[str, str]


def find(job: JobId, here: Here, caller: Known) -> Found:
    """Raises Refusal (404), also for the jobs of others."""
    record = here.queue.job(job)
    if record is None or not caller.sees(record.get("tenant", LOCAL)):
        raise missing(job)
    return Found(job, record)


def missing(job_id: str) -> Refusal:
    return Refusal(404, f"there is no job {job_id}")


Asked = Annotated[Found, Depends(find)]
