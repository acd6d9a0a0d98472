"""Live pictures become chunks, at once; a hole has a reason; what nobody takes is dropped."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.sources.live.cutter import Cutter
from streamer.sources.live.shelf import Shelf
from streamer.types import FrameChunk

EPOCH = 1_700_000_000.0


def picture(value: int, height: int = 2, width: int = 3) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value % 256, np.uint8)


def resized(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    return picture(int(image[0, 0, 0]), height, width)


def cutter(start_s: float = 0.0, fps: float = 2.0, chunk_s: float = 2.0) -> Cutter:
    return Cutter(fps=fps, chunk_s=chunk_s, start_s=start_s, resize=resized, reason="replaced")


def push(tool: Cutter, slots: Iterable[int], count: int = 1) -> list[FrameChunk]:
    return [c for k in slots for c in tool.push(k, count, picture(k), epoch=EPOCH)]


def facts(chunk: FrameChunk) -> tuple[int, float, float, list[int]]:
    return chunk.number, chunk.t0, chunk.t1, chunk.frames[:, 0, 0, 0].tolist()


def test_a_chunk_is_whole_with_its_last_slot() -> None:
    tool = cutter()
    assert push(tool, range(3)) == []
    (chunk,) = push(tool, [3])
    assert facts(chunk) == (1, 0.0, 2.0, [0, 1, 2, 3])
    assert (chunk.wall0, chunk.wall1, chunk.hole) == (EPOCH, EPOCH + 2, None)
    assert chunk.pts.tolist() == [0, 0.5, 1, 1.5]
    assert tool.newest_s == 2.0


@pytest.mark.parametrize(("fps", "chunk_s"), [(10.0, 0.3), (29.97, 100.0), (10 / 7, 0.7)])
def test_borders_are_those_of_files(fps: float, chunk_s: float) -> None:
    chunks = push(cutter(fps=fps, chunk_s=chunk_s), range(6000))
    assert [c.number for c in chunks] == list(range(1, len(chunks) + 1))
    assert [c.t0 for c in chunks] == pytest.approx([k * chunk_s for k in range(len(chunks))])
    assert [c.t1 for c in chunks[:-1]] == pytest.approx([c.t0 for c in chunks[1:]])


def test_a_short_silence_is_filled_with_what_was_on_screen() -> None:
    chunks = push(cutter(), [0, 1, 4, 5, 6, 7])
    assert [facts(c) for c in chunks] == [(1, 0, 2, [0, 1, 1, 1]), (2, 2, 4, [4, 5, 6, 7])]


def test_a_long_one_is_a_hole_between_its_pictures() -> None:
    tool = cutter()
    push(tool, [0])
    tool.reason = "the server left"
    chunks = push(tool, [21, 22, 23, 50, 51])
    assert [facts(c) for c in chunks] == [
        (1, 0, 0.5, [0]),
        (6, 10.5, 12, [21, 22, 23]),
        (13, 25, 26, [50, 51]),
    ]
    holes = [c.hole and (c.hole.kind, c.hole.reason) for c in chunks]
    assert holes == [None, ("gap", "the server left"), ("gap", "the source sent no pictures")]


def test_a_loss_that_left_no_hole_explains_no_later_one() -> None:
    tool = cutter()
    push(tool, [0])
    tool.reason = "the server left"
    push(tool, [1, 2])
    *_, last = push(tool, [40, 41, 42, 43])
    assert last.hole is not None
    assert last.hole.reason == "the source sent no pictures"


def test_what_is_there_goes_out_when_the_source_is_gone_and_the_rest_follows() -> None:
    tool = cutter()
    push(tool, [0, 1])
    (first,) = tool.flush(epoch=EPOCH)
    assert list(tool.flush(epoch=EPOCH)) == []
    (second,) = push(tool, [3])
    assert [facts(c) for c in (first, second)] == [(1, 0, 1, [0, 1]), (1, 1, 2, [3, 3])]
    assert second.hole is None


def test_slots_that_came_already_are_dropped() -> None:
    tool = cutter()
    push(tool, [0, 1, 2])
    chunks = [*tool.push(1, 1, picture(9), epoch=EPOCH), *tool.push(2, 3, picture(8), epoch=EPOCH)]
    assert [facts(c) for c in chunks] == [(1, 0, 2, [0, 1, 2, 8])]
    assert tool.newest_s == 2.5


def test_a_new_size_begins_with_the_next_chunk() -> None:
    tool = cutter()
    push(tool, [0, 1])
    large = [c for k in range(2, 8) for c in tool.push(k, 1, picture(k, 4, 6), epoch=EPOCH)]
    assert [c.frames.shape for c in large] == [(4, 2, 3, 3), (4, 4, 6, 3)]
    assert facts(large[0])[3] == [0, 1, 2, 3]
    # a picture that stays goes into the next chunk in its own size
    tool = cutter()
    push(tool, [0])
    chunks = list(tool.push(1, 7, picture(5, 4, 6), epoch=EPOCH))
    assert [c.frames.shape for c in chunks] == [(4, 2, 3, 3), (4, 4, 6, 3)]


def test_another_reader_goes_on_where_one_was() -> None:
    tool = cutter(start_s=10.0)
    assert push(tool, [18, 19]) == []
    chunks = push(tool, [20, 21, 22, 23])
    assert [facts(c) for c in chunks] == [(6, 10, 12, [20, 21, 22, 23])]
    assert chunks[0].hole is None
    late = push(cutter(start_s=10.0), [60, 61, 62, 63])
    assert late[0].t0 == 30
    assert late[0].hole is not None
    assert late[0].hole.reason == "replaced"


def chunk(number: int, nbytes: int = 12) -> FrameChunk:
    return FrameChunk(
        number=number,
        t0=number - 1.0,
        t1=float(number),
        pts=np.array([number - 1.0]),
        frames=np.zeros((1, nbytes // 3, 1, 3), np.uint8),
        decode_ms=0,
    )


def filled(count: int, *, most_bytes: int = 1000, most_s: float = 100.0) -> Shelf:
    shelf = Shelf(most_bytes=most_bytes, most_s=most_s, start_s=0)
    for number in range(1, count + 1):
        shelf.put(chunk(number))
    return shelf


def taken(shelf: Shelf, start_s: float) -> tuple[int, str | None] | None:
    found = shelf.take(start_s)
    if found is None:
        return None
    hole = found.hole
    return found.number, None if hole is None else f"{hole.kind}: {hole.reason}"


def test_chunks_are_taken_in_order_and_can_be_asked_for_again() -> None:
    shelf = filled(3)
    assert [taken(shelf, t) for t in (0, 1, 1, 0, 2, 3)] == [
        (1, None),
        (2, None),
        (2, None),
        (1, None),
        (3, None),
        None,
    ]
    assert not shelf.holds(3)


def test_what_ends_before_is_forgotten() -> None:
    shelf = filled(3)
    shelf.take(2)
    assert taken(shelf, 0) == (2, None)
    shelf.take(3)
    assert taken(shelf, 0) == (3, None)


@pytest.mark.parametrize("bounds", [{"most_bytes": 48}, {"most_s": 4.0}], ids=["bytes", "seconds"])
def test_the_oldest_go_and_the_next_one_says_so(bounds: dict[str, float]) -> None:
    shelf = filled(10, **bounds)  # type: ignore[arg-type]
    assert taken(shelf, 0) == (7, "skipped: 6.0 s were not taken in time")
    assert taken(shelf, 0) == (7, "skipped: 6.0 s were not taken in time")
    assert taken(shelf, 7) == (8, None)


def test_what_was_taken_goes_without_a_word() -> None:
    shelf = filled(4, most_bytes=48)
    assert taken(shelf, 0) == (1, None)
    shelf.put(chunk(5))
    assert taken(shelf, 1) == (2, None)
    shelf.put(chunk(6))
    shelf.put(chunk(7))
    assert taken(shelf, 2) == (4, "skipped: 1.0 s were not taken in time")


def test_the_newest_stays_however_large_it_is() -> None:
    shelf = filled(2, most_bytes=5)
    assert taken(shelf, 0) == (2, "skipped: 1.0 s were not taken in time")
