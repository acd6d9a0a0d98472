"""Small clips whose pictures say their own number, rendered by PyAV when a test asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 128, 64


def coded(number: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """A picture of 4 x 2 fields, white or black by the bits of `number`, on a coloured frame."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:] = (200, 60, 40)
    for bit in range(8):
        top, left = (bit // 4) * height // 2, (bit % 4) * width // 4
        field = image[top + 4 : top + height // 2 - 4, left + 4 : left + width // 4 - 4]
        field[:] = 255 * (number >> bit & 1)
    return image


def number_of(image: NDArray[np.uint8]) -> int:
    """The number in a picture of `coded`, at any size."""
    height, width = image.shape[:2]
    number = 0
    for bit in range(8):
        y, x = height * (2 * (bit // 4) + 1) // 4, width * (2 * (bit % 4) + 1) // 8
        number |= int(image[y - 2 : y + 3, x - 2 : x + 3].mean() > 127) << bit
    return number


def render(
    path: Path,
    times: Sequence[float] | int,
    *,
    fps: int = 10,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    options: dict[str, str] | None = None,
    rotation: int = 0,
    hflip: bool = False,
    sar: Fraction | None = None,
    sound_s: float = 0.0,
    movflags: str = "",
    noise: int = 0,
) -> Path:
    """A clip with picture i (`coded(i)`) at `times[i]` seconds, or `times` pictures at `fps`.

    `noise` grey levels of noise make the file large.
    """
    random = np.random.default_rng(0)
    if isinstance(times, int):
        times = [i / fps for i in range(times)]
    base = Fraction(1, 1000)
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as out:
        stream: Any = out.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = base
        if sar is not None:
            stream.codec_context.sample_aspect_ratio = sar
        if rotation or hflip:
            stream.set_display_rotation(rotation, hflip=hflip)
        sound: Any = out.add_stream("aac", rate=48000) if sound_s else None
        for i, t in enumerate(times):
            image = coded(i, *size)
            if noise:
                image ^= random.integers(0, noise, image.shape, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(t / base), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound is not None:
            _tone(out, sound, sound_s)
    return path


def sound_only(path: Path, seconds: float = 1.0) -> Path:
    """A clip without pictures."""
    with av.open(str(path), "w") as out:
        _tone(out, out.add_stream("aac", rate=48000), seconds)
    return path


def _tone(out: Any, stream: Any, seconds: float) -> None:
    for at in range(0, int(48000 * seconds), 1024):
        wave = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, at, Fraction(1, 48000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def damaged(source: Path, path: Path, at: float, length: int) -> Path:
    """A copy with `length` bytes zeroed at a share `at` of its size."""
    data = bytearray(source.read_bytes())
    start = int(at * len(data))
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    return path


def cut(source: Path, path: Path, share: float) -> Path:
    """The first `share` of a file."""
    data = source.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path
