"""A whole service, used with OpenAI's own client, unchanged."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from streamer.client import Client
from tests.processes import eventually, left_behind, running

pytestmark = pytest.mark.timeout(300)

QUESTION = "Describe what happens."
SECONDS = 33.0
"""Length of the demo's clip."""


@pytest.fixture(scope="module")
def service(demo_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    mark = uuid.uuid4().hex
    allowed = {"STREAMER__FETCH__ALLOW_PATHS": json.dumps([str(demo_file.parent)])}
    data = str(tmp_path_factory.mktemp("data"))
    with running(mark, "serve", "--port", "0", "--data", data, environment=allowed) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()
        process.communicate(timeout=60)
    assert left_behind(mark) == []


@pytest.fixture
def client(service: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service}/v1", api_key="none", max_retries=0, timeout=120)


def about(url: str) -> Any:
    parts = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": QUESTION}]
    return [{"role": "user", "content": parts}]


def no_jobs(service: str) -> bool:
    with Client(service) as ours:
        return list(ours.jobs()) == []


def test_a_caption_is_streamed_for_a_video_url(
    service: str, client: openai.OpenAI, demo_file: Path
) -> None:
    # When a video is asked about
    chunks = list(
        client.chat.completions.create(
            model="streamer",
            messages=about(demo_file.as_uri()),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    # Then the answer comes in pieces, with what it has cost, and says what it is about
    *spoken, final, usage = chunks
    text = "".join(chunk.choices[0].delta.content or "" for chunk in spoken)
    assert len([chunk for chunk in spoken if chunk.choices[0].delta.content]) > 1
    assert text.endswith(".")
    assert final.choices[0].finish_reason == "stop"
    assert final.model_extra
    assert final.model_extra["span"]["t1"] == SECONDS
    assert usage.usage
    assert usage.usage.prompt_tokens > 100
    assert usage.usage.completion_tokens > 3
    # and the job that was made for it is gone
    assert no_jobs(service)


def test_a_video_in_the_request_is_answered_like_its_url(
    service: str, client: openai.OpenAI, demo_file: Path
) -> None:
    data = f"data:video/mp4;base64,{base64.b64encode(demo_file.read_bytes()).decode()}"
    sent, named = (
        client.chat.completions.create(model="streamer", messages=about(url))
        for url in (data, demo_file.as_uri())
    )
    assert sent.choices[0].message.content
    assert sent.choices[0].message.content == named.choices[0].message.content
    assert sent.usage == named.usage
    assert no_jobs(service)


def test_what_is_no_video_is_said(service: str, client: openai.OpenAI) -> None:
    data = f"data:video/mp4;base64,{base64.b64encode(b'This is not a video.' * 99).decode()}"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="streamer", messages=about(data))
    assert caught.value.code == "invalid_video"
    assert no_jobs(service)


def test_a_job_is_asked_and_goes_on(service: str, client: openai.OpenAI, demo_file: Path) -> None:
    with Client(service) as ours:
        job = ours.submit(str(demo_file), questions=[])
        seen = [event.event for event in ours.events(job.id)]
        assert set(seen) == {"seen"}
        answer = client.chat.completions.create(model="streamer", messages=about(f"job:{job.id}"))
        assert answer.choices[0].message.content == ours.ask(job.id, QUESTION).text
        assert answer.usage
        assert answer.usage.prompt_tokens > 0
        ours.cancel(job.id)


def test_who_leaves_takes_the_job_along(
    service: str, client: openai.OpenAI, demo_file: Path
) -> None:
    stream = client.chat.completions.create(
        model="streamer", messages=about(demo_file.as_uri()), stream=True
    )
    assert next(iter(stream)).choices[0].delta.role == "assistant"
    assert not no_jobs(service)
    stream.close()
    assert eventually(lambda: no_jobs(service), within_s=10)
