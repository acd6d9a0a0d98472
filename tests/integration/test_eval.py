"""`streamer eval` as a newcomer runs it."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import VIDEOS

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "evaluation.md"
FACTS = ROOT / "tests" / "facts"


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a script in `folder`, with this Python's commands on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def test_the_example_of_the_docs_works_as_it_is_written(tmp_path: Path) -> None:
    example = re.search(r"<!-- example -->\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert example is not None
    done = shell(example[1], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| all           | dense        |  4 |" in done.stdout
    assert "always a cut" in done.stdout
    with (tmp_path / "results" / "results.csv").open() as file:
        rows = {(row["pipeline"], row["attribute"]): row for row in csv.DictReader(file)}
    assert float(rows["dense", "all"]["share"]) == 1
    assert float(rows["default", "all"]["share"]) < 0.6
    assert rows["always a cut", "cut recall"]["accuracy"] == "1"
    answers = (tmp_path / "results" / "answers.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in answers if '"default"' in line]
    assert [line["item"] for line in told].count("line 3") == 17  # chunks of the clip
    [whole] = [line for line in told if line["item"] == "line 1"]
    assert (whole["t0"], whole["t1"]) == (0, 20)
    assert 0 < whole["tokens"] < whole["dense_tokens"]


def test_what_is_wrong_with_a_dataset_is_told_before_anything_runs(tmp_path: Path) -> None:
    lines = ['{"video": "none.mp4", "answer": "x"}', '{"video": "none.mp4"}']
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    done = shell("streamer eval --dataset mine.jsonl --out results", tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("streamer: mine.jsonl: line 1: video: none.mp4 is not there; ")
    assert line.endswith("; line 2: answer: it must be given")
    assert not (tmp_path / "results").exists()


@pytest.mark.skipif(not VIDEOS.is_dir(), reason=f"no real clips in {VIDEOS}")
def test_facts_of_real_clips_are_asked(tmp_path: Path) -> None:
    facts = (FACTS / "real.jsonl").read_text().splitlines()
    some = [line for line in facts if '"basketball_handheld.mp4"' in line]
    (tmp_path / "facts.jsonl").write_text("\n".join([*some, (FACTS / "cuts.jsonl").read_text()]))
    command = f"streamer eval --dataset facts.jsonl --videos {VIDEOS} --chunk-s 1 --pipeline '[]'"
    done = shell(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"camera state +\| dense +\| 11 \|", done.stdout)
    assert re.search(r"cut recall +\| dense +\| 14 \|", done.stdout)
