"""Motion JPEG as cameras send it: pictures without times, given the times when they came.

What is around the pictures (the parts of a multipart answer) is passed over. They are handed on in
Matroska, a container that any demuxer reads and that can begin before its length is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from streamer.adapters.clock import Clock
from streamer.errors import SourceError
from streamer.sources.fetch import MediaFile
from streamer.sources.pieces import PiecesFile

_MOST_BYTES = 32 << 20  # of one picture
_START = b"\xff\xd8\xff"
_END = 0xD9
_SCAN = 0xDA
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # what may follow a scan's data


class MotionPictures(PiecesFile):
    """A file of pictures as Matroska, each as soon as its last byte has come."""

    def __init__(self, file: MediaFile, clock: Clock, *, shown: str) -> None:
        super().__init__(self._written())
        self._file = file
        self._clock = clock
        self._shown = shown

    def close(self) -> None:
        super().close()
        self._file.close()

    def _written(self) -> Iterator[bytes]:
        began = self._clock.monotonic()
        last_ms = -1
        for picture in self._pictures():
            if last_ms < 0:
                began = self._clock.monotonic()
                yield _head(*_size(picture))
            last_ms = max(last_ms + 1, round(1000 * (self._clock.monotonic() - began)))
            yield _cluster(last_ms, picture)
        if self._file.failure is not None:
            raise self._file.failure

    def _pictures(self) -> Iterator[bytes]:
        data = bytearray()
        walk: Iterator[int] | None = None
        while piece := self._file.read(1 << 16):
            data += piece
            while True:
                if walk is None:
                    start = data.find(_START)
                    del data[: start if start >= 0 else max(0, len(data) - len(_START) + 1)]
                    if start < 0:
                        break
                    walk = _walk(data)
                end = next(walk)
                if not end:
                    break
                yield bytes(data[:end])
                del data[:end]
                walk = None
            if len(data) > _MOST_BYTES:
                raise SourceError(
                    f"{self._shown}: a picture is larger than {_MOST_BYTES} bytes; check the camera"
                )


def _walk(data: bytearray) -> Iterator[int]:
    """Where the picture at the start of `data` ends; 0 each time that is not there yet."""
    at, scanning = 2, False
    while True:
        if scanning:
            found = _MARKER.search(data, at)
            if found is None:
                at = max(at, len(data) - 1)
                yield 0
                continue
            at, scanning = found.start(), False
        while len(data) < at + 4 and not (len(data) >= at + 2 and data[at + 1] == _END):
            yield 0
        marker = data[at + 1]
        if marker == _END:
            yield at + 2
            return
        if data[at] != 0xFF:  # damaged: the decoder will say so
            scanning = True
        elif marker == 0xFF:
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            scanning = marker == _SCAN


def _size(picture: bytes) -> tuple[int, int]:
    """Width and height, as the picture's header says; (0, 0) when it says nothing."""
    at = 2
    while at + 9 <= len(picture) and picture[at] == 0xFF and picture[at + 1] != _SCAN:
        marker = picture[at + 1]
        if marker in _FRAMES:
            height, width = (int.from_bytes(picture[i : i + 2], "big") for i in (at + 5, at + 7))
            return width, height
        at += 2 if marker in _ALONE else 2 + int.from_bytes(picture[at + 2 : at + 4], "big")
    return 0, 0


def _element(name: str, content: bytes, *, unknown_size: bool = False) -> bytes:
    size = (1 << 56) - 1 if unknown_size else len(content)
    return bytes.fromhex(name) + (1 << 56 | size).to_bytes(8, "big") + content


def _number(name: str, value: int) -> bytes:
    return _element(name, value.to_bytes(8, "big"))


def _head(width: int, height: int) -> bytes:
    """Everything before the first picture: one track, times in milliseconds."""
    video = _number("B0", width) + _number("BA", height)
    track = _number("D7", 1) + _number("73C5", 1) + _number("83", 1)
    track += _element("86", b"V_MJPEG") + _element("E0", video)
    info = _number("2AD7B1", 1_000_000) + _element("4D80", b"streamer") + _element("5741", b"-")
    body = _element("1549A966", info) + _element("1654AE6B", _element("AE", track))
    kind = _element("1A45DFA3", _element("4282", b"matroska"))
    return kind + _element("18538067", b"", unknown_size=True) + body


def _cluster(time_ms: int, picture: bytes) -> bytes:
    """A picture of track 1, which needs no other one."""
    block = b"\x81\x00\x00\x80" + picture
    return _element("1F43B675", _number("E7", time_ms) + _element("A3", block))
