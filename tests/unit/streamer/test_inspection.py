"""What `streamer inspect` draws, counts and refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from operators import RLT
from streamer.core.keyframes import KeyframePolicy
from streamer.errors import ConfigError, SourceError
from streamer.inspection import inspect
from streamer.inspection.picture import DIM, GAP_PX, LINE, draw
from streamer.inspection.walk import Look, walk
from streamer.types import Frame
from streamer.vision.geometry import Geometry

HALF = (0.5, 0.5, 0.5)
GEOMETRY = Geometry(patch_size=16, merge_size=1, tubelet=2, mean=HALF, std=HALF, max_cells=64)


class Flat:
    """Grey pictures of 64 x 32, at the given media times; the top left cell changes each time."""

    def __init__(self, *times: float) -> None:
        self.times = times

    def frames(self, start_s: float = 0.0) -> Iterator[Frame]:
        for i, t in enumerate(self.times):
            image = np.full((32, 64, 3), 100, np.uint8)
            image[:16, :16] = 40 * (i % 5)
            yield Frame(pts=t, image=image)


def looks(*times: float, seconds: float = 60.0) -> list[Look]:
    found = walk(
        Flat(*times),
        {"plain": RLT(), "dense": None},
        geometry=GEOMETRY,
        policy=KeyframePolicy(),
        fps=2,
        chunk_s=2,
        seconds=seconds,
    )
    return list(found)


def evenly(count: int) -> list[float]:
    return [i / 2 for i in range(count)]


def test_each_operator_chooses_by_itself() -> None:
    found = looks(*evenly(8))
    plain, dense = zip(*(look.choices for look in found), strict=True)
    assert [choice.kept for choice in plain] == [8, 1, 1, 1]
    assert [choice.kept for choice in dense] == [8] * 4
    assert [choice.kind for choice in plain] == ["I", "I", "P", "P"]
    assert [choice.t for choice in plain] == [0.25, 1.25, 2.25, 3.25]
    assert [choice.chunk for choice in plain] == [1, 1, 2, 2]
    assert [choice.tubelet for choice in plain] == [0, 1, 2, 3]
    assert found[1].keep[0].tolist() == [[True] + [False] * 3, [False] * 4]


def test_only_so_many_seconds() -> None:
    assert len(looks(*evenly(40), seconds=3)) == 4


def test_what_follows_a_gap_is_kept_whole() -> None:
    found = looks(*evenly(4), *(20 + t for t in evenly(4)))
    assert [look.choices[0].reason for look in found] == ["first"] * 2 + ["gap"] * 2
    assert [look.choices[0].kept for look in found] == [8, 1, 8, 1]


def test_kept_cells_are_outlined_and_the_others_dimmed() -> None:
    frames = torch.full((2, 480, 960, 3), 200, dtype=torch.uint8)
    keep = torch.tensor([[True, False]])
    drawn = draw(frames, keep)
    assert drawn.shape == (480, 2 * 960 + GAP_PX, 3)
    for left in (0, 960 + GAP_PX):
        assert drawn[240, left + 240].tolist() == [200] * 3
        assert drawn[0, left + 240].tolist() == list(LINE)
        assert drawn[240, left + 720].tolist() == [int(200 * DIM)] * 3


def test_small_pictures_are_enlarged() -> None:
    drawn = draw(torch.zeros(1, 32, 64, 3, dtype=torch.uint8), torch.ones(2, 4, dtype=torch.bool))
    assert drawn.shape == (256, 512, 3)


def test_the_folder_holds_lines_pictures_and_a_plot(tmp_path: Path) -> None:
    out = tmp_path / "new" / "seen"
    plain, dense = inspect(looks(*evenly(12)), out, title="a clip", every=2)
    assert str(plain) == "plain: 27.1% of 48 cells kept, 6 tubelets, 1 I-chunks"
    assert dense.kept == dense.dense == 48
    lines = [json.loads(line) for line in (out / "tubelets.jsonl").read_text().splitlines()]
    assert len(lines) == 12
    assert lines[2] == {
        "name": "plain",
        "tubelet": 1,
        "t": 1.25,
        "chunk": 1,
        "kind": "I",
        "reason": "first",
        "kept": 1,
        "dense": 8,
        "share": 0.125,
    }
    assert "<svg" in (out / "share.svg").read_text()
    for name in ("plain", "dense"):
        pictures = sorted(path.name for path in (out / name).iterdir())
        assert pictures == ["00000.jpg", "00002.jpg", "00004.jpg"]


def test_a_title_is_text_in_any_script(tmp_path: Path) -> None:
    title = "a$b_$ 犬.mp4"  # neither a formula nor in the font
    for folder in ("one", "two"):
        inspect(looks(*evenly(4)), tmp_path / folder, title=title)
    one, two = ((tmp_path / folder / "share.svg").read_bytes() for folder in ("one", "two"))
    assert one == two
    assert title.encode() in one


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty; give a new folder"):
        inspect(looks(*evenly(4)), tmp_path, title="a clip")
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_folder_that_cannot_be_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be written: (File exists|Not a directory)"):
        inspect(looks(*evenly(4)), tmp_path / "file", title="a clip")


def test_a_source_without_pictures_fails(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a clip: the source gave nothing to look at"):
        inspect([], tmp_path, title="a clip")
