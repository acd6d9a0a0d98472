"""Questions of a running job: added and removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

from fastapi import APIRouter, Path

from streamer.api.found import Asked, missing
from streamer.api.problems import Refusal, documented
from streamer.api.schemas import QUESTION_ID, QuestionRequest
from streamer.api.service import Here, Service
from streamer.api.submission import free_id
from streamer.jobs import Question, encode_questions, read_questions, read_status

Questions = tuple[Question, ...]

router = APIRouter(
    prefix="/v1/jobs/{job}/questions",
    tags=["questions"],
    responses=documented(401, 403, 404, 409, 422, 503),
)


@router.post(
    "",
    status_code=201,
    summary="Add a question",
    response_description="The question, with its id.",
    responses=documented(400, 413, 415),
)
def add_question(request: QuestionRequest, found: Asked, here: Here) -> Question:
    """It is asked about the chunks from the first one that has no events yet."""
    most = here.settings.api.max_questions

    def added(questions: Questions) -> Questions:
        names = [question.id for question in questions]
        if request.id in names:
            raise Refusal(409, f"job {found.id} has a question {request.id} already")
        if len(questions) >= most:
            raise Refusal(409, f"job {found.id} has {most} questions; more are not allowed")
        name = request.id or free_id(names)
        prompt = request.prompt or here.settings.question
        new = Question(id=name, prompt=prompt, when=request.when)
        return (*questions, new)

    return _change(here, found.id, added)[-1]


@router.delete(
    "/{question}",
    status_code=204,
    summary="Remove a question",
    response_description="It is not asked any more.",
)
def remove_question(
    question: Annotated[str, Path(pattern=QUESTION_ID)], found: Asked, here: Here
) -> None:
    """Events that answer it stay. A job without questions is seen, and nothing is said of it."""

    def removed(questions: Questions) -> Questions:
        left = tuple(known for known in questions if known.id != question)
        if left == questions:
            raise Refusal(404, f"job {found.id} has no question {question}")
        return left

    _change(here, found.id, removed)


def _change(here: Service, job_id: str, change: Callable[[Questions], Questions]) -> Questions:
    """The questions of a job after a change; none that others make meanwhile is lost."""
    after: Questions = ()

    def changed(record: Mapping[str, str]) -> dict[str, str]:
        nonlocal after
        status = read_status(record)
        if status.finished:
            raise Refusal(409, f"job {job_id} has {status.state}; nothing more is asked")
        after = change(read_questions(record))
        return {"questions": encode_questions(after)}

    if not here.queue.change_job(job_id, changed):
        raise missing(job_id)
    return after
