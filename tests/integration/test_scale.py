"""Pools grow and shrink while jobs run, and nobody notices but the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamer.workers import KINDS, Size
from tests.service import Service, check_complete, service

pytestmark = pytest.mark.timeout(300)

SLOWLY: dict[str, Any] = {"source": {"fps": 2, "chunk_s": 0.5, "ahead": 4}}


@pytest.fixture(scope="module")
def running(demo_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("redis"), demo_file.parent) as running:
        running.wait_ready([f"{kind}-1" for kind in KINDS])
        yield running


def test_pools_grow_and_shrink_under_work(running: Service, demo_file: Path) -> None:
    # Given three jobs at any time
    jobs: list[str] = []

    def busy(until: Callable[[], bool], what: str) -> None:
        def holds() -> bool:
            for n in range(3 - len(running.queue.active())):
                jobs.append(running.submit(demo_file, tenant=f"tenant{n % 2}", **SLOWLY))
            return until()

        running.wait(holds, what, 150)

    # When every pool grows to two
    running.roster.resize({kind: Size(min=2, max=2) for kind in KINDS})
    busy(
        lambda: all(
            running.workers().get(f"{kind}-2") is not None
            and running.workers()[f"{kind}-2"].chunks > 0
            for kind in ("tokenize", "caption")
        ),
        "that the second workers work",
    )
    # And shrinks to one again
    running.roster.resize({kind: Size(min=1, max=1) for kind in KINDS})
    busy(
        lambda: len(running.workers()) == 1 + len(KINDS),
        "that one of each kind is left",
    )
    # Then no event is lost and none is there twice
    running.wait_finished(jobs)
    for job in jobs:
        status = running.status(job)
        assert (status.state, status.error, status.last_chunk) == ("ended", None, 66)
        check_complete(running.events(job), status.last_chunk)
