"""Four live streams for half a minute, and a camera that goes away: nothing missing or creeping."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bench.cuts import show
from tests.bench.soak import SETTINGS, Live, api, soak, sources
from tests.service import Service, service

pytestmark = pytest.mark.timeout(300)

GROWN_MB = 60.0
"""More than caches take in the first minute; pictures that leak are 5 MB a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A service, its cameras, and its API's pid and port."""

    running: Service
    live: Live
    api_at: tuple[int, int]


@pytest.fixture(scope="module")
def whole(demo_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("soak")
    clip = Path(shutil.copy(demo_file, folder / "clip.mp4"))
    with ExitStack() as stack:
        live = stack.enter_context(sources([clip]))
        running = stack.enter_context(service(folder / "redis", folder, **SETTINGS))
        api_at = stack.enter_context(api(running))
        running.wait_ready(["decode-1", "tokenize-1", "caption-1"])
        yield Whole(running=running, live=live, api_at=api_at)


def test_four_live_streams_for_half_a_minute(whole: Whole) -> None:
    said: list[str] = []
    record, well = soak(
        whole.running,
        whole.live,
        minutes=0.5,
        chunk_s=0.5,
        cuts=False,
        api_at=whole.api_at,
        say=said.append,
        keeps_up=False,
    )
    print("\n".join(said))  # noqa: T201  # shown with -rP
    assert well, said
    assert record.names("latency") == record.names("end to end")
    assert set(record.names("latency")) == {"rtsp 1", "rtsp 2", "hls 1", "hls 2"}
    for place in record.names("latency"):
        assert len(record.of("latency", place)[1]) > 20, place
    measured = set(record.names("memory"))
    assert measured >= {"redis", "keeper", "api", "controller", "decode-1", "caption-1"}
    assert sum(name.startswith("child of") for name in measured) == 4
    for name in measured - {name for name in measured if name.startswith("Ray: ")}:
        at_s, mb = record.of("memory", name)
        late = mb[at_s > 10]
        assert late[-1] - late[0] < GROWN_MB, (name, late)


def test_a_camera_that_goes_away_and_changes_leaves_right_gaps(whole: Whole) -> None:
    said: list[str] = []
    right = show(
        whole.running, whole.live.rtsp, "cam1", sizes=[(320, 240)], away_s=5.0, say=said.append
    )
    print("\n".join(said))  # noqa: T201  # shown with -rP
    assert right, said
