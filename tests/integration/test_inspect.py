"""`streamer inspect` as people run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamer", "inspect", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)


def test_both_change_tests_of_a_clip_are_drawn(demo_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "seen"
    done = run(demo_file, "--out", out, "--seconds", 8, "--every", 4)
    assert done.returncode == 0, done.stderr
    plain, robust = done.stdout.splitlines()
    assert plain.startswith("plain: ")
    assert robust.startswith("robust: ")
    lines = [json.loads(line) for line in (out / "tubelets.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["plain", "robust"] * 8
    assert {path.name for path in out.iterdir()} == {
        "tubelets.jsonl",
        "share.svg",
        "plain",
        "robust",
    }
    assert len(list((out / "robust").iterdir())) == 2


def test_a_pipeline_is_looked_at_alone(demo_file: Path, tmp_path: Path) -> None:
    given = ("--pipeline", "[{name: rlt, threshold: -1}, {name: tome}]", "--seconds", 2)
    done = run(demo_file, "--out", tmp_path / "seen", *given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("rlt: 100.0% of ")


def test_chunks_that_would_fill_the_memory_are_refused(demo_file: Path, tmp_path: Path) -> None:
    done = run(demo_file, "--out", tmp_path / "seen", "--fps", 60, "--chunk-s", 60)
    assert done.returncode == 1
    assert "fps 60 × chunk_s 60 is " in done.stderr


@pytest.mark.parametrize(
    ("url", "said"), [("none.mp4", "none.mp4: cannot be opened"), (".", "is a folder")]
)
def test_what_cannot_be_opened_is_one_sentence(url: str, said: str, tmp_path: Path) -> None:
    done = run(url, "--out", tmp_path / "seen")
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("streamer: ")
    assert said in line
