"""Chunks are numbered by time, so that each can be made alone."""

from collections.abc import Iterator
from itertools import count

import numpy as np
import pytest

from streamer.core.chunker import Chunker
from streamer.types import Frame, FrameChunk


class Slots:
    """A source with frames in the given slots."""

    def __init__(self, *slots: int, fps: float = 2.0) -> None:
        self.slots, self.fps = slots, fps

    def frames(self, start_s: float = 0.0) -> Iterator[Frame]:
        for k in self.slots:
            if k / self.fps >= start_s - 1e-9:
                yield Frame(pts=k / self.fps, image=np.full((2, 3, 3), k, np.uint8))


def chunker(chunk_s: float = 2.0, fps: float = 2.0, tubelet: int = 2) -> Chunker:
    return Chunker(chunk_s=chunk_s, fps=fps, tubelet=tubelet, clock=lambda: 0.0)


def facts(chunk: FrameChunk) -> tuple[int, float, float, list[int]]:
    return chunk.number, chunk.t0, chunk.t1, chunk.frames[:, 0, 0, 0].tolist()


def test_chunks_cover_media_time_without_overlap() -> None:
    assert [facts(c) for c in chunker().chunks(Slots(*range(9)))] == [
        (1, 0.0, 2.0, [0, 1, 2, 3]),
        (2, 2.0, 4.0, [4, 5, 6, 7]),
        (3, 4.0, 4.5, [8]),
    ]


@pytest.mark.parametrize(("chunk_s", "fps"), [(2.0, 2.0), (0.3, 10.0), (1.0, 29.97), (0.7, 10 / 7)])
def test_a_chunk_made_alone_equals_the_sequential_one(chunk_s: float, fps: float) -> None:
    tool = chunker(chunk_s, fps, tubelet=1) if fps != 29.97 else chunker(100.0, fps, tubelet=1)
    source = Slots(*range(100), fps=fps)
    whole = list(tool.chunks(source))
    for expected in whole:
        alone = next(tool.chunks(source, expected.number))
        assert facts(alone) == facts(expected)
        assert np.array_equal(alone.pts, expected.pts)
    assert [c.number for c in whole] == list(range(1, len(whole) + 1))


def test_full_chunks_hold_equally_many_frames() -> None:
    sizes = [len(c.pts) for c in chunker(0.3, 10.0, tubelet=3).chunks(Slots(*range(90), fps=10.0))]
    assert sizes == [3] * 30


def test_a_hole_leaves_numbers_out() -> None:
    found = [facts(c)[:3] for c in chunker().chunks(Slots(0, 1, 20, 21))]
    assert found == [(1, 0.0, 1.0), (6, 10.0, 11.0)]


def test_no_frames_no_chunks() -> None:
    assert list(chunker().chunks(Slots())) == []


def test_decode_ms_is_the_time_spent_waiting_for_the_chunks_own_frames() -> None:
    ticks = count()
    tool = Chunker(chunk_s=2, fps=2, clock=lambda: float(next(ticks)))
    assert [c.decode_ms for c in tool.chunks(Slots(*range(6)))] == [4000.0, 2000.0]


def test_a_frame_out_of_order_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.5 s came after one at 1\.0 s"):
        list(chunker().chunks(Slots(0, 2, 1)))


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"chunk_s": 0.0}, "chunk_s is 0.0"),
        ({"chunk_s": float("nan")}, "chunk_s is nan"),
        ({"fps": float("inf")}, "fps is inf"),
        ({"fps": -1.0}, "fps is -1.0"),
        ({"chunk_s": 0.25}, "0.5 frames a chunk; it must be a multiple of 2"),
        ({"chunk_s": 1.5}, "3 frames a chunk; it must be a multiple of 2"),
        ({"tubelet": 0}, "tubelet is 0"),
    ],
)
def test_settings_that_give_no_whole_tubelets_are_refused(
    setting: dict[str, float], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        Chunker(**{"chunk_s": 2.0, "fps": 2.0, "tubelet": 2, **setting}, clock=lambda: 0.0)  # type: ignore[arg-type]


def test_chunks_count_from_one() -> None:
    with pytest.raises(ValueError, match="chunks count from 1"):
        chunker().start_of(0)
