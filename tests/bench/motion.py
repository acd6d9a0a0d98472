"""What moves in a clip of a still camera, found without any code of the change tests.

At full resolution and ten pictures a second: each picture is brought to the exposure of the clip's
median picture; where it then differs strongly from it, in a solid blob that is there in a picture
before or after as well, is the foreground. A cell differs between two moments where foreground of
either covers a place at which they look different.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from streamer.sources import open_source
from streamer.vision.geometry import Grid

FPS = 10
STEP = 5  # pictures from one sample, at 2 per second, to the next
LEVEL = 30  # grey levels that are a strong difference
BLOB = 5  # pixels: the edge of a square that fits into a blob
REACH = 7  # pixels that a blob may move in a tenth of a second, twice over
BACKGROUND = 60  # pictures that the median is made of

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class Motion:
    """The samples of a clip at 2 pictures a second, in one exposure, with their foreground."""

    def __init__(self, path: Path, grid: Grid, samples: int) -> None:
        self.grid = grid
        background = _background(path)
        self.frames: list[Picture] = []
        self.foreground: list[Mask] = []
        for i, (before, here, after) in enumerate(_neighbours(path)):
            if i % STEP == 0 and len(self.frames) < samples:
                picture = _exposed(here, background)
                self.frames.append(np.clip(picture, 0, 255).astype(np.uint8))
                mask = _blobs(picture, background)
                beside = [_blobs(_exposed(p, background), background) for p in (before, after)]
                self.foreground.append(mask & _grown(beside[0] | beside[1], REACH))
        height, width = background.shape[:2]
        self.rows = [-(-i * height // grid.h) for i in range(grid.h)]
        self.columns = [-(-i * width // grid.w) for i in range(grid.w)]
        self.area = self._cells(np.ones((height, width), bool))
        self.known: dict[tuple[int, int], NDArray[np.float64]] = {}

    def changed(self, a: int, b: int) -> NDArray[np.float64]:
        """(h, w) share of each cell that differs between samples a and b."""
        if (a, b) not in self.known:
            self.known[a, b] = self._changed(a, b)
        return self.known[a, b]

    def _changed(self, a: int, b: int) -> NDArray[np.float64]:
        apart = np.abs(self.frames[a].astype(np.int16) - self.frames[b]).max(axis=2) > LEVEL
        return self._cells(apart & (self.foreground[a] | self.foreground[b])) / self.area

    def _cells(self, mask: Mask) -> NDArray[np.int64]:
        lines = np.add.reduceat(mask.astype(np.int64), self.rows, axis=0)
        cells: NDArray[np.int64] = np.add.reduceat(lines, self.columns, axis=1)
        return cells


def _neighbours(path: Path) -> Iterator[tuple[Picture, Picture, Picture]]:
    """Each picture with the ones before and after it."""
    with open_source(str(path), fps=FPS) as source:
        pictures = (frame.image for frame in source.frames())
        here = next(pictures)
        before = here
        for after in pictures:
            yield before, here, after
            before, here = here, after
        yield before, here, here


def _background(path: Path) -> NDArray[np.float32]:
    with open_source(str(path), fps=FPS) as source:
        count = sum(1 for _ in source.frames())
        step = max(1, count // BACKGROUND)
        kept = [frame.image for i, frame in enumerate(source.frames()) if i % step == 0]
    background: NDArray[np.float32] = np.median(np.stack(kept), axis=0).astype(np.float32)
    return background


def _exposed(picture: Picture, background: NDArray[np.float32]) -> NDArray[np.float32]:
    """The picture in the background's exposure: a line per channel, least squares of the half that
    fits best, from several gains at first."""
    out = np.empty(picture.shape, np.float32)
    for channel in range(3):
        x = picture[::4, ::4, channel].ravel().astype(np.float64)
        y = background[::4, ::4, channel].ravel().astype(np.float64)
        fits = [_line(x, y, gain) for gain in (1.0, 0.6, 0.8, 1.25, 1.6, 2.0)]
        gain, offset = min(
            fits, key=lambda fit: np.minimum(abs(fit[0] * x + fit[1] - y), 15).mean()
        )
        out[..., channel] = gain * picture[..., channel] + offset
    return out


def _line(x: NDArray[np.float64], y: NDArray[np.float64], gain: float) -> tuple[float, float]:
    offset = float(np.median(y - gain * x))
    for _ in range(6):
        left = abs(gain * x + offset - y)
        good = left <= max(2 * float(np.median(left)), 3)
        mx, my = x[good].mean(), y[good].mean()
        spread = ((x[good] - mx) ** 2).mean()
        if spread > 0:
            gain = float(np.clip(((x[good] - mx) * (y[good] - my)).mean() / spread, 0.4, 2.5))
        offset = float(np.median(y[good] - gain * x[good]))
    return gain, offset


def _blobs(picture: NDArray[np.float32], background: NDArray[np.float32]) -> Mask:
    far: Mask = np.abs(picture - background).max(axis=2) > LEVEL
    return far & _grown(~_grown(~far, BLOB), BLOB)


def _grown(mask: Mask, edge: int) -> Mask:
    """Where there is any of it within a square of `edge` pixels."""
    held = torch.from_numpy(mask).float()[None, None]
    grown: Mask = torch.nn.functional.max_pool2d(held, edge, 1, edge // 2)[0, 0].numpy() > 0
    return grown
