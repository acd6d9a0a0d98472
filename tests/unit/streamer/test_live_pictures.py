"""Motion JPEG: each picture with the time when it came, whatever is sent around the pictures."""

from __future__ import annotations

import io
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.adapters.clock import ManualClock
from streamer.errors import SourceError
from streamer.sources.live import pictures
from streamer.sources.live.pictures import MotionPictures
from tests.clips import coded, number_of

STEP_S = 0.2


class Camera:
    """Pieces that come `STEP_S` after each other; then the connection is gone."""

    hint = ""

    def __init__(self, pieces: list[bytes], clock: ManualClock) -> None:
        self.failure: SourceError | None = None
        self.pieces, self.clock = list(pieces), clock
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        if not self.pieces:
            self.failure = SourceError("gone")
            return b""
        self.clock.advance(STEP_S)
        return self.pieces.pop(0)

    def seek(self, offset: int, whence: int = 0) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        return 0

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


def jpeg(number: int, *, width: int = 128, height: int = 64, noise: bool = False) -> bytes:
    image = coded(number, width, height)
    if noise:
        image ^= np.random.default_rng(number).integers(0, 32, image.shape, np.uint8)
    encoder: Any = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuvj420p")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def part(picture: bytes, kind: str = "image/jpeg") -> bytes:
    return f"--x\r\nContent-Type: {kind}\r\n\r\n".encode() + picture + b"\r\n"


def with_thumbnail(picture: bytes) -> bytes:
    small = jpeg(9, width=32, height=32)
    return picture[:2] + b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small + picture[2:]


def shown(pieces: list[bytes]) -> list[tuple[float, int, int]]:
    """Time, number and width of each picture."""
    file = MotionPictures(Camera(pieces, ManualClock()), ManualClock(), shown="cam")
    return seen(file)


def seen(file: MotionPictures) -> list[tuple[float, int, int]]:
    with av.open(file) as container:
        return [
            (round(f.time or 0.0, 3), number_of(f.to_ndarray(format="rgb24")), f.width)
            for f in container.decode(video=0)
        ]


def test_pictures_have_the_times_when_they_came() -> None:
    clock = ManualClock()
    clock.advance(1000.0)
    camera = Camera([part(jpeg(n)) for n in range(40)], clock)
    file = MotionPictures(camera, clock, shown="cam")
    assert seen(file) == [(round(STEP_S * n, 3), n, 128) for n in range(40)]
    assert str(file.failure) == "gone"
    file.close()
    assert camera.closed


def test_what_is_around_a_picture_is_passed_over() -> None:
    pieces = [
        b"\xff\xd8 no picture \xff\xd9",
        part(b"temperature 21", "text/plain"),
        part(with_thumbnail(jpeg(1))),
        part(jpeg(2, noise=True) + bytes(50)),
        part(b"\xff" * 20, "text/plain") + jpeg(3)[:2] + b"\xff\xff" + jpeg(3)[2:],
    ]
    assert [number for _, number, _ in shown(pieces)] == [1, 2, 3]


@given(st.lists(st.integers(1, 40_000), max_size=8))
def test_pictures_are_the_same_however_they_are_cut_up(cuts: list[int]) -> None:
    data = b"".join(part(jpeg(n, noise=True)) for n in range(3))
    borders = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    pieces = [data[a:b] for a, b in pairwise(borders)]
    assert [number for _, number, _ in shown(pieces)] == [0, 1, 2]


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5), st.binary(max_size=2))
def test_any_bytes_end(pieces: list[bytes], start: bytes) -> None:
    camera = Camera([b"\xff\xd8\xff" + start, *pieces], ManualClock())
    file = MotionPictures(camera, camera.clock, shown="cam")
    while file.read():
        pass
    assert file.failure is not None


def test_a_size_that_changes_is_the_decoder_s_to_see() -> None:
    pieces = [part(jpeg(1)), part(jpeg(2, width=256, height=128))]
    assert [(number, width) for _, number, width in shown(pieces)] == [(1, 128), (2, 256)]


def test_a_picture_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_MOST_BYTES", 10_000)
    camera = Camera([b"\xff\xd8\xff\xda" + bytes(1000)] * 20, ManualClock())
    file = MotionPictures(camera, camera.clock, shown="cam")
    assert file.read() == b""
    assert "cam: a picture is larger than 10000 bytes" in str(file.failure)
    assert len(camera.pieces) > 5
