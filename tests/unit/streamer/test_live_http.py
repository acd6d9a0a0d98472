"""Live sources over HTTP: what is taken for one, answers without an end, files that grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from streamer.adapters.clock import ManualClock
from streamer.errors import SourceError
from streamer.sources import Limits
from streamer.sources.fetch import Fetcher
from streamer.sources.live.http import HttpFeed, Stretch, is_live

Answer = Callable[[httpx.Request], httpx.Response]
PACKET = b"\x47" + bytes(187)


class Sent(httpx.SyncByteStream):
    """Pieces as they come; `then` is what comes after them."""

    def __init__(self, *pieces: bytes, then: Exception | None = None) -> None:
        self.pieces, self.then = pieces, then
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.then is not None:
            raise self.then

    def close(self) -> None:
        self.closed = True


def fetcher_of(answer: Answer, limits: Limits | None = None) -> Fetcher:
    return Fetcher(limits or Limits(), httpx.MockTransport(answer))


def live(answer: Answer, url: str = "http://h/x") -> bool:
    return is_live(url, fetcher_of(answer))


MASTER = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlist.m3u8\n"
LIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ns\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LIST, True),
        (LIST + b"#EXT-X-ENDLIST\n", False),
        (LIST.replace(b"#EXTINF", b"#EXT-X-PLAYLIST-TYPE:EVENT\n#EXTINF", 1), True),
    ],
)
@pytest.mark.parametrize("first", ["list.m3u8", "master.m3u8"])
def test_a_playlist_is_live_until_it_has_ended(text: bytes, first: str, *, expected: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        body = MASTER if request.url.path == "/master.m3u8" else text
        return httpx.Response(200, headers={"content-length": str(len(body))}, stream=Sent(body))

    assert live(answer, f"http://h/{first}") is expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content-type": "video/mp2t"}, True),
        ({"content-type": "Video/MP2T; charset=x"}, True),
        ({"content-type": "video/x-flv"}, True),
        ({"content-type": "multipart/x-mixed-replace; boundary=x"}, True),
        ({"content-type": "audio/mpeg", "icy-name": "x"}, True),
        ({"content-type": "video/mp4"}, False),
        ({}, False),
        ({"content-type": "video/mp2t", "content-length": "3"}, False),
    ],
)
def test_an_answer_is_live_by_its_kind_if_it_has_no_length(
    headers: dict[str, str], *, expected: bool
) -> None:
    body = Sent(b"abc")
    assert live(lambda _: httpx.Response(200, headers=headers, stream=body)) is expected
    assert body.closed


@pytest.mark.parametrize("url", ["rtsp://h/x", "/a/b.mp4", "file:///a/b.mp4", "C:\\x.mp4"])
def test_what_is_not_on_a_web_server_is_not_asked_for(url: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.url)

    assert not live(answer, url)


def test_a_server_that_refuses_says_nothing_of_life() -> None:
    with pytest.raises(SourceError, match="404"):
        live(lambda _: httpx.Response(404))


def only(feed: HttpFeed) -> tuple[Stretch, Iterator[Stretch]]:
    stretches = feed.stretches()
    stretch = next(stretches)
    assert (stretch.missed_s, stretch.continuous) == (0.0, False)
    assert not stretch.file.seekable()
    return stretch, stretches


@pytest.mark.parametrize("then", [None, httpx.ReadError("reset")])
def test_an_answer_without_an_end_is_one_stretch_and_its_end_is_trouble(
    then: Exception | None,
) -> None:
    fetcher = fetcher_of(
        lambda _: httpx.Response(200, stream=Sent(b"first...", b"more", then=then))
    )
    feed = HttpFeed("http://u:p@h/x?key", fetcher)
    stretch, stretches = only(feed)
    assert [stretch.file.read(n) for n in (100, 2, 2)] == [b"first...", b"mo", b"re"]
    assert (stretch.file.failure, feed.place) == (None, None)
    assert (stretch.file.read(100), stretch.file.tell()) == (b"", 12)
    assert str(stretch.file.failure).startswith("http://h/x?…: the ")
    with pytest.raises(SourceError, match=r"^http://h/x\?…: the "):
        next(stretches)


def test_a_stretch_that_is_left_has_no_next_one() -> None:
    body = Sent(b"first...", b"more")
    stretch, stretches = only(
        HttpFeed("http://h/x", fetcher_of(lambda _: httpx.Response(200, stream=body)))
    )
    assert stretch.file.read() == b"first..."
    with pytest.raises(SourceError, match="was left"):
        next(stretches)
    assert body.closed


def test_bounds_are_for_a_time_not_for_ever() -> None:
    clock = ManualClock()
    pieces = [bytes(100)] * 100
    fetcher = fetcher_of(
        lambda _: httpx.Response(200, stream=Sent(*pieces)), Limits(max_bytes=1000, read_s=10)
    )
    stretch, _ = only(HttpFeed("http://h/x", fetcher, clock=clock))
    for _ in pieces:
        assert stretch.file.read() == bytes(100)
        clock.advance(1.1)
    fast, _ = only(HttpFeed("http://h/x", fetcher, clock=clock))
    while fast.file.read():
        pass
    assert "more than 1000 bytes" in str(fast.file.failure)


class Growing:
    """A server with a file of which every second some more is written, after `quiet_s`."""

    def __init__(self, clock: ManualClock, body: bytes, *, rate: int, ranges: bool = True) -> None:
        self.clock, self.body, self.rate, self.ranges = clock, body, rate, ranges
        self.quiet_s = 0.0
        self.asked: list[tuple[float, int]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        first = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
        now = self.clock.monotonic()
        self.asked.append((now, first))
        there = self.body[: self.rate * (1 + max(0, int(now - self.quiet_s + 1e-6)))]
        if not self.ranges:
            return httpx.Response(
                200, headers={"content-length": str(len(there))}, stream=Sent(there)
            )
        if first >= len(there):
            return httpx.Response(416)
        span = {"content-range": f"bytes {first}-{len(there) - 1}/{len(there)}"}
        return httpx.Response(206, headers=span, stream=Sent(there[first:]))


def taken(stretch: Stretch, size: int) -> bytes:
    got = bytearray()
    while len(got) < size and (piece := stretch.file.read(size - len(got))):
        got += piece
    return bytes(got)


def test_a_file_that_grows_is_asked_every_second_for_what_is_new() -> None:
    clock = ManualClock()
    server = Growing(clock, bytes(range(256)), rate=10)
    feed = HttpFeed("http://h/x", fetcher_of(server), clock=clock)
    stretch, _ = only(feed)
    assert taken(stretch, 25) == bytes(range(25))
    assert server.asked == [(0.0, 0), (1.0, 10), (2.0, 20)]
    assert feed.place is None


def test_a_file_that_does_not_grow_is_waited_for() -> None:
    clock = ManualClock()
    server = Growing(clock, b"0123456789abc", rate=10)
    server.quiet_s = 100.0
    stretch, _ = only(HttpFeed("http://h/x", fetcher_of(server), clock=clock))
    assert taken(stretch, 13) == b"0123456789abc"
    assert clock.monotonic() == 101.0
    assert {first for _, first in server.asked} == {0, 10}


def test_a_file_that_grows_needs_ranges() -> None:
    clock = ManualClock()
    server = Growing(clock, bytes(100), rate=10, ranges=False)
    stretch, _ = only(HttpFeed("http://h/x", fetcher_of(server), clock=clock))
    assert len(taken(stretch, 20)) == 10
    assert "does not answer range requests" in str(stretch.file.failure)


def test_a_transport_stream_that_grows_can_be_entered_behind_its_place() -> None:
    # Given a recording that is read
    clock = ManualClock()
    packets = 20_000
    server = Growing(clock, PACKET * packets, rate=188 * 5000)
    feed = HttpFeed("http://h/x", fetcher_of(server), clock=clock)
    stretch, _ = only(feed)
    assert feed.place == "bytes 0"
    taken(stretch, 188 * 9000 + 50)
    # When another reading takes over
    server.asked.clear()
    later = HttpFeed("http://h/x", fetcher_of(server), resume=feed.place, clock=clock)
    stretch = next(later.stretches())
    # Then it begins at a packet, a little earlier: the first pictures need those before
    assert stretch.continuous
    assert stretch.file.read(1) == b"\x47"
    ((_, first),) = server.asked
    assert first % 188 == 0
    assert 188 * 9000 - (600 << 10) < first < 188 * 9000 - (400 << 10)


def test_a_place_of_another_kind_is_not_gone_to() -> None:
    body = b"abc"
    answer = httpx.Response(200, headers={"content-length": "3"}, stream=Sent(body))
    feed = HttpFeed("http://h/x", fetcher_of(lambda _: answer), resume="hls 5 1 1")
    stretch, _ = only(feed)
    assert stretch.file.read() == b"abc"
