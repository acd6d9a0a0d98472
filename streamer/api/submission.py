"""From a request to a job: defaults filled in, everything checked, made once per key."""

from __future__ import annotations

import json
import secrets
from base64 import b32encode
from collections.abc import Mapping, Sequence
from hashlib import sha256

from pydantic import ValidationError

from streamer.adapters.queue import Room, check_room
from streamer.api.auth import Caller
from streamer.api.pipelines import pipeline_problems
from streamer.api.problems import Refusal, field_problems, invalid
from streamer.api.room import occupancy, room
from streamer.api.schemas import FieldProblem, JobRequest, QuestionRequest
from streamer.api.service import Service
from streamer.config import JobSettings, Settings, SourceSettings
from streamer.errors import NoRoom, SourceError
from streamer.jobs import Job, Question
from streamer.sources.guard import check_url

RETRY_S = "5"
"""Seconds after which there may be room again."""


def submit(
    service: Service, caller: Caller, request: JobRequest, key: str | None
) -> tuple[str, bool]:
    """The job's id, and whether the request had made it before.

    key: of idempotency; the same one gives the same job. Raises Refusal.
    """
    queue, digest = service.queue, _digest(request)
    job_id = _random_id() if key is None else _keyed_id(caller.tenant, key)
    record = None if key is None else queue.job(job_id)
    if record is None:
        job = _job(service, caller, job_id, request)
        if _create(service, caller, job, {"request": digest}):
            return job_id, False
    record = record or queue.job(job_id) or {}
    if record.get("request") != digest:
        said = "was used with another body; take a new one"
        raise invalid(FieldProblem(field="Idempotency-Key", message=said))
    return job_id, key is not None


def _job(service: Service, caller: Caller, job_id: str, request: JobRequest) -> Job:
    """The job that is asked for, if it can be one."""
    settings = service.settings
    job = Job(
        id=job_id,
        url=request.source.url,
        questions=_questions(settings, request.questions),
        settings=_job_settings(settings, request),
        tenant=caller.tenant,
        created_at=service.clock.now(),
    )
    problems = pipeline_problems(job.settings.pipeline, service.roster.published("operators"))
    if problems:
        raise invalid(*problems)
    _check_url(service, job.url)
    return job


def submit_for_one_answer(
    service: Service, caller: Caller, url: str, *, upload: bool, until: float
) -> str:
    """The id of a job without questions that nobody keeps.

    upload: the URL is of an upload that the service has made itself, and not of a stranger's.
    until: Unix seconds after which it is deleted, whoever made it. Raises Refusal.
    """
    if not upload:
        _check_url(service, url)
    settings = service.settings.job
    job = Job(
        id=_random_id(),
        url=url,
        questions=(),
        settings=settings,
        tenant=caller.tenant,
        created_at=service.clock.now(),
    )
    _create(service, caller, job, {"delete_at": f"{until:.3f}"})
    return job.id


def check_fits(service: Service, caller: Caller) -> None:
    """Raises Refusal (429) while no further job of the caller fits."""
    free, active = room(service.settings, service.roster, caller), service.queue.active()
    try:
        check_room(free, active, caller.tenant)
    except NoRoom as exc:
        raise _full(str(exc), free, active, caller.tenant) from exc


def _check_url(service: Service, url: str) -> None:
    try:
        check_url(url, service.policy)
    except SourceError as exc:
        raise invalid(FieldProblem(field="source.url", message=str(exc))) from exc


def _create(service: Service, caller: Caller, job: Job, more: Mapping[str, str]) -> bool:
    """False when there is such a job already; more: fields of its record."""
    free = room(service.settings, service.roster, caller)
    record = job.record() | dict(more)
    try:
        return service.queue.create_job(job.id, record, tenant=job.tenant, room=free)
    except NoRoom as exc:
        raise _full(str(exc), free, service.queue.active(), job.tenant) from exc


def _full(said: str, free: Room, active: Mapping[str, str], tenant: str) -> Refusal:
    now = occupancy(free, active, tenant)
    return Refusal(
        429,
        said,
        headers={"Retry-After": RETRY_S},
        members={"fits": 0, "limit": now.limit, "active": now.active},
    )


def _questions(settings: Settings, asked: Sequence[QuestionRequest] | None) -> tuple[Question, ...]:
    if asked is None:
        return (Question(id="default", prompt=settings.question),)
    most = settings.api.max_questions
    if len(asked) > most:
        said = f"{len(asked)} questions are more than {most}, the setting api.max_questions"
        raise invalid(FieldProblem(field="questions", message=said))
    taken = [question.id for question in asked if question.id is not None]
    twice = [
        FieldProblem(field=f"questions.{i}.id", message=f"{question.id!r} is there twice")
        for i, question in enumerate(asked)
        if question.id is not None and taken.count(question.id) > 1
    ]
    if twice:
        raise invalid(*twice)
    questions: list[Question] = []
    for question in asked:
        name = question.id or free_id([*taken, *(made.id for made in questions)])
        prompt = question.prompt or settings.question
        questions.append(Question(id=name, prompt=prompt, when=question.when))
    return tuple(questions)


def free_id(taken: Sequence[str]) -> str:
    """The first of q1, q2 … that no question has."""
    return next(f"q{n}" for n in range(1, len(taken) + 2) if f"q{n}" not in taken)


def _job_settings(settings: Settings, request: JobRequest) -> JobSettings:
    default = settings.job
    given = {
        "fps": request.fps,
        "chunk_s": request.chunk_s,
        "live": request.source.live,
        "behind_s": request.source.behind_s,
    }
    source = default.source.model_dump() | {k: v for k, v in given.items() if v is not None}
    keyframes = request.keyframes.model_dump(exclude_unset=True) if request.keyframes else {}
    pipeline = default.pipeline if request.pipeline is None else tuple(request.pipeline)
    try:
        sampling = SourceSettings(**source)
    except ValidationError as exc:
        below = "chunk_s" if request.fps is None else "fps"
        raise invalid(*field_problems(exc.errors(), below=below)) from exc
    return JobSettings(
        source=sampling,
        pipeline=pipeline,
        keyframes=default.keyframes.model_copy(update=keyframes),
    )


def _digest(request: JobRequest) -> str:
    body = json.dumps(request.model_dump(), sort_keys=True, separators=(",", ":"))
    return sha256(body.encode()).hexdigest()


def _random_id() -> str:
    return f"job-{_letters(secrets.token_bytes(10))}"


def _keyed_id(tenant: str, key: str) -> str:
    return f"job-{_letters(sha256(f'{tenant} {key}'.encode()).digest()[:15])}"


def _letters(data: bytes) -> str:
    return b32encode(data).decode().lower().rstrip("=")
