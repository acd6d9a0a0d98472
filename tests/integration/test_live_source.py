"""Live sources over HLS, decoded by processes that are recycled, cut off, and told to end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from streamer.sources import TRUSTING, Limits
from streamer.sources.live import LiveOptions, LiveSource, is_live
from tests.clips import number_of, render
from tests.servers.hls import HlsServer

COUNT = 40


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return render(tmp_path / "clip.mp4", COUNT, fps=10, options={"g": "10", "bf": "0"})


@pytest.fixture
def server(clip: Path, tmp_path: Path) -> Iterator[HlsServer]:
    with HlsServer(tmp_path / "hls", {"live": clip}, size=12) as server:
        yield server


def opened(server: HlsServer, *, recycle_s: float = 3600) -> closing[LiveSource]:
    return closing(
        LiveSource(
            server.url("live"),
            fps=5,
            chunk_s=1,
            behind_s=30,
            limits=Limits(),
            policy=TRUSTING,
            options=LiveOptions(stall_s=5, retry_s=0.1, retry_max_s=0.5, recycle_s=recycle_s),
        )
    )


def test_every_picture_is_there_though_the_process_is_recycled(server: HlsServer) -> None:
    assert is_live(server.url("live"), None, limits=Limits(), policy=TRUSTING)
    numbers: list[int] = []
    pids = set()
    with opened(server, recycle_s=4) as source:
        for k in range(11):
            chunk = source.chunk(k, wait_s=10)
            assert chunk is not None, source.state
            assert (chunk.t0, chunk.t1, chunk.hole) == (k, k + 1, None)
            numbers += map(number_of, chunk.frames)
            pids.add(source.state.pid)
        assert source.state.reconnects == 0
    assert len(pids) >= 2
    assert numbers == [(numbers[0] + 2 * k) % COUNT for k in range(len(numbers))]


def test_a_cut_longer_than_the_playlist_is_one_hole(clip: Path, tmp_path: Path) -> None:
    with HlsServer(tmp_path / "hls", {"live": clip}, size=3) as server, opened(server) as source:
        first = source.chunk(0, wait_s=10)
        assert first is not None
        began = time.time()
        server.stop()
        time.sleep(8)
        server.start()
        at, chunk = first.t1, first
        while chunk.hole is None:
            found = source.chunk(at, wait_s=15)
            assert found is not None, source.state
            before, chunk, at = at, found, found.t1
        assert 2 < chunk.t0 - before < time.time() - began
        assert chunk.hole.kind == "gap"
        assert source.state.reconnects == 1


def test_what_is_over_is_told_after_its_last_picture(server: HlsServer) -> None:
    with opened(server) as source:
        chunk = source.chunk(0, wait_s=10)
        server.finish("live")
        at = 0.0
        while chunk is not None:
            at = chunk.t1
            chunk = source.chunk(at, wait_s=10)
        assert source.ended
        assert source.failure is None
        assert at >= 2
