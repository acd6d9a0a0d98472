"""What is asked during an evaluation, what was said, and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Key(NamedTuple):
    """What is the same for the same question to another pipeline."""

    clip: str
    item: str
    t1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One thing that an answer got right or wrong."""

    right: bool
    true: str = ""
    said: str = ""
    """Both where there are few values to confuse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutClaim:
    """Whether an answer says that there was a cut, and when that would have been."""

    at_s: float
    claimed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """An answer beside what was expected."""

    expected: str
    marks: Mapping[str, Mark] = field(default_factory=dict)
    """By attribute; none where nothing certain is known."""
    cut: CutClaim | None = None
    """Of captions that are searched for cuts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A question to a stream, and the judge of its answer."""

    item: str
    """What it is called; of one clip and moment no two are alike."""
    prompt: str
    judge: Callable[[str], Judgement]
    span: tuple[float, float] | None = None
    """The media seconds it is about; None: the group so far, as captions are made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was said."""

    pipeline: str
    clip: str
    item: str
    t0: float
    t1: float
    """The media seconds of the chunk, or of the span that was asked about."""
    question: str
    said: str
    judgement: Judgement
    tokens: int
    """Visual tokens of the chunk, or of the span's context, that the LLM was given."""
    dense: int
    """What they would have been without any reduction."""
    llm_ms: float
    shared: int = 1
    """How many answers are one thing said, judged differently; llm_ms is this one's part."""
    error: str = ""
    """Why there is no answer."""

    @property
    def key(self) -> Key:
        return Key(clip=self.clip, item=self.item, t1=self.t1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkCost:
    """What one chunk took before anything was asked."""

    clip: str
    seconds: float
    """Of media time."""
    tokens: float
    """Visual tokens that a layer of the LLM is given, on average over its layers."""
    dense: int
    decode_ms: float
    encode_ms: float
    """Choice of cells, vision tower and operators."""


@dataclass(slots=True, kw_only=True)
class Run:
    """All that one pipeline said."""

    label: str
    family: str
    dense: bool
    """Whether it leaves nothing out: what the others are compared with."""
    answers: list[Answer] = field(default_factory=list)
    costs: list[ChunkCost] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    """Clips that could not be read to their end, and why."""
