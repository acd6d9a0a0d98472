"""What a running service says of itself, as values: the JSON of its answers.

Unknown fields are ignored and absent ones take their default, so that a client and a service of
different versions understand each other.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from streamer.errors import WireError
from streamer.jobs import JobState, Question

T = TypeVar("T")


class _Described:
    """Views with their docstrings in their JSON schema; a service leaves no field out."""

    __slots__ = ()
    __pydantic_config__ = ConfigDict(
        use_attribute_docstrings=True, json_schema_serialization_defaults_required=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches(_Described):
    """Patches of a job's pictures so far."""

    total: int = 0
    kept: int = 0
    """Those that the vision encoder saw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens(_Described):
    """Visual tokens of a job's pictures so far."""

    dense: int = 0
    """Without any reduction."""
    kept: int = 0
    """Those that the LLM was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carriers(_Described):
    """The workers that carry a job; None where there is none at the moment."""

    decode: str | None = None
    tokenize: str | None = None
    caption: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView(_Described):
    """A job of a running service."""

    id: str
    state: JobState
    url: str = ""
    """Without credentials."""
    created_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None
    """Why it failed, or why its source ended early."""
    questions: tuple[Question, ...] = ()
    fps: float | None = None
    chunk_s: float | None = None
    pipeline: tuple[dict[str, Any], ...] = ()
    live: bool | None = None
    """Whether its source goes on unread; None while nobody knows."""
    connected: bool | None = None
    """Of a live job that runs: whether pictures come; None while nobody reads its source."""
    source_error: str | None = None
    """Why it is not connected."""
    lag_s: float | None = None
    """How far the captions are behind: of a live job behind the present, of a file behind what is
    tokenized."""
    level: int = 0
    """How far a live job that is behind is thinned out, 0 to 3."""
    reconnects: int = 0
    """Times that a live source had no pictures for a while."""
    gaps: int = 0
    """Spans without pictures, also of damaged files."""
    skipped: int = 0
    """Spans that were left out because the job was behind."""
    levels: int = 0
    """Changes of its level."""
    chunks: int = 0
    captions: int = 0
    unchanged: int = 0
    """Answers that were as the ones before."""
    asked: int = 0
    """Answers that the LLM was asked for; the others cost nothing."""
    t1: float = 0.0
    """Media seconds captioned."""
    patches: Patches = field(default_factory=Patches)
    tokens: Tokens = field(default_factory=Tokens)
    workers: Carriers = field(default_factory=Carriers)

    @property
    def finished(self) -> bool:
        """Nothing more will happen."""
        return self.state in ("ended", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView(_Described):
    """A worker of a running service."""

    name: str
    state: str = ""
    """starting, ready, or silent when it gave no sign of life for too long."""
    error: str | None = None
    """Why it cannot work, e.g. that its model cannot be loaded."""
    age_s: float = 0.0
    """Seconds since a new sign of life, as far as this service has looked."""
    node: str = ""
    """Address of its machine."""
    pid: int = 0
    backlog: int = 0
    """Jobs whose next chunk waits for its turn."""
    busy: float = 0.0
    """Share of its time in work, 0 to 1."""
    chunks: int = 0
    rss_bytes: int = 0
    jobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView(_Described):
    """Workers of one kind, and between what bounds their number follows the backlog."""

    min: int = 0
    max: int = 0
    workers: tuple[WorkerView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(_Described):
    """A running service as a whole."""

    fits: int | None = None
    """How many jobs may still be submitted."""
    limit: int | None = None
    active: int = 0
    """Jobs that have not ended."""
    pools: dict[str, PoolView] = field(default_factory=dict)
    """By kind: decode, tokenize, caption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage(_Described):
    """Some jobs, and the cursor of the next ones."""

    jobs: tuple[JobView, ...] = ()
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(_Described):
    """The answer to a question about now or about the past."""

    text: str
    id: str = ""
    job: str = ""
    prompt: str = ""
    t0: float = 0.0
    t1: float = 0.0
    """The media seconds that it was read from."""
    chunk0: int = 0
    chunk1: int = 0
    """The first and the last chunk of them."""
    wall0: float | None = None
    wall1: float | None = None
    """Of a live source: the span in Unix seconds."""
    visual_tokens: int = 0
    dense_tokens: int = 0
    """What the span would have been without any reduction."""
    input_tokens: int = 0
    """Visual tokens and text."""
    output_tokens: int = 0
    latency_ms: float = 0.0


def reader(cls: type[T]) -> Callable[[str | bytes], T]:
    """Reads `cls` from a JSON text; raises WireError, which names the field."""
    adapter = TypeAdapter(cls)

    def read(text: str | bytes) -> T:
        try:
            return adapter.validate_json(text)
        except ValidationError as exc:
            first = exc.errors()[0]
            at = ".".join([cls.__name__, *map(str, first["loc"])])
            found = reprlib.repr(first["input"])
            raise WireError(f"{at}: {found} cannot be read: {first['msg']}") from exc

    return read


def to_json_line(value: JobView | Status | Answer) -> str:
    """One line of JSON, without its newline."""
    return TypeAdapter(type(value)).dump_json(value).decode()
