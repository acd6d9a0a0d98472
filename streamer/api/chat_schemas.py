"""What clients of OpenAI's protocol may send, as far as it has a meaning here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

LONGEST_PROMPT = 2000

Text = Annotated[str, StringConstraints(max_length=1 << 16)]


class _Lenient(BaseModel):
    """Fields that have no meaning here are left alone, as such services do."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class TextPart(_Lenient):
    type: Literal["text"]
    text: Text


class VideoUrl(_Lenient):
    url: str = Field(
        min_length=1,
        description="of a video or a live stream, as a job's; `data:video/mp4;base64,…`; or "
        "`job:<id>`, a job of yours, which is asked about the present",
        examples=["https://example.com/video.mp4"],
    )


class VideoPart(_Lenient):
    type: Literal["video_url"]
    video_url: VideoUrl


Part = Annotated[TextPart | VideoPart, Field(discriminator="type")]


class ChatMessage(_Lenient):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[Part] | None = None


class StreamOptions(_Lenient):
    include_usage: bool = False


class ChatRequest(_Lenient):
    """A question about a video. What is not listed here is accepted and changes nothing.

    Answers are greedy: `temperature`, `top_p` and `seed` have no meaning.
    """

    model: str = Field(description="`streamer`, or the name of the model that captions")
    messages: list[ChatMessage] = Field(
        min_length=1,
        max_length=200,
        description="one has the video; the text of the last `user` message is the question",
    )
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    n: Literal[1] | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "streamer",
                    "stream": True,
                    "messages": [
                        {
                            "role": "user",
                            "content": [
                                {
                                    "type": "video_url",
                                    "video_url": {"url": "https://example.com/video.mp4"},
                                },
                                {"type": "text", "text": "What happens?"},
                            ],
                        }
                    ],
                }
            ]
        },
    )


class Usage(BaseModel):
    """Tokens of the request and of the answer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class Span(BaseModel):
    """What the answer is about, in media seconds."""

    job: str | None = Field(description="the job of `job:<id>`; others are gone already")
    t0: float | None = None
    t1: float | None = None


class Answer(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    index: int = 0
    message: Answer
    finish_reason: Literal["stop", "length"]


class ChatAnswer(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    span: Span


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "streamer"


class ModelList(BaseModel):
    """The names that `model` may have; all are the one model that captions."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ChatErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ChatError(BaseModel):
    """A refusal in OpenAI's shape."""

    error: ChatErrorDetail
