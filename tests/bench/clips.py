"""Clips for benchmarks: those that were named, or one that is rendered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from streamer.demo import write_clip


def some_clips(named: Sequence[Path], folder: Path) -> Sequence[Path]:
    """The named clips; the demo's, written into `folder`, where none was."""
    if named:
        return named
    rendered = folder / "clip.mp4"
    write_clip(rendered)
    return [rendered]


def common_folder(clips: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([clip.parent.absolute() for clip in clips]))
