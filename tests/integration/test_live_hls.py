"""Live HLS from a real encoder and a real server, decoded as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import pytest

from streamer.errors import SourceError
from streamer.sources import TRUSTING, Limits
from streamer.sources.fetch import Fetcher
from streamer.sources.live.http import HttpFeed, is_live
from streamer.sources.transport import GuardedTransport
from tests.clips import number_of, render
from tests.servers.hls import HlsServer

FPS = 10
LOOP = 60


@dataclass(frozen=True)
class Seen:
    stretch: int
    number: int
    pts: int
    width: int
    came_at: float


class Reader:
    """The pictures of a feed, with what is said of its stretches."""

    def __init__(self, url: str, *, resume: str | None = None) -> None:
        self.transport = GuardedTransport(TRUSTING)
        self.fetcher = Fetcher(Limits(), self.transport)
        self.feed = HttpFeed(url, self.fetcher, resume=resume)
        self.said: list[tuple[float, bool]] = []
        self.pictures = self._pictures()

    def close(self) -> None:
        self.pictures.close()
        self.transport.close()

    def _pictures(self) -> Generator[Seen, None, None]:
        for stretch in self.feed.stretches():
            self.said.append((stretch.missed_s, stretch.continuous))
            with av.open(stretch.file, buffer_size=1 << 16) as container:
                for frame in container.decode(video=0):
                    yield Seen(
                        stretch=len(self.said) - 1,
                        number=number_of(frame.to_ndarray(format="rgb24")),
                        pts=frame.pts or 0,
                        width=frame.width,
                        came_at=time.monotonic(),
                    )

    def take(self, count: int) -> list[Seen]:
        return [next(self.pictures) for _ in range(count)]


Readers = Callable[..., Reader]


@pytest.fixture
def reader_of() -> Iterator[Readers]:
    with ExitStack() as readers:

        def read(url: str, resume: str | None = None) -> Reader:
            return readers.enter_context(closing(Reader(url, resume=resume)))

        yield read


def follow(seen: list[Seen]) -> bool:
    """Whether no picture is missing and none comes twice."""
    return all((a.number + 1) % LOOP == b.number for a, b in pairwise(seen))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    options = {"g": "10", "bf": "0"}
    return {
        "plain": render(folder / "plain.mp4", LOOP, options=options),
        "changing": render(folder / "changing.mp4", LOOP, options={"g": "250", "bf": "2"}),
        "large": render(folder / "large.mp4", LOOP, size=(256, 128), options=options),
    }


@pytest.fixture(scope="module")
def server(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[HlsServer]:
    sources = {
        "plain": clips["plain"],
        "changing": clips["changing"],
        "locked": clips["plain"],
    }
    folder = tmp_path_factory.mktemp("live")
    with HlsServer(folder, sources, size=12, locked={"locked"}) as server:
        yield server


def test_it_is_live_and_plays_in_real_time(server: HlsServer, reader_of: Readers) -> None:
    reader = reader_of(server.url("plain"))
    assert is_live(server.url("plain"), reader.fetcher)
    seen = reader.take(LOOP + 30)  # more than the clip has
    assert follow(seen)
    assert reader.said == [(0.0, False)]
    # segments come whole, so a picture may come up to one segment early or late
    took = seen[-1].came_at - seen[45].came_at
    assert took == pytest.approx((len(seen) - 46) / FPS, abs=1.5)


def test_after_a_cut_reading_goes_on_where_it_was(server: HlsServer, reader_of: Readers) -> None:
    # Given a reader that has come to the present
    reader = reader_of(server.url("plain"))
    seen = reader.take(45)
    # When the server is away for 5 s
    server.stop()
    cut_at = time.monotonic()
    try:
        with pytest.raises(SourceError, match=r"cannot connect|broke off|broke after"):
            seen.extend(reader.pictures)
        with pytest.raises(SourceError, match="cannot connect"):
            reader_of(server.url("plain"), resume=reader.feed.place).take(1)
        time.sleep(max(0.0, cut_at + 5.0 - time.monotonic()))
    finally:
        server.start()
    # Then another one that takes over gives what follows, after pictures that were seen
    later = reader_of(server.url("plain"), resume=reader.feed.place)
    again = later.take(80)
    assert later.said == [(0.0, True)]
    fresh = [one for one in again if one.pts > seen[-1].pts]
    assert 0 < len(again) - len(fresh) <= 25
    assert follow(seen + fresh)


def test_another_recording_of_another_size_is_another_stretch(
    server: HlsServer, clips: dict[str, Path], reader_of: Readers
) -> None:
    reader = reader_of(server.url("changing"))
    seen = reader.take(30)
    server.discontinue("changing", clips["large"])
    while len(reader.said) == 1 or seen[-1].number < 15:
        seen += reader.take(1)
    before, after = ([one for one in seen if one.stretch == n] for n in (0, 1))
    assert follow(before)
    assert [one.number for one in after] == list(range(16))
    assert ({one.width for one in before}, {one.width for one in after}) == ({128}, {256})
    assert reader.said == [(0.0, False), (0.0, True)]


def test_a_stream_whose_keys_change(server: HlsServer, reader_of: Readers) -> None:
    reader = reader_of(server.url("locked"))
    assert follow(reader.take(75))
    assert reader.said == [(0.0, False)]


def test_a_stream_that_ends(clips: dict[str, Path], tmp_path: Path, reader_of: Readers) -> None:
    sources = {"x": clips["plain"]}
    with HlsServer(tmp_path, sources, segment_s=0.5, locked={"x"}, ffmpeg=None) as server:
        reader = reader_of(server.url("x"))
        seen = reader.take(20)
        server.finish("x")
        seen += reader.pictures
        assert follow(seen)
        assert not is_live(server.url("x"), reader.fetcher)
