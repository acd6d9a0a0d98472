"""A folder that shows what is kept of a video, and by which test."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from streamer.errors import ConfigError, SourceError
from streamer.inspection.picture import draw
from streamer.inspection.plot import plot_shares
from streamer.inspection.walk import Choice, Look


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What one operator kept of all that was looked at."""

    name: str
    tubelets: int
    kept: int
    dense: int
    keyframes: int
    """I-chunks."""

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.kept / self.dense:.1%} of {self.dense} cells kept, "
            f"{self.tubelets} tubelets, {self.keyframes} I-chunks"
        )


def inspect(looks: Iterable[Look], folder: Path, *, title: str, every: int = 1) -> list[Summary]:
    """Write `folder`, and say what was kept.

    tubelets.jsonl has a line for each tubelet and operator: the fields of Choice, and its share.
    share.svg shows the shares over time. NAME/00012.jpg is tubelet 12 as operator NAME leaves it,
    for one tubelet in `every`.

    Raises: ConfigError if the folder holds anything already or cannot be written; SourceError if
    there was nothing to look at.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"--out {folder} is not empty; give a new folder, or empty it first")
        return _write(looks, folder, title=title, every=every)
    except OSError as exc:
        raise ConfigError(f"--out {folder} cannot be written: {exc.strerror or exc}") from exc


def _write(looks: Iterable[Look], folder: Path, *, title: str, every: int) -> list[Summary]:
    choices: list[Choice] = []
    with (folder / "tubelets.jsonl").open("w", encoding="utf-8") as lines:
        for look in looks:
            for choice, keep in zip(look.choices, look.keep, strict=True):
                choices.append(choice)
                record = {
                    **asdict(choice),
                    "t": round(choice.t, 3),
                    "share": round(choice.share, 4),
                }
                lines.write(json.dumps(record) + "\n")
                if choice.tubelet % every == 0:
                    pictures = folder / choice.name
                    pictures.mkdir(exist_ok=True)
                    drawn = Image.fromarray(draw(look.frames, keep).numpy())
                    drawn.save(pictures / f"{choice.tubelet:05}.jpg", quality=85)
    if not choices:
        raise SourceError(f"{title}: the source gave nothing to look at")
    plot_shares(choices, folder / "share.svg", title=title)
    return _summaries(choices)


def _summaries(choices: list[Choice]) -> list[Summary]:
    summaries: Mapping[str, list[Choice]] = {
        name: [choice for choice in choices if choice.name == name]
        for name in dict.fromkeys(choice.name for choice in choices)
    }
    return [
        Summary(
            name=name,
            tubelets=len(own),
            kept=sum(choice.kept for choice in own),
            dense=sum(choice.dense for choice in own),
            keyframes=len({choice.chunk for choice in own if choice.kind == "I"}),
        )
        for name, own in summaries.items()
    ]
