"""The operators a stream runs through, built from configuration and checked before it starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from operators import (
    OPERATORS,
    Operator,
    OperatorError,
    PixelOperator,
    Planner,
    Stage,
    TokenOperator,
    build,
    settings_of,
)
from streamer.errors import ConfigError

PROVIDED: dict[Stage, frozenset[str]] = {
    "pixel": frozenset(),
    "token": frozenset({"attention", "keys", "change"}),
    "decoder": frozenset({"attention"}),
}
"""The signals that each stage has to give."""
_ORDER: tuple[Stage, ...] = ("pixel", "token", "decoder")
_WHERE: dict[Stage, str] = {
    "pixel": "chooses cells before the encoder",
    "token": "reduces tokens after the encoder",
    "decoder": "reduces inside the LLM",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """At most one operator chooses cells before the encoder; any number reduce tokens after it, and
    any number between the layers of the LLM."""

    pixel: PixelOperator[Any] | None = None
    token: tuple[TokenOperator, ...] = ()
    decoder: tuple[Planner, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def needs(self) -> frozenset[str]:
        """The signals that the encoder is asked for."""
        return frozenset[str]().union(*(operator.needs for operator in self.token))

    @property
    def remembers(self) -> bool:
        """Whether anything after the choice of cells carries a state from chunk to chunk."""
        return "change" in self.needs or any(operator.temporal for operator in self.token)

    @property
    def proportional(self) -> bool:
        """Whether the LLM attends to a token in proportion to what it stands for."""
        return any(operator.proportional for operator in (*self.token, *self.decoder))


def build_pipeline(entries: Sequence[Mapping[str, object]], *, where: str = "pipeline") -> Pipeline:
    """Builds every entry, `{name: …, setting: …}`; all problems are told together.

    Raises ConfigError.
    """
    problems: list[str] = []
    built: list[Operator] = []
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
        if problem := _misplaced(name, operator, built) or _unmet(name, operator):
            problems.append(f"{where}[{i}]: {problem}")
        built.append(operator)
        names.append(name)
    if problems:
        raise ConfigError("; ".join(problems))
    return Pipeline(
        pixel=next((o for o in built if isinstance(o, PixelOperator)), None),
        token=tuple(o for o in built if isinstance(o, TokenOperator) and o.stage == "token"),
        decoder=tuple(o for o in built if isinstance(o, Planner) and o.stage == "decoder"),
        names=tuple(names),
    )


def _misplaced(name: str, operator: Operator, before: Sequence[Operator]) -> str | None:
    stage = operator.stage
    if stage == "pixel" and before:
        return f"{name} {_WHERE[stage]}; give one such operator at most, and first"
    if stage == "decoder" and not (isinstance(operator, Planner) and operator.layers):
        return f"{name} cannot run inside the LLM: that takes a plan, and layers to run before"
    if any(_ORDER.index(other.stage) > _ORDER.index(stage) for other in before):
        return f"{name} {_WHERE[stage]}; put it before those that reduce inside the LLM"
    if stage == "decoder" and isinstance(operator, Planner):
        above = [o.layers[-1] for o in before if isinstance(o, Planner) and o.stage == "decoder"]
        if above and operator.layers[0] <= above[-1]:
            return (
                f"{name} reduces before layer {operator.layers[0]}, the one ahead of it before "
                f"layer {above[-1]}; give operators inside the LLM in the order of their layers"
            )
    return None


def _unmet(name: str, operator: Operator) -> str | None:
    if missing := sorted(operator.needs - PROVIDED[operator.stage]):
        given = ", ".join(sorted(PROVIDED[operator.stage])) or "none"
        return f"{name} needs the signal {missing[0]!r}; its stage is given: {given}"
    return None


def operator_schemas() -> dict[str, dict[str, Any]]:
    """The settings of every operator as JSON schema, by name, for those without torch."""
    return {name: _schema(operator) for name, operator in OPERATORS.items()}


def _schema(operator: type[Operator]) -> dict[str, Any]:
    schema = TypeAdapter(operator).json_schema()
    properties = schema.setdefault("properties", {})
    for known in settings_of(operator):
        properties[known.name] |= {"description": known.meaning} | _bounds(known.within)
    return {**schema, "additionalProperties": False, "x-stage": operator.stage}


def _bounds(within: str | None) -> dict[str, float]:
    if within is None:
        return {}
    low, high = map(float, within[1:-1].split(","))
    least = "minimum" if within[0] == "[" else "exclusiveMinimum"
    most = "maximum" if within[-1] == "]" else "exclusiveMaximum"
    return {word: end for word, end in ((least, low), (most, high)) if math.isfinite(end)}
