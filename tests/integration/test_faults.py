"""Whatever dies or hangs in the middle of jobs, every chunk gets its events exactly once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.faults import QUICK, SHORT, strike, undisturbed
from tests.service import Service, service

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def clip(demo_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copy(demo_file, tmp_path_factory.mktemp("clips") / "clip.mp4"))


@pytest.fixture(scope="module")
def running(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("redis"), clip.parent, **QUICK) as running:
        running.wait_ready(["decode-1", "tokenize-1", "caption-1", "controller"])
        yield running


@pytest.fixture(scope="module")
def said(running: Service, clip: Path) -> list[list[str | None]]:
    """The captions of an undisturbed run."""
    return undisturbed(running, [clip])


@pytest.mark.parametrize(("victim", "fault"), SHORT, ids=lambda value: value.replace(" ", "_"))
def test_a_fault_loses_nothing_and_repeats_nothing(
    running: Service, clip: Path, said: list[list[str | None]], victim: str, fault: str
) -> None:
    row = strike(running, victim, fault, [clip], said)
    print(row)  # noqa: T201  # shown with -rP
    assert (row.missing, row.doubled, row.changed) == (0, 0, 0)
    assert row.chunks == 3 * 66
