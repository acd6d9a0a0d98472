"""Live HLS: which segments are read, when the playlist is asked for, what is said to be lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from streamer.adapters.clock import ManualClock
from streamer.errors import SourceError
from streamer.sources import Limits
from streamer.sources.fetch import Fetcher
from streamer.sources.live.http import HttpFeed, Stretch
from streamer.sources.playlist import Playlist, parse_playlist

URL = "http://h/live.m3u8"


@dataclass
class Encoder:
    """A server that adds a segment every second: `s<number>`, whose bytes are its own name.

    `lines` has what stands above a segment besides its duration; `gone` answers 404.
    """

    clock: ManualClock
    first: int = 0
    began_at: float = 0.0
    window: int = 6
    target_s: int = 1
    ready: int = 6
    """Segments that are there at `began_at`."""
    ends_at: float | None = None
    """When no more segments are added, and the playlist says so."""
    stops_at: float | None = None
    """The same, and it does not say so."""
    lines: dict[int, list[str]] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)
    down: bool = False
    asked: list[tuple[float, str]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path[1:]
        self.asked.append((round(self.clock.monotonic(), 3), name))
        if self.down:
            raise httpx.ConnectError("refused")
        if name == "live.m3u8":
            return self.answer(self.playlist().encode())
        if name in self.files:
            return self.answer(self.files[name])
        number = int(name.removeprefix("s"))
        if not self.oldest <= number < self.end or number in self.gone:
            return httpx.Response(404)
        return self.answer(name.encode() + b" ")

    @staticmethod
    def answer(body: bytes) -> httpx.Response:
        return httpx.Response(
            200, headers={"content-length": str(len(body))}, stream=httpx.ByteStream(body)
        )

    @property
    def end(self) -> int:
        now = self.clock.monotonic()
        for end in (self.ends_at, self.stops_at):
            now = now if end is None else min(now, end)
        return self.first + self.ready + int((now - self.began_at) / self.target_s + 1e-6)

    @property
    def oldest(self) -> int:
        return max(self.first, self.end - self.window)

    def playlist(self) -> str:
        head = f"#EXTM3U\n#EXT-X-TARGETDURATION:{self.target_s}\n"
        text = head + f"#EXT-X-MEDIA-SEQUENCE:{self.oldest}\n"
        for number in range(self.oldest, self.end):
            for line in self.lines.get(number, ()):
                text += f"{line}\n"
            text += f"#EXTINF:{self.target_s},\ns{number}\n"
        if self.ends_at is not None and self.clock.monotonic() >= self.ends_at:
            text += "#EXT-X-ENDLIST\n"
        return text

    def names(self) -> list[str]:
        return [name for _, name in self.asked if name != "live.m3u8"]

    def refreshes(self) -> list[float]:
        return [at for at, name in self.asked if name == "live.m3u8"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def encoder(clock: ManualClock) -> Encoder:
    return Encoder(clock)


def feed_of(
    serve: Callable[[httpx.Request], httpx.Response],
    clock: ManualClock,
    *,
    resume: str | None = None,
    again: bool = False,
    limits: Limits | None = None,
) -> HttpFeed:
    fetcher = Fetcher(limits or Limits(), httpx.MockTransport(serve))
    return HttpFeed(URL, fetcher, resume=resume, again=again, clock=clock)


@dataclass(frozen=True)
class Read:
    text: str
    missed_s: float
    continuous: bool


def read(stretch: Stretch, pieces: int | None = None) -> str:
    """What a stretch holds, or its first `pieces` pieces."""
    got: list[str] = []
    while pieces is None or len(got) < pieces:
        piece = stretch.file.read()
        if not piece:
            break
        got.append(piece.decode())
    return "".join(got).strip()


def all_of(feed: HttpFeed) -> list[Read]:
    return [Read(read(s), s.missed_s, s.continuous) for s in feed.stretches()]


def test_reading_begins_near_the_newest_and_ends_with_the_source(
    encoder: Encoder, clock: ManualClock
) -> None:
    encoder.ends_at = 4.0
    assert all_of(feed_of(encoder, clock)) == [Read("s3 s4 s5 s6 s7 s8 s9", 0.0, False)]


def test_how_old_its_beginning_is_is_told(encoder: Encoder, clock: ManualClock) -> None:
    stretch = next(feed_of(encoder, clock).stretches())
    assert stretch.behind_s == pytest.approx(3 * encoder.target_s)


def test_what_has_ended_is_not_read_twice(encoder: Encoder, clock: ManualClock) -> None:
    encoder.ends_at = 0.0
    assert all_of(feed_of(encoder, clock, again=True)) == []


def test_a_playlist_shorter_than_that_is_read_from_its_start(
    encoder: Encoder, clock: ManualClock
) -> None:
    encoder.ready, encoder.ends_at = 2, 1.0
    assert all_of(feed_of(encoder, clock)) == [Read("s0 s1 s2", 0.0, False)]


def test_the_playlist_is_asked_for_once_a_target_duration_and_sooner_without_change(
    encoder: Encoder, clock: ManualClock
) -> None:
    # Given a source whose segments come every 2 s, the next one 1 s after it is first asked for
    encoder.target_s, encoder.began_at, encoder.ends_at = 2, -1.0, 7.0
    # When it is read
    all_of(feed_of(encoder, clock))
    # Then it is asked again after 2 s where something was new, after 1 s where nothing was
    assert encoder.refreshes() == [0.0, 2.0, 4.0, 6.0, 8.0]
    encoder.asked.clear()
    encoder.ends_at, encoder.stops_at = None, 9.0
    with pytest.raises(SourceError):
        all_of(feed_of(encoder, clock))
    begun, *later = encoder.refreshes()
    assert [at - begun for at in later] == [2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]


def test_a_playlist_without_change_is_given_up_after_three_target_durations(
    encoder: Encoder, clock: ManualClock
) -> None:
    encoder.stops_at = 2.0
    feed = feed_of(encoder, clock)
    stretches = feed.stretches()
    stretch = next(stretches)
    assert read(stretch) == "s3 s4 s5 s6 s7"
    assert "live.m3u8: the playlist has not changed for 3.5 s" in str(stretch.file.failure)
    with pytest.raises(SourceError, match="has not changed"):
        next(stretches)


def test_a_recording_that_begins_in_between_is_a_stretch_of_its_own(
    encoder: Encoder, clock: ManualClock
) -> None:
    encoder.lines[7] = ["#EXT-X-DISCONTINUITY"]
    encoder.ends_at = 12.0  # the tag leaves the playlist while it is read
    assert all_of(feed_of(encoder, clock)) == [
        Read("s3 s4 s5 s6", 0.0, False),
        Read("s7 s8 s9 s10 s11 s12 s13 s14 s15 s16 s17", 0.0, True),
    ]


def test_a_new_header_is_a_stretch_of_its_own(encoder: Encoder, clock: ManualClock) -> None:
    encoder.lines = {n: ['#EXT-X-MAP:URI="a"'] for n in range(5)}
    encoder.lines |= {n: ['#EXT-X-MAP:URI="b"'] for n in range(5, 20)}
    encoder.files = {"a": b"A ", "b": b"B "}
    encoder.ends_at = 1.0
    assert all_of(feed_of(encoder, clock)) == [
        Read("A s3 s4", 0.0, False),
        Read("B s5 s6", 0.0, True),
    ]


def test_announced_gaps_are_missed(encoder: Encoder, clock: ManualClock) -> None:
    encoder.lines = {5: ["#EXT-X-GAP"], 6: ["#EXT-X-GAP"]}
    encoder.ends_at = 2.0
    assert all_of(feed_of(encoder, clock)) == [Read("s3 s4", 0.0, False), Read("s7", 2.0, False)]
    assert "s5" not in encoder.names()


def test_a_segment_that_is_not_there_is_missed(encoder: Encoder, clock: ManualClock) -> None:
    encoder.gone, encoder.ends_at = {3, 6}, 3.0
    assert all_of(feed_of(encoder, clock)) == [
        Read("s4 s5", 1.0, False),
        Read("s7 s8", 1.0, False),
    ]


def test_many_segments_in_a_row_that_are_not_there_are_trouble(
    encoder: Encoder, clock: ManualClock
) -> None:
    encoder.gone, encoder.ends_at = {5, 6, 7, 8, 9}, 20.0
    feed = feed_of(encoder, clock)
    with pytest.raises(SourceError, match=r"s8: the server answered 404"):
        all_of(feed)


def test_a_reader_that_was_held_up_is_told_what_it_missed(
    encoder: Encoder, clock: ManualClock
) -> None:
    stretches = feed_of(encoder, clock).stretches()
    stretch = next(stretches)
    assert read(stretch, 3) == "s3 s4 s5"
    clock.advance(10.0)
    assert read(stretch) == ""
    stretch = next(stretches)
    assert (stretch.missed_s, stretch.continuous) == (4.0, False)
    assert read(stretch, 2) == "s10 s11"


def test_reading_goes_on_behind_the_place_of_an_earlier_reading(
    encoder: Encoder, clock: ManualClock
) -> None:
    # Given a reading that broke off in a segment
    feed = feed_of(encoder, clock)
    stretch = next(feed.stretches())
    assert read(stretch, 5) == "s3 s4 s5 s6 s7"
    # When another one takes over, a little later
    clock.advance(1.5)
    encoder.asked.clear()
    later = feed_of(encoder, clock, resume=feed.place)
    stretch = next(later.stretches())
    # Then it begins with the segment of which pictures may not have been decoded
    assert (stretch.missed_s, stretch.continuous) == (0.0, True)
    assert read(stretch, 3) == "s6 s7 s8"
    # When nothing was read, the place stays
    assert feed_of(encoder, clock, resume=feed.place).place == feed.place


def test_a_reading_that_takes_over_late_is_told_what_it_missed(
    encoder: Encoder, clock: ManualClock
) -> None:
    feed = feed_of(encoder, clock)
    read(next(feed.stretches()), 4)
    clock.advance(60.0)
    stretch = next(feed_of(encoder, clock, resume=feed.place).stretches())
    assert read(stretch, 1) == f"s{encoder.oldest}"
    assert (stretch.missed_s, stretch.continuous) == (encoder.oldest - 5, True)
    encoder.lines[encoder.oldest] = ["#EXT-X-DISCONTINUITY"]
    stretch = next(feed_of(encoder, clock, resume=feed.place).stretches())
    assert not stretch.continuous


def test_a_place_at_a_stretch_s_border_is_behind_all_that_came_before(
    encoder: Encoder, clock: ManualClock
) -> None:
    encoder.lines[5] = ["#EXT-X-DISCONTINUITY"]
    feed = feed_of(encoder, clock)
    stretches = feed.stretches()
    assert read(next(stretches)) == "s3 s4"
    read(next(stretches), 1)
    stretch = next(feed_of(encoder, clock, resume=feed.place).stretches())
    assert read(stretch, 1) == "s5"
    assert not stretch.continuous  # its clock is another one


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("first", [0, 5000])
def test_a_server_that_counts_anew_is_read_near_its_newest(
    encoder: Encoder, clock: ManualClock, *, resumed: bool, first: int
) -> None:
    # Given a reader far in the count of a server
    encoder.first = 100
    feed = feed_of(encoder, clock)
    stretches = feed.stretches()
    stretch = next(stretches)
    read(stretch, 5)
    # When the server begins anew
    clock.advance(2.0)
    encoder.first, encoder.began_at, encoder.ready = first, clock.monotonic(), 5
    # Then the same reader and one that takes over go on there
    if resumed:
        stretch = next(feed_of(encoder, clock, resume=feed.place).stretches())
    else:
        read(stretch)
        assert stretch.file.failure is None
        stretch = next(stretches)
    assert (stretch.missed_s, stretch.continuous) == (0.0, False)
    assert read(stretch, 2) == f"s{first + 2} s{first + 3}"


def test_segments_of_other_lengths_or_dates_are_those_of_another_count(
    encoder: Encoder, clock: ManualClock
) -> None:
    feed = feed_of(encoder, clock)
    read(next(feed.stretches()), 5)
    place = feed.place
    encoder.target_s, encoder.began_at = 2, clock.monotonic() - 10
    stretch = next(feed_of(encoder, clock, resume=place).stretches())
    assert not stretch.continuous


def test_segments_of_other_dates_are_those_of_another_count(
    encoder: Encoder, clock: ManualClock
) -> None:
    def dated(minute: int) -> list[str]:
        return [f"#EXT-X-PROGRAM-DATE-TIME:2026-01-02T03:{minute:02}:00Z"]

    encoder.lines = {number: dated(10 + number) for number in range(40)}
    feed = feed_of(encoder, clock)
    read(next(feed.stretches()), 5)
    assert next(feed_of(encoder, clock, resume=feed.place).stretches()).continuous
    encoder.lines = {number: dated(11 + number) for number in range(40)}
    assert not next(feed_of(encoder, clock, resume=feed.place).stretches()).continuous


@pytest.mark.parametrize("target", ["file:///etc/passwd", "concat:a|b", "data:,x", "rtsp://h/x"])
@pytest.mark.parametrize(
    "line", ["{}", '#EXT-X-KEY:METHOD=AES-128,URI="{}"', '#EXT-X-MAP:URI="{}"']
)
def test_nothing_but_web_servers_is_asked(
    encoder: Encoder, clock: ManualClock, line: str, target: str
) -> None:
    feed = feed_of(encoder, clock)
    stretches = feed.stretches()
    stretch = next(stretches)
    read(stretch, 3)
    text = line.format(target)
    encoder.lines[6] = ["#EXTINF:1,", text] if line == "{}" else [text]
    assert read(stretch) == ""
    assert "is not an http: or https: URL" in str(stretch.file.failure)


def test_a_request_that_fails_once_is_made_again(encoder: Encoder, clock: ManualClock) -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        count = len(encoder.refreshes())
        if request.url.path == "/live.m3u8" and count and count % 2 == 0 and clock.monotonic() < 9:
            encoder.asked.append((clock.monotonic(), "live.m3u8"))
            raise httpx.RemoteProtocolError("closed")
        return encoder(request)

    encoder.ends_at = 6.0
    assert [got.text for got in all_of(feed_of(serve, clock))] == ["s3 s4 s5 s6 s7 s8 s9 s10 s11"]


def test_an_older_version_from_a_cache_is_waited_out(encoder: Encoder, clock: ManualClock) -> None:
    encoder.ends_at = 4.0
    old: list[str] = []

    def serve(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/live.m3u8":
            old.append(encoder.playlist())
            if len(old) == 4:
                encoder.asked.append((clock.monotonic(), "live.m3u8"))
                return encoder.answer(old[1].encode())
        return encoder(request)

    assert all_of(feed_of(serve, clock)) == [Read("s3 s4 s5 s6 s7 s8 s9", 0.0, False)]


def test_a_stretch_that_is_left_is_not_followed(encoder: Encoder, clock: ManualClock) -> None:
    stretches = feed_of(encoder, clock).stretches()
    read(next(stretches), 1)
    stretch = next(stretches)
    assert (read(stretch, 1), stretch.continuous) == ("s4", False)


def test_a_server_that_is_away_ends_the_stretch_with_its_reason(
    encoder: Encoder, clock: ManualClock
) -> None:
    stretches = feed_of(encoder, clock).stretches()
    stretch = next(stretches)
    read(stretch, 3)
    encoder.down = True
    assert read(stretch) == ""
    assert "cannot connect to h" in str(stretch.file.failure)
    with pytest.raises(SourceError, match="cannot connect"):
        next(stretches)


def locked(plain: bytes, key: bytes, iv: bytes) -> bytes:
    padding = PKCS7(128).padder()
    closer = Cipher(AES(key), CBC(iv)).encryptor()
    return closer.update(padding.update(plain) + padding.finalize()) + closer.finalize()


def test_keys_change_and_segments_have_their_own_vectors(
    encoder: Encoder, clock: ManualClock
) -> None:
    keys = [bytes([n]) * 16 for n in range(3)]
    encoder.files = {f"k{n}": key for n, key in enumerate(keys)}
    for number in range(20):
        iv = number.to_bytes(16, "big")
        encoder.lines[number] = [f'#EXT-X-KEY:METHOD=AES-128,URI="k{number // 2 % 3}"']
        if number % 2:
            iv = bytes([7]) * 16
            encoder.lines[number][0] += ",IV=0x" + iv.hex()
        encoder.files[f"s{number}"] = locked(f"<{number}>".encode(), keys[number // 2 % 3], iv)
    encoder.lines[8] = ["#EXT-X-KEY:METHOD=NONE"]
    encoder.files["s8"] = b"<8>"
    encoder.ends_at = 4.0
    (got,) = all_of(feed_of(encoder, clock))
    assert got.text == "<3><4><5><6><7><8><9>"
    assert encoder.names().count("k1") == 1


def test_parts_of_a_file_that_grows(encoder: Encoder, clock: ManualClock) -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/all":
            response = encoder(request)
            text = response.read().decode()
            for number in range(encoder.oldest, encoder.end):
                part = f"#EXT-X-BYTERANGE:4@{4 * number}\nall"
                text = text.replace(f"\ns{number}\n", f"\n{part}\n")
            return encoder.answer(text.encode())
        first = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
        body = b"".join(b"%03d " % n for n in range(encoder.end))
        span = {"content-range": f"bytes {first}-{len(body) - 1}/{len(body)}"}
        return httpx.Response(206, headers=span, stream=httpx.ByteStream(body[first:]))

    encoder.ends_at = 2.0
    assert [got.text for got in all_of(feed_of(serve, clock))] == ["003 004 005 006 007"]


def test_the_variant_is_chosen_and_asked_for_directly(encoder: Encoder, clock: ManualClock) -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/live.m3u8":
            text = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,RESOLUTION=64x32\nsmall.m3u8\n"
            text += "#EXT-X-STREAM-INF:BANDWIDTH=9,RESOLUTION=1280x720\nlarge.m3u8\n"
            asked.append("master")
            return encoder.answer(text.encode())
        if request.url.path == "/large.m3u8":
            asked.append("large")
            return encoder(httpx.Request("GET", URL))
        return encoder(request)

    asked: list[str] = []
    encoder.ends_at = 2.0
    assert [got.text for got in all_of(feed_of(serve, clock))] == ["s3 s4 s5 s6 s7"]
    assert asked == ["master", "large", "large", "large"]


def test_bounds_are_for_each_segment_not_for_all(encoder: Encoder, clock: ManualClock) -> None:
    encoder.ends_at = 300.0
    (got,) = all_of(feed_of(encoder, clock, limits=Limits(max_bytes=400)))
    assert got.text.endswith(" s305")
    encoder.files["s307"] = bytes(500)
    encoder.ends_at = 310.0
    with pytest.raises(SourceError, match="more than 400 bytes"):
        all_of(feed_of(encoder, clock, limits=Limits(max_bytes=400)))


def test_bytes_are_handed_on_as_they_come(encoder: Encoder, clock: ManualClock) -> None:
    sent = 0

    def dripping() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b"x" * 1000

    class Drip(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            return dripping()

    def serve(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/live.m3u8":
            return encoder(request)
        return httpx.Response(200, headers={"content-length": "100000"}, stream=Drip())

    stretch = next(feed_of(serve, clock).stretches())
    assert stretch.file.read(1 << 16) == b"x" * 1000
    assert sent == 1


def test_what_a_live_playlist_says_of_its_segments() -> None:
    text = """#EXTM3U
#EXT-X-TARGETDURATION:4
#EXT-X-MEDIA-SEQUENCE:7
#EXT-X-DISCONTINUITY-SEQUENCE:2
#EXT-X-PROGRAM-DATE-TIME:2026-01-02T03:04:05.5Z
#EXTINF:4,
a
#EXTINF:3.5,
b
#EXT-X-DISCONTINUITY
#EXT-X-GAP
#EXTINF:4,
c
#EXT-X-PROGRAM-DATE-TIME:yesterday
#EXTINF:4,
d
"""
    found = parse_playlist(text, httpx.URL(URL), "shown", Limits())
    assert isinstance(found, Playlist)
    assert (found.first, found.target_s, found.ended, found.duration_s) == (7, 4.0, False, 15.5)
    assert [(s.number, s.recording, s.breaks, s.gap) for s in found.segments] == [
        (7, 2, False, False),
        (8, 2, False, False),
        (9, 3, True, True),
        (10, 3, False, False),
    ]
    assert [s.time_s for s in found.segments] == [1767323045.5, 1767323049.5, None, None]
