"""A whole service, used with nothing but curl."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import VIDEOS
from tests.processes import left_behind, running

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("curl") is None, reason="no curl"),
]

STATIC = (
    "six_visitors_static.mp4",
    "highway_static.mp4",
    "campus_walkers_static.avi",
    "carpark_overhead_static.mp4",
)
CHUNKS = 17


def curl(*arguments: str) -> Any:
    """What curl prints, as JSON."""
    run = subprocess.run(
        ["curl", "-sS", "--fail-with-body", *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


@contextmanager
def following(url: str, *arguments: str) -> Iterator[Iterator[str]]:
    """Lines of an event stream, from a curl that is killed at the end."""
    with subprocess.Popen(
        ["curl", "-sSN", *arguments, url], stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        try:
            yield iter(run.stdout.readline, "")
        finally:
            run.kill()


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The events with an id, to the end of the job."""
    for line in lines:
        if line.startswith("event: end"):
            return
        if line.startswith('data: {"id"'):
            yield json.loads(line.removeprefix("data: "))


@pytest.fixture(scope="module")
def service(demo_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    mark = uuid.uuid4().hex
    folders = [str(demo_file.parent), *([str(VIDEOS)] if VIDEOS.is_dir() else [])]
    allowed = {"STREAMER__FETCH__ALLOW_PATHS": json.dumps(folders)}
    data = str(tmp_path_factory.mktemp("data"))
    with running(mark, "serve", "--port", "0", "--data", data, environment=allowed) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()
        process.communicate(timeout=60)
    assert left_behind(mark) == []


def submit(service: str, clip: Path, **settings: Any) -> str:
    body = json.dumps({"source": {"url": str(clip)}, **settings})
    job = curl(f"{service}/v1/jobs", "-H", "Content-Type: application/json", "-d", body)
    return f"{service}/v1/jobs/{job['id']}"


def check(found: list[dict[str, Any]], chunks: int) -> None:
    assert [event["id"] for event in found] == [f"{n}-0" for n in range(1, chunks + 1)]
    assert all(a["t1"] == b["t0"] for a, b in pairwise(found))


def test_a_subscriber_that_was_cut_off_misses_nothing(service: str, demo_file: Path) -> None:
    # Given a job, and a curl that is killed half-way
    job = submit(service, demo_file)
    with following(f"{job}/events") as lines:
        told = events(lines)
        first = [next(told) for _ in range(7)]
    # When another goes on where that one was
    with following(f"{job}/events", "-H", f"Last-Event-ID: {first[-1]['id']}") as lines:
        rest = list(events(lines))
    # Then nothing is missing and nothing is there twice
    check([*first, *rest], CHUNKS)
    assert curl(job)["state"] == "ended"


def test_a_slow_subscriber_holds_nobody_back(service: str, demo_file: Path) -> None:
    # Given a subscriber that takes one event a second
    job = submit(service, demo_file)
    slow: list[dict[str, Any]] = []
    with following(f"{job}/events", "--limit-rate", "1k") as lines:
        told = events(lines)
        slow.append(next(told))
        # When the job is over
        while curl(job)["state"] != "ended":
            time.sleep(0.1)
        # Then the slow one is still under way, and a late one gets all from the beginning
        with following(f"{job}/events") as late:
            check(list(events(late)), CHUNKS)
        assert len(slow) < CHUNKS
        for event in told:
            slow.append(event)
            time.sleep(1)
    check(slow, CHUNKS)


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="no real footage beside the repository")
def test_four_jobs_at_once(service: str) -> None:
    jobs = [submit(service, VIDEOS / name) for name in STATIC]
    captioned: set[str] = set()
    while not any(curl(job)["state"] == "ended" for job in jobs):
        captioned |= {job for job in jobs if curl(job)["captions"]}
    # none starved: all had a caption before the quickest was through
    assert captioned == set(jobs)
    while not all(curl(job)["state"] == "ended" for job in jobs):
        time.sleep(0.1)
    for job, name in zip(jobs, STATIC, strict=True):
        with following(f"{job}/events") as lines:
            found = list(events(lines))
        check(found, curl(job)["chunks"])
        assert {event["event"] for event in found} == {"caption"}, name
