"""Sources over a real local server: with ranges, without, slow, broken, hanging, redirecting."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.errors import SourceError
from streamer.sources import TRUSTING, Limits, open_source
from streamer.sources.transport import GuardedTransport
from tests.clips import number_of, render
from tests.hls import cut_up, lock

QUICK = Limits(connect_s=1, read_s=0.5)
# what is sent at once, and then for ever: something comes all the time, but never what is awaited
DRIPS = {
    "head": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"a"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a"),
}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.asked: list[str] = []
        self.stop = threading.Event()
        self.base = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.close_connection = True
        way, _, name = self.path.lstrip("/").partition("?")[0].partition("/")
        body = self.server.files.get(name)
        if way == "loop":
            return self.answer(302, {"Location": self.path})
        if way == "hop":
            return self.answer(302, {"Location": f"/ranges/{name}"})
        if way == "silent":
            self.server.stop.wait(20)
            return None
        if way in DRIPS:
            head, drop = DRIPS[way]
            self.wfile.write(head)
            while not self.server.stop.wait(0.02):
                self.wfile.write(drop)
                self.wfile.flush()
        if body is None:
            return self.answer(404, {"Content-Length": "0"})
        if way == "ranges":
            first = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
            span = f"bytes {first}-{len(body) - 1}/{len(body)}"
            self.answer(206, {"Content-Range": span, "Content-Length": str(len(body) - first)})
            self.wfile.write(body[first:])
            return None
        self.answer(200, {"Content-Length": str(len(body))})
        if way == "plain":
            self.wfile.write(body)
        elif way == "nap":
            self.server.stop.wait(0.3)
            self.wfile.write(body)
        elif way == "short":
            self.wfile.write(body[: len(body) // 2])
        elif way == "hang":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.server.stop.wait(20)
        elif way == "drip":
            for at in range(len(body)):
                self.wfile.write(body[at : at + 1])
                self.wfile.flush()
                if self.server.stop.wait(0.05):
                    break
        return None

    def answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    render(folder / "late.mp4", 60, options={"g": "10"})
    render(folder / "front.mp4", 60, options={"g": "10"}, movflags="faststart")
    render(folder / "x.mkv", 60, options={"g": "10"}, sound_s=6)
    # larger than what a reader may keep: its index, at the end, is a second request
    render(folder / "large.mp4", 60, size=(640, 320), options={"g": "10"}, noise=32)
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files["list.m3u8"] = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/ranges/front.mp4\n"
    with Server(files) as server:
        files["list.m3u8"] = files["list.m3u8"].replace(
            b"/ranges", server.base.encode() + b"/ranges"
        )
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.stop.set()
        server.shutdown()
        thread.join()


def numbers(url: str, start_s: float = 0.0, limits: Limits = QUICK) -> list[int]:
    with open_source(url, limits=limits) as source:
        return [number_of(frame.image) for frame in source.frames(start_s)]


@pytest.mark.parametrize("name", ["late.mp4", "front.mp4", "x.mkv", "large.mp4"])
@pytest.mark.parametrize("way", ["ranges", "hop"])
def test_a_server_with_ranges(server: Server, way: str, name: str) -> None:
    assert numbers(f"{server.base}/{way}/{name}") == [5 * k for k in range(12)]


@pytest.mark.parametrize("name", ["front.mp4", "x.mkv"])
def test_a_server_without_ranges(server: Server, name: str) -> None:
    url = f"{server.base}/plain/{name}"
    assert numbers(url) == [5 * k for k in range(12)]
    assert numbers(url, 4.0) == [40, 45, 50, 55]
    with open_source(url, limits=QUICK) as source:
        assert not source.info.seekable


@pytest.mark.parametrize("name", ["front.mp4", "large.mp4"])
def test_any_start_gives_the_same_pictures(server: Server, name: str) -> None:
    with open_source(f"{server.base}/ranges/{name}", fps=5, limits=QUICK) as source:
        assert source.info.seekable
        whole = list(source.frames())
        for start_s in (0.1, 2.0, 3.9, 5.8):
            tail = list(source.frames(start_s))
            expected = [frame for frame in whole if frame.pts >= start_s]
            assert [frame.pts for frame in tail] == [frame.pts for frame in expected]
            for got, want in zip(tail, expected, strict=True):
                assert np.array_equal(got.image, want.image)


def test_opening_and_reading_is_one_download(server: Server) -> None:
    numbers(f"{server.base}/plain/front.mp4")
    assert server.asked == ["/plain/front.mp4"]


def test_an_index_at_the_end_without_ranges_is_explained(server: Server) -> None:
    with pytest.raises(SourceError, match="does not answer range requests"):
        numbers(f"{server.base}/plain/large.mp4")


def test_an_address_that_is_not_there(server: Server) -> None:
    with pytest.raises(SourceError) as caught:
        numbers(f"{server.base.replace('//', '//me:secret@')}/ranges/none.mp4?token=hidden")
    assert str(caught.value) == (
        f"{server.base}/ranges/none.mp4?…: the server answered 404 Not Found; check the URL"
    )


@pytest.mark.parametrize(
    ("way", "match"),
    [
        ("silent", r"did not answer within 0\.5 s"),
        ("hang", r"sent nothing for 0\.5 s"),
        ("drip", "less than 1024 bytes per second"),
        ("head", r"did not answer within 0\.5 s"),
        ("continue", r"did not answer within 0\.5 s"),
        ("chunk", r"sent nothing for 0\.5 s"),
        ("short", "the connection broke after"),
        ("loop", "more than 5 redirects"),
    ],
)
@pytest.mark.parametrize("name", ["front.mp4", "late.mp4"])
def test_a_server_that_fails_ends_in_a_sentence(
    server: Server, way: str, name: str, match: str, capfd: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    with pytest.raises(SourceError, match=match):
        numbers(f"{server.base}/{way}/{name}")
    assert time.monotonic() - started < 8
    assert capfd.readouterr().err == ""


def test_a_port_where_nobody_listens() -> None:
    with pytest.raises(SourceError, match=r"^http://127\.0\.0\.1:9/x\.mp4: cannot connect"):
        numbers("http://127.0.0.1:9/x.mp4")
    with pytest.raises(SourceError, match=r"is not an http: or https: URL"):
        numbers("http://127.0.0.1:99999999/x.mp4")


def test_a_name_that_is_looked_up_for_ever(server: Server) -> None:
    def slow(host: str, port: int) -> list[str]:
        server.stop.wait(20)
        return []

    transport = GuardedTransport(TRUSTING, resolve=slow)
    with pytest.raises(SourceError, match=r"^http://h/x\.mp4: no connection to h within 0\.2 s"):
        open_source("http://h/x.mp4", limits=Limits(connect_s=0.2), transport=transport)


def test_segments_that_come_too_slowly_together(server: Server) -> None:
    text = "#EXTM3U\n" + "#EXTINF:1,\n/nap/list.m3u8\n" * 50 + "#EXT-X-ENDLIST\n"
    server.files["naps.m3u8"] = text.encode()
    started = time.monotonic()
    with pytest.raises(SourceError, match="less than 1024 bytes per second"):
        numbers(f"{server.base}/plain/naps.m3u8")
    assert time.monotonic() - started < 5


def test_nothing_that_a_live_or_local_playlist_names_is_fetched(
    server: Server, tmp_path: Path
) -> None:
    local = tmp_path / "list.m3u8"
    local.write_bytes(server.files["list.m3u8"] + b"#EXT-X-ENDLIST\n")
    for way in ("plain", "ranges"):
        with pytest.raises(SourceError, match="is a live playlist, not a recording"):
            numbers(f"{server.base}/{way}/list.m3u8")
    with pytest.raises(SourceError, match=r"playlist|no readable video header"):
        numbers(str(local))
    assert not [path for path in server.asked if "front" in path]


@pytest.mark.parametrize("kind", ["ts", "fmp4", "ranges", "aes"])
def test_a_recording_in_segments(server: Server, tmp_path: Path, folder: Path, kind: str) -> None:
    options = {"fmp4": {"hls_segment_type": "fmp4"}, "ranges": {"hls_flags": "single_file"}}
    clip = folder / "front.mp4"
    cut = tmp_path / kind
    if kind == "aes":
        lock(clip, cut)
    else:
        cut_up(clip, cut, **options.get(kind, {}))
    server.files |= {path.name: path.read_bytes() for path in cut.iterdir()}
    for way in ("ranges", "hop") if kind == "ranges" else ("ranges", "plain", "hop"):
        url = f"{server.base}/{way}/list.m3u8"
        assert numbers(url) == [5 * k for k in range(12)]
        assert numbers(url, 4.0) == [40, 45, 50, 55]


def test_downloads_are_bounded(server: Server) -> None:
    with pytest.raises(SourceError, match="more than 2000 bytes would have to be read"):
        numbers(f"{server.base}/plain/front.mp4", limits=Limits(max_bytes=2000))
