"""What clients may send, and what a refusal looks like; answers are values of streamer.views."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from streamer.config import KeyframeSettings
from streamer.jobs import When

JOB_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
QUESTION_ID = r"^[A-Za-z0-9._-]{1,64}$"
IDEMPOTENCY_KEY = r"^[!-~]{1,255}$"

Prompt = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class SourceRequest(_Request):
    """Where the pictures come from."""

    url: str = Field(
        min_length=1,
        max_length=4096,
        description="URL of a video or a live stream (http, https, rtsp, rtmp); other addresses "
        "only where the service allows them",
        examples=["https://example.com/video.mp4"],
    )
    live: bool | None = Field(
        None,
        description="whether it goes on unread, for ever; if not given, its URL and server tell",
    )
    behind_s: float | None = Field(
        None,
        gt=0,
        le=600,
        description="a live job so far behind its source skips to the present",
    )


class QuestionRequest(_Request):
    """Something to be asked about the chunks of a job."""

    id: str | None = Field(
        None,
        pattern=QUESTION_ID,
        description="names it in the events; q1, q2 … if not given",
        examples=["moving"],
    )
    prompt: Prompt | None = Field(
        None,
        description="the service's own question if not given",
        examples=["How many things move?"],
    )
    when: When = Field("every", description="about every chunk, or only when what is seen changes")


class JobRequest(_Request):
    """What to caption, and how; what is left out is the service's default."""

    source: SourceRequest
    questions: list[QuestionRequest] | None = Field(
        None, description="[] asks nothing: the video is seen, and may be asked about at any time"
    )
    fps: float | None = Field(
        None, gt=0, le=60, description="sampled frames per second of media time"
    )
    chunk_s: float | None = Field(
        None, gt=0, le=60, description="media seconds per chunk; fps × chunk_s is a whole number"
    )
    pipeline: list[dict[str, Any]] | None = Field(
        None,
        max_length=16,
        description="operators in their order, each with its name and settings; [] keeps all",
        examples=[[{"name": "rlt", "threshold": 0.1}]],
    )
    keyframes: KeyframeSettings | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "source": {"url": "https://example.com/video.mp4"},
                    "questions": [
                        {"id": "moving", "prompt": "How many things move?", "when": "on_change"}
                    ],
                }
            ]
        }
    )


class PoolSize(_Request):
    """Between what bounds the number of workers follows their backlog."""

    min: int = Field(ge=0, le=1000)
    max: int = Field(ge=1, le=1000)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


def _widen(value: Any) -> Any:
    if isinstance(value, int):
        return {"min": value, "max": value}
    if not isinstance(value, dict):
        raise ValueError("give a number, or min and max")
    return value


Sizing = Annotated[
    PoolSize,
    BeforeValidator(_widen, json_schema_input_type=Annotated[int, Field(ge=1, le=1000)] | PoolSize),
]


class PoolsRequest(_Request):
    """New sizes of pools, as a number or as bounds; those left out stay as they are."""

    decode: Sizing | None = None
    tokenize: Sizing | None = None
    caption: Sizing | None = None

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"tokenize": 2, "decode": {"min": 1, "max": 3}}]}
    )


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    field: str = Field(description="its path, e.g. questions.0.prompt")
    message: str


class Problem(BaseModel):
    """A refusal (RFC 9457)."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "there is no job job-x7k2",
                }
            ]
        },
    )

    type: str = "about:blank"
    title: str = Field(description="the name of the status")
    status: int
    detail: str = Field(description="one sentence for a person")
    errors: list[FieldProblem] = Field(
        default_factory=list, description="of a request whose fields are wrong"
    )
