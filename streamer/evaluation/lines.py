"""A dataset file: JSON lines, each a question about a video, or the cuts that it has."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from streamer.errors import ConfigError
from streamer.evaluation.cuts import CUT_SCORES, SAYS_CUT
from streamer.evaluation.matching import Match, chosen

ALL = "all"
"""The attribute that every question counts towards."""
Text = Annotated[str, Field(pattern=r"\S")]


class _Line(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, strict=True
    )

    video: Text
    question: Text | None = None
    """None asks what every chunk is asked."""
    id: Text | None = None


class QuestionLine(_Line):
    """What is asked about a video, and the right answers."""

    answer: Text | tuple[Text, ...]
    choices: Annotated[tuple[Text, ...], Field(min_length=2, max_length=26)] | None = None
    start: float = Field(0.0, ge=0, alias="from")
    stop: float | None = Field(None, gt=0, alias="to")
    every: bool = False
    match: Match = "exact"
    attribute: Text | None = None

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.answer,) if isinstance(self.answer, str) else self.answer

    @field_validator("answer", "choices", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _fits(self) -> QuestionLine:
        if self.attribute in (ALL, *CUT_SCORES):
            raise ValueError(f"attribute: {self.attribute!r} is told of every file; give another")
        if not self.answers:
            raise ValueError("answer: there is none; give a text, or a list of texts")
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(f"to: {self.stop:g} is not after from, {self.start:g}")
        if self.choices is not None:
            if self.match != "exact":
                raise ValueError(f"match: {self.match!r} is not for choices; leave it out")
            for answer in self.answers:
                if chosen(answer, self.choices) is None:
                    raise ValueError(f"answer: {answer!r} is none of the choices, nor a letter")
        if self.match == "regex":
            for answer in self.answers:
                _compiled("answer", answer)
        return self


class CutLine(_Line):
    """The hard cuts of a video; every chunk's caption is searched for one."""

    cuts: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)]
    tolerance_s: float = Field(0.5, ge=0)
    says: Text = SAYS_CUT

    @field_validator("cuts", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _fits(self) -> CutLine:
        _compiled("says", self.says)
        return self


def read_lines(
    path: Path, *, missing: Callable[[str], str | None]
) -> list[tuple[int, QuestionLine | CutLine]]:
    """The lines of a file by their numbers; all that is wrong with it is told together.

    missing: says what is wrong with a video's name or URL, if anything.
    Raises ConfigError.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is not UTF-8 text; give JSON lines in UTF-8") from exc
    found: list[tuple[int, QuestionLine | CutLine]] = []
    problems: list[str] = []
    told: set[str] = set()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            parsed = _parsed(line)
        except _Wrong as exc:
            problems += [f"line {number}: {problem}" for problem in exc.problems]
            continue
        if parsed.video not in told and (wrong := missing(parsed.video)):
            told.add(parsed.video)
            problems.append(f"line {number}: video: {wrong}")
        found.append((number, parsed))
    problems += _twice(found)
    if problems:
        raise ConfigError(f"{path}: " + "; ".join(problems))
    if not found:
        raise ConfigError(f"{path} is empty; give one JSON object a line, with video and answer")
    return found


class _Wrong(Exception):
    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def _parsed(line: str) -> QuestionLine | CutLine:
    try:
        value = json.loads(line)
    except ValueError as exc:
        raise _Wrong([f"it is not JSON: {exc}"]) from None
    if not isinstance(value, dict):
        raise _Wrong([f"it is a {type(value).__name__}; give a JSON object with video and answer"])
    kind: type[QuestionLine] | type[CutLine] = CutLine if "cuts" in value else QuestionLine
    try:
        return kind.model_validate(value)
    except ValidationError as exc:
        raise _Wrong(list(dict.fromkeys(_problems(exc, kind)))) from None


def _problems(exc: ValidationError, kind: type[_Line]) -> Iterator[str]:
    for error in exc.errors():
        place = next((str(part) for part in error["loc"]), "")
        if error["type"] == "extra_forbidden":
            known = ", ".join(field.alias or name for name, field in kind.model_fields.items())
            yield f"{place}: there is no such field; there are: {known}"
        elif error["type"] == "missing":
            yield f"{place}: it must be given"
        elif not place:
            yield error["msg"].removeprefix("Value error, ")
        else:
            yield f"{place}: {error['input']!r} is not allowed: {_wanted(place, error)}"


_WANTED = {
    "answer": "give a text, or a list of texts",
    "attribute": "give a text",
    "choices": "give a list of 2 to 26 texts",
    "cuts": "give a list of at least one time, in seconds from 0 on",
    "every": "give true or false",
    "id": "give a text",
    "match": "give 'exact', 'contains' or 'regex'",
    "question": "give a text",
    "says": "give a regular expression",
    "video": "give a path or a URL",
}


def _wanted(place: str, error: Any) -> str:
    said = str(error["msg"])
    return _WANTED.get(place, said[0].lower() + said[1:])


def _compiled(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as exc:
        raise ValueError(f"{name}: {pattern!r} is not a regular expression: {exc}") from None


def _twice(found: list[tuple[int, QuestionLine | CutLine]]) -> list[str]:
    first = {f"line {number}": number for number, line in found if line.id is None}
    problems = []
    for number, line in found:
        if line.id is not None and line.id in first:
            problems.append(f"line {number}: id: {line.id!r} is line {first[line.id]}'s too")
        elif line.id is not None:
            first[line.id] = number
    return problems
