"""Options that several commands share, and how they become settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from streamer.errors import ConfigError

Config = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
Fps = Annotated[float | None, typer.Option("--fps", help="Sampled frames per second.")]
ChunkS = Annotated[float | None, typer.Option("--chunk-s", help="Media seconds per chunk.")]
Pipeline = Annotated[
    str | None,
    typer.Option(
        "--pipeline", help="Operators as YAML, e.g. '[{name: rlt, threshold: 0.05}]'; [] is dense."
    ),
]


def operators(text: str | None) -> list[Any] | None:
    """The entries of `--pipeline`; raises ConfigError where it is not a list."""
    if text is None:
        return None
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ConfigError(f"--pipeline is not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(value, list):
        raise ConfigError(
            f"--pipeline must be a list of operators, got {value!r}; "
            "e.g. '[{name: rlt}]', or '[]' for none"
        )
    return value


def overrides(given: dict[str, Any]) -> dict[str, Any]:
    """Settings by their dotted path, nested as in a YAML file; without those not given."""
    nested: dict[str, Any] = {}
    for path, value in given.items():
        if value is not None:
            *above, last = path.split(".")
            at = nested
            for part in above:
                at = at.setdefault(part, {})
            at[last] = value
    return nested
