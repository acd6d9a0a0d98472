"""Answers without an end and files that grow, from a real server, decoded as they come."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import pytest

from streamer.errors import SourceError
from streamer.sources import TRUSTING, Limits
from streamer.sources.fetch import Fetcher
from streamer.sources.live.http import HttpFeed, is_live
from streamer.sources.transport import GuardedTransport
from tests.clips import number_of, render

COUNT = 60


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.closing = threading.Event()
        self.began = time.monotonic()
        self.base = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        way, _, name = self.path.lstrip("/").partition("/")
        body = self.server.files[name]
        if way == "grows":
            return self.send_what_is_there(body)
        kind = "multipart/x-mixed-replace; boundary=b" if way == "camera" else "video/mp2t"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        self.end_headers()
        for at in range(0, len(body), 2000):
            if self.server.closing.wait(0.02):
                break
            self.wfile.write(body[at : at + 2000])
        return None

    def send_what_is_there(self, body: bytes) -> None:
        """The file after a while of writing: a third of it for each second."""
        share = (1 + time.monotonic() - self.server.began) / 3
        body = body[: int(share * len(body))]
        first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if first >= len(body):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - first))
        self.end_headers()
        self.wfile.write(body[first:])


def camera_parts(clip: Path) -> bytes:
    """A clip's pictures as a camera sends them."""
    sent = b""
    with av.open(str(clip)) as source:
        encoder: Any = av.CodecContext.create("mjpeg", "w")
        for frame in source.decode(video=0):
            if not encoder.is_open:
                encoder.width, encoder.height = frame.width, frame.height
                encoder.pix_fmt, encoder.time_base = "yuvj420p", frame.time_base
            frame.pict_type = av.video.frame.PictureType.NONE
            for packet in encoder.encode(frame.reformat(format="yuvj420p")):
                picture = bytes(packet)
                head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                sent += head.encode() + picture + b"\r\n"
    return sent


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    clip = render(tmp_path / "x.ts", COUNT, options={"g": "10", "bf": "0"})
    files = {"x.ts": clip.read_bytes(), "pictures": camera_parts(clip)}
    with Server(files) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    transport = GuardedTransport(TRUSTING)
    yield Fetcher(Limits(), transport)
    transport.close()


def pictures(feed: HttpFeed) -> Generator[tuple[int, float], None, None]:
    """Number and time, from the first picture, of each."""
    for stretch in feed.stretches():
        first_s: float | None = None
        with av.open(stretch.file, buffer_size=1 << 16) as container:
            for frame in container.decode(video=0):
                assert frame.time is not None
                first_s = frame.time if first_s is None else first_s
                yield number_of(frame.to_ndarray(format="rgb24")), frame.time - first_s


def test_a_stream_without_an_end_is_decoded_until_it_is_cut(
    server: Server, fetcher: Fetcher
) -> None:
    url = f"{server.base}/sends/x.ts"
    assert is_live(url, fetcher)
    got: list[tuple[int, float]] = []
    with pytest.raises(SourceError, match="the server ended the stream"):
        got.extend(pictures(HttpFeed(url, fetcher)))
    assert [number for number, _ in got] == list(range(COUNT))
    assert got[-1][1] == pytest.approx((COUNT - 1) / 10)


def test_a_camera_s_pictures_have_the_times_when_they_came(
    server: Server, fetcher: Fetcher
) -> None:
    url = f"{server.base}/camera/pictures"
    assert is_live(url, fetcher)
    began = time.monotonic()
    got: list[tuple[int, float]] = []
    with pytest.raises(SourceError, match="the server ended the stream"):
        got.extend(pictures(HttpFeed(url, fetcher)))
    assert [number for number, _ in got] == list(range(COUNT))
    took_s = time.monotonic() - began
    assert 0.6 * took_s < got[-1][1] < took_s


def test_a_file_that_is_still_written_is_read_on_and_on(server: Server, fetcher: Fetcher) -> None:
    url = f"{server.base}/grows/x.ts"
    assert not is_live(url, fetcher)  # nothing tells that it will grow
    read = pictures(HttpFeed(url, fetcher))
    # the decoder keeps the last ones until the next come
    numbers = [next(read)[0] for _ in range(COUNT - 3)]
    assert numbers == list(range(COUNT - 3))
    assert time.monotonic() - server.began > 1.5
    read.close()
