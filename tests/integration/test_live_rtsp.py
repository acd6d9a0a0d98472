"""Live sources over RTSP, from a real server that is cut, frozen, resized and locked."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from streamer.sources import TRUSTING, FetchPolicy, Limits
from streamer.sources.live import LiveOptions, LiveSource, is_live
from streamer.types import FrameChunk
from tests.processes import eventually
from tests.servers.need import free_port
from tests.servers.rtsp import RtspServer, moving_picture, rtsp_server

QUICK = LiveOptions(stall_s=2, retry_s=0.1, retry_max_s=0.5)
FPS, CHUNK_S = 4.0, 1.0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moving_picture(tmp_path_factory.mktemp("clip") / "moving.mp4")


@pytest.fixture
def server(clip: Path) -> Iterator[RtspServer]:
    with rtsp_server({"live": clip}) as server:
        yield server


def opened(
    url: str, *, options: LiveOptions = QUICK, policy: FetchPolicy = TRUSTING
) -> closing[LiveSource]:
    limits = Limits(connect_s=2, read_s=4)
    return closing(
        LiveSource(
            url,
            fps=FPS,
            chunk_s=CHUNK_S,
            behind_s=30,
            limits=limits,
            policy=policy,
            options=options,
        )
    )


class Reader:
    """Takes the chunks of a source one after another."""

    def __init__(self, source: LiveSource) -> None:
        self.source = source
        self.chunks: list[FrameChunk] = []

    def next(self, within_s: float = 10.0) -> FrameChunk:
        at = self.chunks[-1].t1 if self.chunks else 0.0
        chunk = self.source.chunk(at, wait_s=within_s)
        assert chunk is not None, (self.source.state, self.source.failure)
        self.chunks.append(chunk)
        return chunk

    def until_hole(self) -> FrameChunk:
        while (chunk := self.next()).hole is None:
            assert len(self.chunks) < 40
        return chunk


def test_pictures_come_as_they_are_sent(server: RtspServer) -> None:
    assert is_live(server.url("live"), None, limits=Limits(), policy=TRUSTING)
    with opened(server.url("live")) as source:
        reader = Reader(source)
        chunks = [reader.next() for _ in range(3)]
        taken = time.time()
        again = source.chunk(chunks[-2].t1, wait_s=0)
    assert [(c.number, c.t0, c.t1) for c in chunks] == [(1, 0, 1), (2, 1, 2), (3, 2, 3)]
    assert {c.frames.shape for c in chunks} == {(4, 240, 320, 3)}
    assert all(c.live and c.hole is None for c in chunks)
    wall = chunks[-1].wall1
    assert wall is not None
    assert taken - 0.5 < wall < taken + 0.5
    assert not (chunks[0].frames[0] == chunks[0].frames[1]).all()
    assert again is not None
    assert again.t1 == chunks[-1].t1, "who lost a chunk can ask again"


@contextmanager
def cut(server: RtspServer) -> Iterator[None]:
    server.stop()
    yield
    server.start()


def test_a_cut_leaves_one_hole_of_its_span(server: RtspServer) -> None:
    with opened(server.url("live")) as source:
        reader = Reader(source)
        reader.next()
        reader.next()
        began = time.time()
        with cut(server):
            assert eventually(lambda: not source.state.connected, within_s=3)
            time.sleep(5 - (time.time() - began))
        ended = time.time()
        after = reader.until_hole()
        before = reader.chunks[-2]
        reader.next()
        assert source.state.reconnects == 1
        assert source.state.connected
    assert after.hole is not None
    assert after.hole.kind == "gap"
    assert "server" in after.hole.reason
    assert after.t0 - before.t1 == pytest.approx(ended - began, abs=2.0)
    assert before.wall1 is not None
    assert after.wall0 is not None
    assert before.wall1 == pytest.approx(began, abs=2.0)
    assert after.wall0 == pytest.approx(ended, abs=2.0)
    assert sum(c.hole is not None for c in reader.chunks) == 1


def test_a_change_of_size_changes_chunks(server: RtspServer) -> None:
    with opened(server.url("live")) as source:
        reader = Reader(source)
        reader.next()
        server.resize("live", 160, 128)
        sizes = {reader.next().frames.shape[1:3] for _ in range(6)}
        assert reader.chunks[-1].frames.shape == (4, 128, 160, 3)
        assert sizes == {(240, 320), (128, 160)}
        spans = [(c.t0, c.t1) for c in reader.chunks]
    assert spans == [(k, k + 1) for k in range(7)]


def test_a_frozen_server_is_left_and_found_again(server: RtspServer) -> None:
    with opened(server.url("live")) as source:
        reader = Reader(source)
        reader.next()
        first = source.state.pid
        server.freeze()
        assert eventually(lambda: not source.state.connected, within_s=6)
        assert "no picture came for 2 s" in (source.state.reason or "")
        assert eventually(lambda: not psutil.pid_exists(first), within_s=3)
        server.thaw()
        hole = reader.until_hole().hole
    assert hole is not None
    assert "no picture came for 2 s" in hole.reason


def test_a_killed_process_is_replaced(server: RtspServer) -> None:
    with opened(server.url("live")) as source:
        reader = Reader(source)
        reader.next()
        first = source.state.pid
        os.kill(first, signal.SIGKILL)
        for _ in range(4):
            reader.next()
        assert source.state.pid != first
        assert source.state.reconnects == 1


def test_a_process_is_recycled_without_a_missing_chunk(server: RtspServer) -> None:
    options = LiveOptions(stall_s=3, retry_s=0.1, recycle_s=2)
    with opened(server.url("live"), options=options) as source:
        reader = Reader(source)
        pids = set()
        for _ in range(10):
            reader.next()
            pids.add(source.state.pid)
        assert source.state.reconnects == 0
        assert eventually(lambda: sum(map(psutil.pid_exists, pids)) <= 2, within_s=3)
    assert len(pids) >= 2
    assert [(c.t0, c.t1, len(c.pts), c.hole) for c in reader.chunks] == [
        (k, k + 1, 4, None) for k in range(10)
    ]
    lengths = [(c.wall1 or 0) - k for k, c in enumerate(reader.chunks)]
    assert max(lengths) - min(lengths[1:]) < 0.7, "media time follows the clock"


def test_a_wrong_password_is_named_and_a_right_one_works(clip: Path) -> None:
    with rtsp_server({"live": clip}, user="me", password="hush") as server:
        with opened(server.url("live", "me:wrong")) as source:
            assert eventually(lambda: "401" in (source.state.reason or ""), within_s=8)
            assert source.state.reason == (
                f"{server.url('live')}: the server answered 401 Unauthorized; "
                f"give the URL with its credentials"
            )
            first = source.state.pid
            assert eventually(lambda: source.state.pid not in {0, first}, within_s=5)
            assert source.failure is None
        with opened(server.url("live", "me:hush")) as source:
            assert Reader(source).next().t0 == 0


def test_what_is_not_there_is_named(server: RtspServer) -> None:
    with opened(server.url("nothing")) as source:
        assert eventually(lambda: "404 Not Found" in (source.state.reason or ""), within_s=5)
    with opened(f"rtsp://127.0.0.1:{free_port()}/live") as source:
        assert eventually(lambda: "cannot connect" in (source.state.reason or ""), within_s=5)
        assert source.chunk(0, wait_s=0) is None
        assert source.failure is None
    with opened("rtsp://nowhere.invalid/live") as source:
        assert eventually(lambda: "cannot be found" in (source.state.reason or ""), within_s=8)


def test_an_inside_address_is_refused_for_good(server: RtspServer) -> None:
    with opened(server.url("live"), policy=FetchPolicy()) as source:
        assert eventually(lambda: source.failure is not None, within_s=5)
        assert "does not lead to a public address" in (source.failure or "")
        assert source.chunk(0, wait_s=5) is None
        assert source.state.pid == 0


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that says the same to everything."""

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                while client.recv(1 << 16):
                    client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_garbage_is_no_stream() -> None:
    with (
        answering(os.urandom(1 << 12)) as port,
        opened(f"rtsp://127.0.0.1:{port}/live") as source,
    ):
        said = "the server does not speak RTSP; check the URL and the port"
        assert eventually(lambda: said in (source.state.reason or ""), within_s=15)


def test_a_redirect_is_not_followed(server: RtspServer) -> None:
    moved = f"RTSP/1.0 302 Moved\r\nCSeq: 1\r\nLocation: {server.url('live')}\r\n\r\n"
    with (
        answering(moved.encode()) as port,
        opened(f"rtsp://127.0.0.1:{port}/live") as source,
    ):
        said = "the server redirects to another URL, which is not followed; give that one"
        assert eventually(lambda: said in (source.state.reason or ""), within_s=8)
        assert source.chunk(0, wait_s=0) is None
