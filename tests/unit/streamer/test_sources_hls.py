"""HLS recordings: the pictures of the clip that was cut up, from any time; nothing else is read."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import SourceError
from streamer.sources import Limits, Source, open_source
from streamer.sources.playlist import Playlist, parse_playlist
from streamer.types import Frame
from tests.clips import render, sound_only
from tests.hls import cut_up, lock, lock_by_number

FPS = 5
LIST = "http://h/ts/list.m3u8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hls")
    clip = render(folder / "x.mp4", 60, options={"g": "10", "bf": "2"}, movflags="faststart")
    cut_up(clip, folder / "ts")
    cut_up(clip, folder / "fmp4", hls_segment_type="fmp4")
    cut_up(clip, folder / "ranges", hls_flags="single_file")
    cut_up(clip, folder / "fmp4_ranges", hls_flags="single_file", hls_segment_type="fmp4")
    lock(clip, folder / "aes")
    lock_by_number(clip, folder / "aes_by_number", first=7)
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[Frame]:
    with open_source(str(folder / "x.mp4"), fps=FPS, decoder="pyav") as source:
        return list(source.frames())


class Pieces(httpx.SyncByteStream):
    def __init__(self, data: bytes) -> None:
        self.data = data

    def __iter__(self) -> Iterator[bytes]:
        for at in range(0, len(self.data), 1000):
            yield self.data[at : at + 1000]


class Server:
    """A folder's files, and what was asked for. `changed` stands in for files."""

    def __init__(self, folder: Path, *, ranges: bool = True) -> None:
        self.folder, self.ranges = folder, ranges
        self.asked: list[str] = []
        self.sent: list[httpx.Request] = []
        self.changed: dict[str, bytes] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path[1:]
        first = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
        self.asked.append(name if first == 0 else f"{name}@{first}")
        self.sent.append(request)
        path = self.folder / name
        if name not in self.changed and not path.is_file():
            return httpx.Response(404)
        body = self.changed[name] if name in self.changed else path.read_bytes()
        if not self.ranges:
            return httpx.Response(200, stream=Pieces(body))
        span = {"content-range": f"bytes {first}-{len(body) - 1}/{len(body)}"}
        return httpx.Response(206, headers=span, stream=Pieces(body[first:]))

    def open(self, url: str = LIST, limits: Limits | None = None) -> Source:
        return open_source(
            url, fps=FPS, decoder="pyav", limits=limits, transport=httpx.MockTransport(self)
        )

    def edit(self, name: str, old: str, new: str) -> None:
        text = self.changed.get(name) or (self.folder / name).read_bytes()
        assert old.encode() in text
        self.changed[name] = text.replace(old.encode(), new.encode())


@pytest.fixture
def server(folder: Path) -> Server:
    return Server(folder)


def same(got: list[Frame], want: list[Frame]) -> bool:
    return [frame.pts for frame in got] == [frame.pts for frame in want] and all(
        np.array_equal(a.image, b.image) for a, b in zip(got, want, strict=True)
    )


KINDS = ["ts", "fmp4", "ranges", "fmp4_ranges", "aes", "aes_by_number"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_pictures_are_those_of_the_clip(
    server: Server, expected: list[Frame], kind: str
) -> None:
    with server.open(f"http://h/{kind}/list.m3u8") as source:
        assert same(list(source.frames()), expected)
        assert (source.info.duration_s, source.info.seekable) == (6.0, True)
        assert (source.missing, source.damaged_packets) == (None, 0)
    assert len(server.asked) == len(set(server.asked))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start_s", [0.1, 1.0, 2.2, 3.9, 5.8, 50.0])
def test_any_start_gives_the_same_pictures(
    server: Server, expected: list[Frame], kind: str, start_s: float
) -> None:
    with server.open(f"http://h/{kind}/list.m3u8") as source:
        assert same(
            list(source.frames(start_s)), [frame for frame in expected if frame.pts >= start_s]
        )


def test_a_late_start_reads_no_earlier_segments(server: Server) -> None:
    with server.open() as source:
        server.asked.clear()
        next(source.frames(4.5))
    assert server.asked[0] == "ts/list4.ts"


def test_a_late_start_where_the_playlist_tells_wrong_times(
    server: Server, expected: list[Frame]
) -> None:
    server.edit("ts/list.m3u8", "#EXTINF:1.0", "#EXTINF:30.0")
    with server.open() as source:
        assert same(list(source.frames(3.0)), [frame for frame in expected if frame.pts >= 3.0])


def test_segments_of_one_file_are_one_request(server: Server) -> None:
    with server.open("http://h/fmp4_ranges/list.m3u8") as source:
        list(source.frames())
    assert server.asked == ["fmp4_ranges/list.m3u8", "fmp4_ranges/list.m4s"]


def test_ranges_need_a_server_that_knows_them(folder: Path) -> None:
    server = Server(folder, ranges=False)
    server.changed["ranges/list.m3u8"] = (
        b"#EXTM3U\n#EXTINF:1,\n#EXT-X-BYTERANGE:3000@3760\nlist.ts\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(SourceError, match=r"list\.ts: the server does not answer range requests"):
        server.open("http://h/ranges/list.m3u8")


def test_the_smallest_variant_that_is_large_enough(server: Server, expected: list[Frame]) -> None:
    server.changed["master.m3u8"] = (
        b"#EXTM3U\n"
        b'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",URI="sound.m3u8"\n'
        b"#EXT-X-STREAM-INF:BANDWIDTH=9,RESOLUTION=640x360\nsmall.m3u8\n"
        b'#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS="mp4a.40.2",RESOLUTION=1x480\nsound.m3u8\n'
        b"#EXT-X-STREAM-INF:BANDWIDTH=90,RESOLUTION=1920x1080\nlarge.m3u8\n"
        b"#EXT-X-STREAM-INF:BANDWIDTH=50,RESOLUTION=1280x720\nts/list.m3u8\n"
        b"#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=5,RESOLUTION=1280x720,URI=i.m3u8\n"
    )
    with server.open("http://h/master.m3u8") as source:
        assert same(list(source.frames()), expected)
    assert server.asked[:3] == ["master.m3u8", "ts/list.m3u8", "ts/list0.ts"]


def test_references_follow_the_address_after_redirects(folder: Path) -> None:
    files = Server(folder)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/start":
            return httpx.Response(302, headers={"location": "http://cdn/ts/list.m3u8"})
        return files(request)

    with open_source("http://h/start", transport=httpx.MockTransport(answer)) as source:
        list(source.frames())
    assert {request.url.host for request in files.sent} == {"cdn"}


def test_credentials_go_to_their_origin_only(server: Server) -> None:
    server.edit("ts/list.m3u8", "list1.ts", "http://other/ts/list1.ts")
    with server.open("http://me:secret@h/ts/list.m3u8") as source:
        list(source.frames())
    assert {(r.url.host, "authorization" in r.headers) for r in server.sent} == {
        ("h", True),
        ("other", False),
    }


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("#EXT-X-ENDLIST", "", r"^http://h/ts/list\.m3u8: is a live playlist, not a recording"),
        ("list1.ts", "none.ts", r"^http://h/ts/none\.ts: the server answered 404 Not Found"),
        ("list1.ts", "file:///etc/passwd", "is not an http: or https: URL"),
        ("list1.ts", "concat:http://h/a|http://h/b", "is not an http: or https: URL"),
        ("list1.ts", "data:video/mp2t;base64,AAAA", "is not an http: or https: URL"),
        ("list1.ts", "http://h:x/", "leads to what is not a URL"),
        ("#EXTINF:1.000000,\nlist3", "#EXT-X-DISCONTINUITY\n#EXTINF:1,\nlist3", "DISCONTINUITY"),
        ("#EXTINF:1.000000,\nlist3", "#EXTINF:nan,\nlist3", "is damaged at #EXTINF"),
        ("#EXTINF:1.000000,\nlist3", "#EXT-X-BYTERANGE:5\n#EXTINF:1,\nlist3", "damaged at a URI"),
        ("SEQUENCE:0", "SEQUENCE:x", "is damaged at #EXT-X-MEDIA-SEQUENCE"),
        ("#EXT-X-VERSION:3", "#EXT-X-KEY:METHOD", "is damaged at #EXT-X-KEY"),
        ("#EXT-X-VERSION:3", "#EXT-X-KEY:METHOD=SAMPLE-AES", "is encrypted with SAMPLE-AES"),
        (
            "#EXT-X-VERSION:3",
            '#EXT-X-KEY:METHOD=AES-128,URI="k",KEYFORMAT="com.widevine"',
            "is encrypted with AES-128 and managed keys",
        ),
        ("#EXT-X-VERSION:3", '#EXT-X-KEY:METHOD=AES-128,URI="none"', "h/ts/none: .* 404"),
        ("#EXT-X-VERSION:3", '#EXT-X-KEY:METHOD=AES-128,URI="list0.ts"', "larger than 16 bytes"),
        ("#EXT-X-VERSION:3", '#EXT-X-KEY:METHOD=AES-128,URI="/short"', "no key of 16 bytes"),
        ("#EXT-X-VERSION:3", '#EXT-X-KEY:METHOD=AES-128,URI="/key"', "cannot be decrypted"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(
    server: Server, old: str, new: str, match: str, capfd: pytest.CaptureFixture[str]
) -> None:
    server.changed |= {"short": bytes(5), "key": bytes(16)}
    server.edit("ts/list.m3u8", old, new)
    with pytest.raises(SourceError, match=match), server.open() as source:
        list(source.frames())
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("#EXTM3U\n#EXT-X-ENDLIST\n", "without segments"),
        ("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nmaster.m3u8\n", "playlists of playlists"),
        ("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nx.mp4\n", "x.mp4: is not a playlist"),
        ('#EXTM3U\n#EXT-X-STREAM-INF:CODECS="mp4a.40.2"\na.m3u8\n', "of sound without video"),
        ("#EXTM3U\n#EXTINF:1,\nts/list.m3u8\n#EXT-X-ENDLIST\n", "no readable video header"),
        (
            '#EXTM3U\n#EXT-X-MAP:URI="a"\n#EXTINF:1,\nb\n#EXT-X-MAP:URI="c"\n#EXTINF:1,\nd\n',
            "several headers",
        ),
        (
            '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="key"\n#EXT-X-MAP:URI="a"\n',
            "damaged at #EXT-X-MAP",
        ),
        ("#EXTM3U\n" + "#EXTINF:1,\nx\n" * 11, "more than 10 segments"),
        ("#EXTM3U\n" + "\n" * 5000, "is larger than 5000 bytes"),
    ],
)
def test_playlists_that_lead_nowhere(server: Server, text: str, match: str) -> None:
    server.changed["master.m3u8"] = text.encode()
    with pytest.raises(SourceError, match=match):
        server.open("http://h/master.m3u8", Limits(max_segments=10, max_playlist_bytes=5000))


LINES = st.sampled_from(
    [
        "#EXTINF:1,",
        "#EXTINF:1.5",
        "#EXT-X-BYTERANGE:10@5",
        "#EXT-X-BYTERANGE:10",
        '#EXT-X-MAP:URI="m",BYTERANGE="3@4"',
        '#EXT-X-KEY:METHOD=AES-128,URI="k",IV=0x1',
        "#EXT-X-KEY:METHOD=NONE",
        "#EXT-X-STREAM-INF:RESOLUTION=1x2",
        "#EXT-X-GAP",
        "#EXT-X-ENDLIST",
        "a.ts",
        "http://other/b.ts",
    ]
)


@given(lines=st.lists(st.one_of(LINES, st.text(), st.from_regex("#EXT(INF|-X-[A-Z-]+):.*"))))
def test_any_text_is_a_playlist_or_refused(lines: list[str]) -> None:
    try:
        found = parse_playlist("\n".join(lines), httpx.URL("http://h/x"), "shown", Limits())
    except SourceError:
        return
    if isinstance(found, Playlist):
        starts = [segment.start_s for segment in found.segments]
        assert starts == sorted(starts)
        assert all(start_s <= found.duration_s for start_s in starts)
        numbers = [segment.number for segment in found.segments]
        assert numbers == list(range(found.first, found.first + len(numbers)))


def test_a_file_in_a_playlist_is_not_read_though_its_user_is_trusted(
    server: Server, folder: Path
) -> None:
    server.edit("ts/list.m3u8", "list0.ts", (folder / "ts" / "list0.ts").as_uri())
    with pytest.raises(SourceError, match="is not an http: or https: URL"):
        server.open()
    assert server.asked == ["ts/list.m3u8"]


def test_a_local_playlist_is_not_read(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"no readable video header|is a playlist"):
        open_source(str(folder / "ts" / "list.m3u8"))


def test_all_segments_together_are_bounded(server: Server) -> None:
    limits = Limits(max_bytes=10_000)
    with (
        pytest.raises(SourceError, match="more than 10000 bytes would have to be read"),
        server.open(limits=limits) as source,
    ):
        list(source.frames())


def test_a_recording_of_sound_has_no_pictures(server: Server, tmp_path: Path) -> None:
    sound = sound_only(tmp_path / "x.ts")
    server.changed["x.ts"] = sound.read_bytes()
    server.changed["x.m3u8"] = b"#EXTM3U\n#EXTINF:1,\nx.ts\n#EXT-X-ENDLIST\n"
    with pytest.raises(SourceError, match="holds audio but no video"):
        server.open("http://h/x.m3u8")


def test_segments_that_are_not_there_are_left_out(server: Server, expected: list[Frame]) -> None:
    server.edit("ts/list.m3u8", "list2.ts", "#EXT-X-GAP\nlist2.ts")
    with server.open() as source:
        got = list(source.frames())
    assert [frame.pts for frame in got] == [frame.pts for frame in expected]
    assert "ts/list2.ts" not in server.asked
    assert same(got[:10], expected[:10])
    assert same(got[15:], expected[15:])
