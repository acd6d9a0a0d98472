"""Where real clips are, and clips that are rendered when there are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamer.demo import write_clip

VIDEOS = Path(os.environ.get("VIDEOS_DIR", Path(__file__).parents[2].parent / "shared" / "videos"))


@pytest.fixture(scope="session")
def demo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's clip: 33 s, 17 chunks at the default settings."""
    path = tmp_path_factory.mktemp("demo") / "demo.mp4"
    write_clip(path)
    return path
