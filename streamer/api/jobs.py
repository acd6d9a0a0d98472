"""Jobs: made, listed, looked at, paused, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from streamer.api import examples
from streamer.api.auth import Known
from streamer.api.found import Asked, missing
from streamer.api.job_views import JobViews
from streamer.api.problems import Refusal, documented
from streamer.api.schemas import IDEMPOTENCY_KEY, JobRequest
from streamer.api.service import Here, Service
from streamer.api.submission import submit
from streamer.api.tail import standing
from streamer.jobs import LOCAL, JobState, read_status
from streamer.views import JobPage, JobView

CURSOR = r"^[0-9]{1,12}\.[0-9]{3}~[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=documented(401, 403, 422, 503))


@router.post(
    "",
    status_code=201,
    summary="Submit a job",
    response_description="The new job; `Location` is its address.",
    responses=documented(
        *(400, 413, 415, 429),
        answers={
            201: {"content": {"application/json": {"example": examples.JOB}}},
            200: {"description": "The key's job, made by an earlier request.", "model": JobView},
        },
    ),
)
def submit_job(
    request: JobRequest,
    response: Response,
    here: Here,
    caller: Known,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            pattern=IDEMPOTENCY_KEY,
            description="the same key with the same body gives the same job, however often",
        ),
    ] = None,
) -> JobView:
    """Starts to caption a URL as soon as there are workers for it."""
    job_id, replayed = submit(here, caller, request, idempotency_key)
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    if replayed:
        response.status_code = 200
        response.headers["Idempotent-Replayed"] = "true"
    return _view(here, job_id)


@router.get("", summary="List jobs", response_description="A page of jobs.")
def list_jobs(
    here: Here,
    caller: Known,
    state: Annotated[JobState | None, Query(description="only those in this state")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="most jobs of a page")] = 20,
    after: Annotated[
        str | None, Query(pattern=CURSOR, description="`next` of the page before")
    ] = None,
) -> JobPage:
    """The newest first. `next` is the cursor of the next page, null on the last one."""
    place = _place_of(after) if after else None
    placed = sorted(
        (
            (_place(job_id, record), job_id, record)
            for job_id, record in here.queue.records(here.queue.jobs()).items()
            if caller.sees(record.get("tenant", LOCAL))
        ),
        key=lambda job: job[0],
        reverse=True,
    )
    behind = [job for job in placed if place is None or job[0] < place]
    wanted = [job for job in behind if state is None or standing(job[2]).state == state]
    page = {job_id: record for _, job_id, record in wanted[:limit]}
    last = wanted[limit - 1][0] if len(wanted) > limit else None
    return JobPage(
        jobs=tuple(JobViews(here.queue, here.roster, here.clock).views(page)),
        next=f"{last[0]:.3f}~{last[1]}" if last else None,
    )


@router.get(
    "/{job}",
    summary="Look at a job",
    response_description="The job.",
    responses=documented(
        404, answers={200: {"content": {"application/json": {"example": examples.JOB}}}}
    ),
)
def get_job(found: Asked, here: Here) -> JobView:
    """Its state, and what it has cost and saved so far."""
    return JobViews(here.queue, here.roster, here.clock).view(found.id, found.record)


@router.delete(
    "/{job}",
    status_code=204,
    summary="Delete a job",
    response_description="It is gone.",
    responses=documented(404),
)
def delete_job(found: Asked, here: Here) -> None:
    """Ends the job, if it runs, and deletes everything that is stored of it.

    What was archived stays there.
    """
    here.queue.delete_job(found.id)


@router.post(
    "/{job}/pause",
    summary="Pause a job",
    response_description="The job.",
    responses=documented(404, 409),
)
def pause_job(found: Asked, here: Here) -> JobView:
    """Nothing more is read from its source until it is resumed; a second pause changes nothing."""
    return _set_paused(here, found.id, found.record, "1")


@router.post(
    "/{job}/resume",
    summary="Resume a job",
    response_description="The job.",
    responses=documented(404, 409),
)
def resume_job(found: Asked, here: Here) -> JobView:
    """Goes on where it was paused; a job that is not paused stays as it is."""
    return _set_paused(here, found.id, found.record, "")


@router.post(
    "/{job}/keyframe",
    status_code=202,
    summary="Ask for a keyframe",
    response_description="It comes with one of the next chunks.",
    responses=documented(404, 409),
)
def request_keyframe(found: Asked, here: Here) -> None:
    """Begins a new group: from there on nothing is needed that was tokenized before."""

    def changed(record: Mapping[str, str]) -> dict[str, str]:
        status = read_status(record)
        if status.finished:
            raise Refusal(409, f"job {found.id} has {status.state}; it has no further chunks")
        return {"keyframes": str(int(record.get("keyframes", "0")) + 1)}

    if not here.queue.change_job(found.id, changed):
        raise missing(found.id)


def _set_paused(here: Service, job_id: str, record: Mapping[str, str], paused: str) -> JobView:
    status = read_status(record)
    if status.finished:
        raise Refusal(409, f"job {job_id} has {status.state}; it cannot be paused or resumed")
    here.queue.update_job(job_id, {"paused": paused})
    return _view(here, job_id)


def _view(here: Service, job_id: str) -> JobView:
    record = here.queue.job(job_id)
    if record is None:
        raise missing(job_id)
    return JobViews(here.queue, here.roster, here.clock).view(job_id, record)


def _place(job_id: str, record: Mapping[str, str]) -> tuple[float, str]:
    try:
        return float(record.get("created_at", "0")), job_id
    except ValueError:
        return 0.0, job_id


def _place_of(cursor: str) -> tuple[float, str]:
    at, _, job_id = cursor.partition("~")
    return float(at), job_id
