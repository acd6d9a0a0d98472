"""From a question in a conversation to its answer: a job is made, waited for, asked and deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio
import anyio.to_thread
from anyio import CancelScope

from streamer.adapters.asks import Reply
from streamer.adapters.uploads import upload_url
from streamer.api.asks import answer_stream, ask_request
from streamer.api.auth import Caller
from streamer.api.chat_question import ChatQuestion
from streamer.api.found import find
from streamer.api.job_views import JobViews
from streamer.api.problems import Refusal
from streamer.api.service import Service
from streamer.api.submission import check_fits, submit_for_one_answer
from streamer.errors import QueueError
from streamer.views import JobView

POLL_S = 0.25
LIVE_S = 10.0
"""Media time of a live source after which it is asked about."""
KEPT_S = 60.0
"""How long a job that was made for an answer may be left behind by a process that died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A job that can be asked, or will be."""

    job: str
    own: bool
    """It was made for this question, and is of no use to anybody else."""
    upload: str | None
    deadline: float
    """Unix seconds until which the video's end is waited for."""


def prepare(here: Service, caller: Caller, question: ChatQuestion) -> Subject:
    """Everything that can be refused before an answer begins. Raises Refusal, QueueError."""
    answer_s = here.settings.api.answer_s
    deadline, kept_s = here.clock.now() + answer_s, 2 * answer_s + KEPT_S
    if question.job is not None:
        found = find(question.job, here, caller)
        return Subject(job=found.id, own=False, upload=None, deadline=deadline)
    upload = None
    if question.video is not None:
        check_fits(here, caller)  # before many bytes go where they would be of no use
        upload = here.uploads.put(question.video, keep_s=kept_s)
    try:
        job = submit_for_one_answer(
            here,
            caller,
            upload_url(upload) if upload else question.url or "",
            upload=upload is not None,
            until=here.clock.now() + kept_s,
        )
    except (Refusal, QueueError):
        if upload is not None:
            here.uploads.drop(upload)
        raise
    return Subject(job=job, own=True, upload=upload, deadline=deadline)


async def answers(
    here: Service, subject: Subject, prompt: str, max_new_tokens: int | None
) -> AsyncGenerator[Reply | None]:
    """What is said, as it grows, to the last reply; None now and then while there is nothing new.

    However it ends, a job that was made for this answer is deleted. Raises Refusal, QueueError.
    """
    try:
        t1: float | None = None
        while subject.own and t1 is None:
            t1 = await anyio.to_thread.run_sync(_seen, here, subject)
            if t1 is None:
                yield None
                await anyio.sleep(POLL_S)
        request = ask_request(
            here,
            job=subject.job,
            prompt=prompt,
            t0=None if t1 is None else 0.0,
            t1=t1,
            max_new_tokens=max_new_tokens,
        )
        async with _heard(answer_stream(here, request)) as replies:
            async for reply in replies:
                yield reply
    except Refusal as exc:
        raise _told(exc) from exc
    finally:
        with CancelScope(shield=True):
            await anyio.to_thread.run_sync(_forget, here, subject)


def _seen(here: Service, subject: Subject) -> float | None:
    """The end of what there is to be asked about; None while there will be more."""
    record = here.queue.job(subject.job)
    if record is None:
        raise Refusal(404, f"job {subject.job} was deleted meanwhile")
    view = JobViews(here.queue, here.roster, here.clock).view(subject.job, record)
    if view.finished or (view.live and view.t1 >= LIVE_S):
        if view.t1 > 0:
            return view.t1
        said = view.error or "it has no pictures"
        raise Refusal(400, said, members={"param": "messages", "code": "invalid_video"})
    if here.clock.now() > subject.deadline:
        raise _late(here, view)
    return None


def _late(here: Service, view: JobView) -> Refusal:
    limit_s = here.settings.api.answer_s
    why = view.source_error or f"{view.t1:g} s of it were seen"
    return Refusal(
        504,
        f"the video did not end within api.answer_s = {limit_s:g} s ({why}): give a shorter one, "
        "or submit it as a job and ask about job:<id>",
        members={"code": "timeout"},
    )


def _told(exc: Refusal) -> Refusal:
    """What an ask's refusal is called in OpenAI's protocol."""
    code = {409: "nothing_kept", 422: "context_length_exceeded"}.get(exc.status)
    if code is None:
        return exc
    return Refusal(400, exc.detail, members={"param": "messages", "code": code})


def _forget(here: Service, subject: Subject) -> None:
    """What cannot be deleted now, the service deletes when it is due."""
    with suppress(QueueError):
        if subject.own:
            here.queue.delete_job(subject.job)
        if subject.upload is not None:
            here.uploads.drop(subject.upload)


@asynccontextmanager
async def _heard(replies: AsyncIterator[Reply]) -> AsyncIterator[AsyncIterator[Reply | None]]:
    """The same, with None for every POLL_S of silence; at the end the source is closed."""
    waiting: asyncio.Future[Reply] | None = None

    async def heard() -> AsyncIterator[Reply | None]:
        nonlocal waiting
        while True:
            waiting = waiting or asyncio.ensure_future(anext(replies))
            done, _ = await asyncio.wait({waiting}, timeout=POLL_S)
            if not done:
                yield None
                continue
            task, waiting = waiting, None
            try:
                yield task.result()
            except StopAsyncIteration:
                return

    try:
        yield heard()
    finally:
        if waiting is not None:
            waiting.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await waiting
        close = getattr(replies, "aclose", None)
        if close is not None:
            await close()
