"""Live and file jobs side by side, five faults at random moments: every chunk is told once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.bench.random_faults import judge as judged
from tests.bench.random_faults import run, scene_of

pytestmark = pytest.mark.timeout(300)

PLAN = ["live child KILL", "caption KILL", "rtsp away", "redis KILL", "tokenize STOP"]


def test_five_faults_lose_nothing_and_repeat_nothing(demo_file: Path, tmp_path: Path) -> None:
    clip = Path(shutil.copy(demo_file, tmp_path / "clip.mp4"))
    said: list[str] = []
    with scene_of([clip], seed=5) as (scene, undisturbed):
        scene.overlap = 1.0  # one strikes on the heels of the other, and a minute is saved
        struck = run(scene, PLAN, said.append)
        outcomes = judged(scene, undisturbed)
    print("\n".join([*said, *map(str, outcomes)]))  # noqa: T201  # shown with -rP
    assert [one.kind for one in struck] == PLAN
    assert all(len(one.in_flight) == 5 for one in struck)
    assert {outcome.place for outcome in outcomes} == {"file 1", "file 2", "file 3", "rtsp", "hls"}
    assert all(outcome.whole for outcome in outcomes), outcomes
    assert all(outcome.kinds["caption"] > 0 for outcome in outcomes)
