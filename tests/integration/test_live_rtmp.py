"""Live sources over RTMP, from a real server."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

from streamer.sources import TRUSTING, Limits
from streamer.sources.live import LiveOptions, LiveSource
from tests.processes import eventually
from tests.servers.rtmp import rtmp_server
from tests.servers.rtsp import moving_picture


def test_a_stream_plays_and_survives_its_server(tmp_path: Path) -> None:
    clip = moving_picture(tmp_path / "moving.mp4")
    with rtmp_server({"live": clip}) as server:
        source = LiveSource(
            server.url("live"),
            fps=4,
            chunk_s=1,
            behind_s=30,
            limits=Limits(),
            policy=TRUSTING,
            options=LiveOptions(stall_s=5, retry_s=0.1, retry_max_s=0.5),
        )
        with closing(source):
            first = source.chunk(0, wait_s=15)
            assert first is not None
            assert (first.t0, first.t1, first.frames.shape) == (0, 1, (4, 240, 320, 3))
            second = source.chunk(1, wait_s=5)
            assert second is not None
            assert second.wall1 == pytest.approx(time.time(), abs=1.5)
            began = time.time()
            server.stop()
            assert eventually(lambda: not source.state.connected, within_s=8)
            time.sleep(max(0.0, began + 5 - time.time()))
            server.start()
            chunk, at = second, second.t1
            while chunk.hole is None:
                found = source.chunk(at, wait_s=15)
                assert found is not None, source.state
                before, chunk, at = at, found, found.t1
            assert chunk.wall0 is not None
            assert chunk.t0 - before == pytest.approx(chunk.wall0 - began, abs=1.5)
            assert source.state.reconnects == 1
