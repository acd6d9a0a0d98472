"""Pipelines of requests, checked against the JSON schemas that the workers publish."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.validators import extend

from streamer.api.schemas import FieldProblem

STAGE = "x-stage"
"""Where a schema says in which stage its operator runs."""
DEEPEST = 16
"""How deep the settings of an operator may be nested."""
_VALIDATOR = extend(  # type: ignore[no-untyped-call]  # jsonschema
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer",
        lambda _, value: type(value) is int,  # as the operators have it: 2.0 is none
    ),
)


def pipeline_problems(
    pipeline: Sequence[Mapping[str, Any]], published: str | None
) -> list[FieldProblem]:
    """What is wrong with the entries, each {name: …, setting: …}.

    published: operators' JSON schemas by name; None before the first worker has started, when only
    the names' presence can be checked.
    """
    schemas: dict[str, Any] | None = None if published is None else json.loads(published)
    found = [
        problem
        for i, entry in enumerate(pipeline)
        for problem in _entry_problems(f"pipeline.{i}", dict(entry), schemas)
    ]
    return found or _order_problems([entry["name"] for entry in pipeline], schemas or {})


def _order_problems(names: Sequence[str], schemas: Mapping[str, Any]) -> list[FieldProblem]:
    """Operators before the encoder come first, and alone; those inside the LLM last."""
    stages = [schemas.get(name, {}).get(STAGE) for name in names]
    for i, (name, stage) in enumerate(zip(names, stages, strict=True)):
        if stage == "pixel" and i:
            said = f"{name} chooses cells before the encoder; give one such operator, and first"
        elif stage == "token" and "decoder" in stages[:i]:
            said = f"{name} reduces tokens after the encoder; put it before those inside the LLM"
        else:
            continue
        return [FieldProblem(field=f"pipeline.{i}.name", message=said)]
    return []


def _entry_problems(
    field: str, settings: dict[str, Any], schemas: dict[str, Any] | None
) -> list[FieldProblem]:
    flaws = [
        FieldProblem(field=f"{field}.{name}", message=flaw)
        for name, value in settings.items()
        if (flaw := _flaw(name) or _flaw(value))
    ]
    if flaws:
        return flaws
    name = settings.pop("name", None)
    if not isinstance(name, str):
        said = 'an entry needs a name, e.g. {"name": "rlt"}'
        return [FieldProblem(field=f"{field}.name", message=said)]
    if schemas is None:
        return []
    if name not in schemas:
        close = get_close_matches(name, schemas, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        said = f"operator {name[:80]!r} does not exist; there are: {', '.join(sorted(schemas))}"
        return [FieldProblem(field=f"{field}.name", message=said + hint)]
    schema = schemas[name]
    found = _VALIDATOR(schema).iter_errors(settings)
    return [
        FieldProblem(field=".".join([field, *map(str, error.path)]), message=error.message)
        for error in found
    ]


def _flaw(value: object, depth: int = 0) -> str | None:
    """Why a value, though Python reads it from JSON, is none that can be stored and shown."""
    if depth > DEEPEST:
        return "is nested too deeply"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if isinstance(value, str) and _is_broken(value):
        return "is not a text"
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    if not isinstance(inner, list):
        return None
    return next((flaw for item in inner if (flaw := _flaw(item, depth + 1))), None)


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
