"""The demo's clip: a still stretch, things that move, a pan, a hard cut; served over loopback HTTP.

It is rendered at four times the embedded model's resolution and ten pictures a second, encoded as
H.264, and known exactly, so that the truth can be printed beside the captions.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np

from streamer.embedded.render import Rendering, render
from streamer.embedded.scene import Camera, Clip, Shape, Shot, Thing
from streamer.embedded.truth import caption, describe

RATE = 10
"""Pictures per second of the file."""
SAMPLED = 2
CHUNK = 4
"""Sampled frames per chunk, at the default settings."""
SCALE = 4
STILL, PAN, AFTER = 20, 7, 6
"""Seconds with a still camera, of panning, and after the cut."""


def demo_clip() -> Clip:
    """What the demo shows, at RATE."""
    scenery = (
        Thing(shape="square", colour="white", radius=9, x=30, y=72, angle=0.1),
        Thing(shape="disc", colour="black", radius=7, x=128, y=20),
    )
    movers = (
        _passing("square", "blue", 10, enters=12, at=(110, 108), moving=(0, -6)),
        _passing("disc", "red", 16, enters=4, at=(-14, 48), moving=(6, 0)),
    )
    still: Camera = "still"
    pan: Camera = "left"
    first = Shot(
        texture_seed=1 << 21,
        origin=(40, 60),
        things=(*scenery, *movers),
        camera=(*(still,) * (STILL * RATE), *(pan,) * (PAN * RATE)),
        camera_speed=6 * SAMPLED / RATE,
    )
    second = Shot(
        texture_seed=(1 << 21) + 3,
        origin=(0, 0),
        things=(_passing("triangle", "yellow", 14, enters=0, at=(136, 14), moving=(-5, 3)),),
        camera=(still,) * (AFTER * RATE),
        camera_speed=0,
    )
    return Clip(seed=5, size=(96, 160), scale=SCALE, shots=(first, second), noise=1.5)


def _passing(
    shape: Shape,
    colour: str,
    radius: float,
    *,
    enters: float,
    at: tuple[int, int],
    moving: tuple[float, float],
) -> Thing:
    """A thing that is at `at` when it `enters`, in seconds; moving: pixels per sampled frame."""
    vx, vy = (v * SAMPLED / RATE for v in moving)
    frames = enters * RATE
    return Thing(
        shape=shape,
        colour=colour,
        radius=radius,
        x=at[0] - vx * frames,
        y=at[1] - vy * frames,
        velocity=(vx, vy),
    )


def truths() -> list[str]:
    """What is true of each chunk at the default settings."""
    clip = demo_clip()
    seen = render(replace(clip, scale=1, noise=0.0)).every(RATE // SAMPLED)
    return [
        _told(clip, seen, start, min(start + CHUNK, len(seen.frames)))
        for start in range(0, len(seen.frames), CHUNK)
    ]


def _told(clip: Clip, seen: Rendering, start: int, stop: int) -> str:
    truth = describe(replace(clip, scale=1), seen, start, stop, since=max(0, start - 1))
    return caption(truth) if truth else "(in between: nothing certain to say)"


def write_clip(path: Path) -> None:
    """Encodes the demo's clip as H.264 in MP4."""
    frames = render(demo_clip()).frames
    # the index goes to the front, so that a server without ranges will do
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18", "preset": "veryfast"}
        stream.time_base = Fraction(1, RATE)
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


class _Quiet(SimpleHTTPRequestHandler):
    def handle(self) -> None:
        with suppress(ConnectionError):  # who has seen enough hangs up
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served_demo() -> Iterator[str]:
    """The URL of the rendered clip while the context is open."""
    with tempfile.TemporaryDirectory(prefix="streamer-demo-") as folder:
        write_clip(Path(folder) / "demo.mp4")
        handler = partial(_Quiet, directory=folder)
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/demo.mp4"
            finally:
                server.shutdown()
