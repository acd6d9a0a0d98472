"""decord reader: sampled pictures of a local file that was checked packet by packet before.

decord 0.6 trusts a file: over damage its pictures silently take the wrong numbers, a broken packet
can end it, AVI gives it no times, and it decodes ahead without bound while nobody reads. So PyAV
says whether a file is whole and which picture is when; decord is asked for pictures by number, in
bounded batches.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamer.sources.info import Limits
from streamer.sources.times import Timed, mend

if TYPE_CHECKING:
    from streamer.sources.pyav_reader import Opened, View

_CODECS = {"h264", "hevc", "vp8", "vp9"}
_PIXELS = {"yuv420p", "yuvj420p"}
_LARGEST = 1920 * 1088
_BATCH_BYTES = 96 << 20
_COLOUR = 3.0  # mean difference; rounding of colours differs by less than 1


class DecordRefused(Exception):
    """Why decord is not to read, or could not read, this file."""


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """All pictures of a file in display order."""

    pictures: list[Timed[int]]
    file_end_s: float
    leading: bool
    """Whether pictures shown before a keyframe are stored after it (an open group of pictures)."""


def check(opened: Opened, view: View, index: Index) -> None:
    """Raises: DecordRefused when decord should not read pictures of this kind."""
    stream = opened.stream
    sar = stream.sample_aspect_ratio or 1
    if opened.codec not in _CODECS:
        raise DecordRefused(f"codec {opened.codec} is not among those that decord reads")
    if stream.codec_context.pix_fmt not in _PIXELS:
        raise DecordRefused(f"decord's colours differ for {stream.codec_context.pix_fmt}")
    if view.transpose or view.flip_x or view.flip_y:
        raise DecordRefused("the pictures are stored turned")
    if sar != 1:
        raise DecordRefused(f"the pixels are not square ({sar})")
    if index.leading:
        raise DecordRefused("decord loses count in open groups of pictures")
    if view.width * view.height > _LARGEST:
        raise DecordRefused(f"{view.width}×{view.height} is too large for decord's reading ahead")


def scan(opened: Opened, origin: float, limits: Limits) -> Index:
    """The index of a freshly opened file. Raises: DecordRefused when the file is not whole."""
    stream, base = opened.stream, opened.stream.time_base
    lengths = _length_prefixed(stream, opened.codec)
    found: list[tuple[int, int]] = []
    entry, leading = 0, False
    for packet in opened.packets():
        if not packet.size:
            continue
        if packet.pts is None or packet.is_corrupt or packet.is_discard:
            raise DecordRefused(f"packet {len(found)} has no time, is damaged, or is cut away")
        if not found and not packet.is_keyframe:
            raise DecordRefused("the file does not begin with a keyframe")
        if lengths and not _whole(bytes(packet)):
            raise DecordRefused(f"packet {len(found)} is damaged")
        if packet.is_keyframe:
            entry = packet.pts
        elif packet.pts < entry:
            leading = True
        found.append((packet.pts, packet.duration or 0))
    if opened.damaged_packets or (stream.frames and stream.frames != len(found)):
        raise DecordRefused(f"the file holds {len(found)} of {stream.frames or 'unknown'} pictures")
    found.sort()
    pictures = [
        Timed(time=float(pts * base) - origin, duration=float(duration * base), picture=i)
        for i, (pts, duration) in enumerate(found)
    ]
    opened.origin = origin
    mended = mend(
        pictures,
        nominal_s=opened.nominal_s,
        declared_s=opened.declared_s,
        max_hold_s=limits.max_hold_s,
    )
    if not pictures or pictures[0].time != 0.0:
        raise DecordRefused("its first picture cannot be decoded")
    if any(a is not b for a, b in zip_longest(mended, pictures)):
        raise DecordRefused("its picture times are not in order")
    return Index(pictures, opened.file_end_s - origin, leading)


def _length_prefixed(stream: Any, codec: str) -> bool:
    """Whether packets are chains of four-byte lengths and NAL units (ISO/IEC 14496-15)."""
    extra = stream.codec_context.extradata or b""
    if codec == "h264":
        return len(extra) > 4 and extra[0] == 1 and extra[4] & 3 == 3
    return codec == "hevc" and len(extra) > 21 and extra[0] == 1 and extra[21] & 3 == 3


def _whole(packet: bytes) -> bool:
    at, end = 0, len(packet)
    while at + 5 <= end:
        length = int.from_bytes(packet[at : at + 4], "big")
        if length == 0 or packet[at + 4] & 0x80:
            return False
        at += 4 + length
    return at == end


class DecordReader:
    """One file in decord."""

    def __init__(self, path: Path, index: Index, first: NDArray[np.uint8], threads: int) -> None:
        """Compares what decord sees with `index` and the `first` picture.

        Raises: DecordRefused when they differ or decord cannot open the file.
        """
        try:
            import decord
        except (ImportError, OSError) as exc:
            raise DecordRefused(f"decord cannot be imported ({type(exc).__name__})") from exc
        self._shape = first.shape
        self._errors = (decord.DECORDError, RuntimeError, IndexError)
        decord.logging.set_level(decord.logging.QUIET)
        try:
            self._reader: Any = decord.VideoReader(
                str(path), ctx=decord.cpu(0), num_threads=threads
            )
            count = len(self._reader)
            told = self._reader.get_frame_timestamp(range(count))[:, 0]
        except self._errors as exc:
            raise DecordRefused(f"decord cannot open it: {_short(exc)}") from exc
        times = np.array([item.time for item in index.pictures])
        if count != len(times):
            raise DecordRefused(f"decord counts {count} pictures, the file has {len(times)}")
        # float32: a step of 1/4096 s after 1024 s
        near = np.isclose(told - told[0], times, rtol=1e-6, atol=0.002)
        if not (np.isfinite(told).all() and near.all()):
            raise DecordRefused("decord's times are not those of the file")
        ((_, image),) = self._read([(0, 0)])
        if np.abs(image.astype(np.int16) - first).mean() > _COLOUR:
            raise DecordRefused("decord's first picture looks different")

    def read(self, wanted: Iterable[tuple[int, int]]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(slot, picture) for every (slot, picture number), numbers never going back.

        Raises: DecordRefused when decord fails; what was handed out before is right.
        """
        most = max(4, min(64, _BATCH_BYTES // math.prod(self._shape)))
        batch: list[tuple[int, int]] = []
        for pair in wanted:
            if len({number for _, number in [*batch, pair]}) > most:
                yield from self._read(batch)
                batch = []
            batch.append(pair)
        if batch:
            yield from self._read(batch)

    def _read(self, batch: list[tuple[int, int]]) -> list[tuple[int, NDArray[np.uint8]]]:
        numbers = sorted({number for _, number in batch})
        try:
            images = self._reader.get_batch(numbers).asnumpy()
            self._reader.seek(0)  # empties its queues: it would go on decoding unread pictures
        except self._errors as exc:
            raise DecordRefused(f"decord failed at picture {numbers[0]}: {_short(exc)}") from exc
        if images.shape != (len(numbers), *self._shape):
            raise DecordRefused(f"decord gave pictures of shape {images.shape}")
        row = {number: i for i, number in enumerate(numbers)}
        return [(slot, images[row[number]]) for slot, number in batch]


def _short(exc: Exception) -> str:
    """What an error says, without places in decord's source and file names in brackets."""
    lines = str(exc).strip().splitlines()
    return (
        re.sub(r"(\S+\.cc:\d+:|\[[^\]]*\])\s*", "", lines[0])[:120] if lines else type(exc).__name__
    )
