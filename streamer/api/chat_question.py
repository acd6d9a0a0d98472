"""What a conversation asks: the text of its last user, about its one video."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from streamer.api.chat_schemas import LONGEST_PROMPT, ChatRequest, TextPart, VideoPart
from streamer.api.problems import Refusal
from streamer.api.schemas import JOB_ID

_DATA = re.compile(r"data:(?:video/[\w.+-]+|application/octet-stream);base64,")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatQuestion:
    """A question, and the one of three ways in which its video is given."""

    prompt: str
    job: str | None = None
    url: str | None = None
    video: bytes | None = None


def read_question(request: ChatRequest, *, max_upload_bytes: int) -> ChatQuestion:
    """Raises Refusal (400, 413)."""
    videos = [
        part.video_url.url
        for message in request.messages
        if isinstance(message.content, list)
        for part in message.content
        if isinstance(part, VideoPart)
    ]
    if len(videos) != 1:
        raise _refused(f"{len(videos)} video_url parts: give exactly one, in any of the messages")
    prompt, url = _prompt(request), videos[0]
    if url.startswith("job:"):
        job = url.removeprefix("job:")
        if not re.fullmatch(JOB_ID, job):
            raise _refused(f"{url[:80]!r} names no job; it looks like job:<id>")
        return ChatQuestion(prompt=prompt, job=job)
    if url.startswith("data:"):
        return ChatQuestion(prompt=prompt, video=_decoded(url, max_upload_bytes))
    return ChatQuestion(prompt=prompt, url=url)


def _prompt(request: ChatRequest) -> str:
    asked = [message for message in request.messages if message.role == "user"]
    content = asked[-1].content if asked else None
    parts = (
        [content]
        if isinstance(content, str)
        else [part.text for part in content or () if isinstance(part, TextPart)]
    )
    prompt = "\n".join(parts).strip()
    if not prompt:
        raise _refused("the last user message has no text: ask something about the video")
    if len(prompt) > LONGEST_PROMPT:
        said = f"the question has {len(prompt)} characters; at most {LONGEST_PROMPT} are allowed"
        raise _refused(said, code="context_length_exceeded")
    return prompt


def _decoded(url: str, max_upload_bytes: int) -> bytes:
    head = _DATA.match(url)
    if head is None:
        raise _refused("a video in the request looks like data:video/mp4;base64,…")
    try:
        video = base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as exc:
        raise _refused("the video in the request is not base64") from exc
    if len(video) > max_upload_bytes:
        said = f"the video has {len(video)} bytes, more than {max_upload_bytes}: give its URL"
        raise Refusal(413, said, members={"param": "messages"})
    return video


def _refused(said: str, *, code: str | None = None) -> Refusal:
    return Refusal(400, said, members={"param": "messages", "code": code})
