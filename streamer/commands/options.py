"""Options that several commands share, and how they become settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from streamer.errors import ConfigError
from streamer.jobs import When

if TYPE_CHECKING:
    from streamer.config import SourceSettings
    from streamer.sources.info import StreamInfo

MAX_CHUNK_BYTES = 1 << 30
Config = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
Fps = Annotated[float | None, typer.Option("--fps", help="Sampled frames per second.")]
ChunkS = Annotated[float | None, typer.Option("--chunk-s", help="Media seconds per chunk.")]
Asking = Annotated[
    When | None,
    typer.Option(
        "--when", help="Ask about every chunk, or only when what is seen changes (on_change)."
    ),
]
Live = Annotated[
    bool | None,
    typer.Option(help="Whether it goes on unread, for ever; found out if not given."),
]
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


def check_chunk(video: StreamInfo, source: SourceSettings) -> None:
    """Raises ConfigError where one chunk's pictures would fill the memory."""
    size = source.fps * source.chunk_s * video.width * video.height * 3
    if size > MAX_CHUNK_BYTES:
        raise ConfigError(
            f"source: fps {source.fps:g} × chunk_s {source.chunk_s:g} is {size / 2**30:.1f} GiB of "
            f"pictures a chunk for this video, more than {MAX_CHUNK_BYTES >> 30} GiB; lower either"
        )
