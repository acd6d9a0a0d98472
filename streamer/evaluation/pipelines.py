"""The pipelines that are compared: a label, a family that makes a curve, and operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

from streamer.core.pipeline import Pipeline, build_pipeline
from streamer.errors import ConfigError
from streamer.vision.context import Context

FIELDS = ("label", "family", "operators", "context")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One pipeline of a comparison."""

    label: str
    family: str
    """Those of one family are joined by a line."""
    pipeline: Pipeline
    context: Context | None = None
    """What the vision encoder shows to kept cells; as the model has it if None."""

    @property
    def dense(self) -> bool:
        """Whether it leaves nothing out."""
        return not self.pipeline.names


def candidate(
    entries: Sequence[Mapping[str, Any]],
    *,
    label: str | None = None,
    family: str | None = None,
    context: Context | None = None,
    where: str = "pipeline",
) -> Candidate:
    """One pipeline, called by its operators where it has no label. Raises ConfigError."""
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{where}: {entry!r} is no operator; give e.g. {{name: rlt}}")
    pipeline = build_pipeline(entries, where=where)
    return Candidate(
        label=label or _described(entries),
        family=family or "+".join(pipeline.names) or "dense",
        pipeline=pipeline,
        context=context,
    )


def read_candidates(path: Path) -> list[Candidate]:
    """The pipelines of a YAML file, `[{label: …, family: …, operators: […], context: …}, …]`.

    Raises ConfigError, all problems together.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(value, list) or not value:
        raise ConfigError(
            f"{path} must hold a list of pipelines, each {{label: …, operators: […]}}"
        )
    found: list[Candidate] = []
    problems: list[str] = []
    for i, entry in enumerate(value):
        try:
            found.append(_read(entry))
        except ConfigError as exc:
            problems.append(f"{path}: [{i}]: {exc}")
    if problems:
        raise ConfigError("; ".join(problems))
    return distinct(found, where=str(path))


def distinct(candidates: list[Candidate], *, where: str) -> list[Candidate]:
    """The same, if no two have one label. Raises ConfigError."""
    labels = [one.label for one in candidates]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigError(
            f"{where}: two pipelines are called {twice[0]!r}; give each its own label"
        )
    return candidates


def _read(entry: object) -> Candidate:
    if not isinstance(entry, dict):
        raise ConfigError(f"{entry!r} is no pipeline; give {{label: …, operators: […]}}")
    if strange := [key for key in entry if key not in FIELDS]:
        raise ConfigError(f"{strange[0]}: there is no such field; there are: {', '.join(FIELDS)}")
    operators = entry.get("operators")
    if not isinstance(operators, list):
        raise ConfigError(f"operators: {operators!r} is not a list; [] leaves nothing out")
    for name in ("label", "family"):
        if name in entry and not (isinstance(entry[name], str) and entry[name].strip()):
            raise ConfigError(f"{name}: {entry[name]!r} is not a text, e.g. rlt")
    context = entry.get("context")
    if context is not None and context not in get_args(Context):
        raise ConfigError(f"context: {context!r} is not one of {', '.join(get_args(Context))}")
    return candidate(
        operators,
        label=entry.get("label"),
        family=entry.get("family"),
        context=context,
        where="operators",
    )


def _described(entries: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for entry in entries:
        settings = " ".join(f"{key}={value}" for key, value in entry.items() if key != "name")
        parts.append(f"{entry['name']} {settings}".strip())
    return " + ".join(parts) or "dense"
