"""What a codec makes of pictures: encoded as H.264 and decoded again, for real."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray


def through_codec(frames: NDArray[np.uint8], *, crf: int) -> NDArray[np.uint8]:
    """(T, H, W, 3) as a viewer of the file sees it.

    H and W are even. crf: x264's constant quality, from 0 (lossless) to 51.
    """
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = frames.shape[1:3]
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = Fraction(1, 2)
    encoder.thread_count = 1
    # with a lookahead x264 gives other bytes each time
    encoder.options = {"crf": str(crf), "preset": "veryfast", "tune": "zerolatency"}
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    seen = []
    for t, picture in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = t
        for packet in encoder.encode(frame):
            seen += decoder.decode(packet)
    for packet in encoder.encode(None):
        seen += decoder.decode(packet)
    seen += decoder.decode(None)
    return np.stack([frame.to_ndarray(format="rgb24") for frame in seen])
