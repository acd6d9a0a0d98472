"""The operators a stream runs through, built from configuration and checked before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from operators import OPERATORS, OperatorError, PixelOperator, RLTState, TokenOperator, build
from streamer.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """At most one operator chooses cells before the encoder; any number reduce tokens after it."""

    pixel: PixelOperator[RLTState] | None = None
    token: tuple[TokenOperator, ...] = ()
    names: tuple[str, ...] = ()


def build_pipeline(entries: Sequence[Mapping[str, object]], *, where: str = "pipeline") -> Pipeline:
    """Builds every entry, `{name: …, setting: …}`; all problems are told together.

    Raises ConfigError.
    """
    problems: list[str] = []
    pixel: PixelOperator[RLTState] | None = None
    token: list[TokenOperator] = []
    names: list[str] = []
    for i, entry in enumerate(entries):
        settings = dict(entry)
        name = settings.pop("name", None)
        if not isinstance(name, str):
            problems.append(f"{where}[{i}]: an entry needs a name, e.g. {{name: rlt}}")
            continue
        try:
            operator = build(name, settings)
        except OperatorError as exc:
            problems.append(f"{where}[{i}]: {exc}")
            continue
        names.append(name)
        if isinstance(operator, TokenOperator):
            token.append(operator)
        elif isinstance(operator, PixelOperator):
            if pixel is not None or token:
                problems.append(
                    f"{where}[{i}]: {name} chooses cells before the encoder; "
                    "give one such operator at most, and first"
                )
            pixel = operator
    if problems:
        raise ConfigError("; ".join(problems))
    return Pipeline(pixel=pixel, token=tuple(token), names=tuple(names))


def operator_schemas() -> dict[str, dict[str, Any]]:
    """The settings of every operator as JSON schema, by name, for those without torch."""
    return {
        name: {**TypeAdapter(operator).json_schema(), "additionalProperties": False}
        for name, operator in OPERATORS.items()
    }
