"""Which entries may leave a stream: whole stretches, the oldest first, never the newest."""

from __future__ import annotations

import random

from streamer.core.retention import Bounds, Shelf, Stretch

FOREVER = float("inf")


def shelf_of(*kinds: str, size: int = 10) -> Shelf:
    """One entry of a second each per letter: I starts a stretch."""
    shelf = Shelf()
    for n, kind in enumerate("".join(kinds), start=1):
        shelf.add(n, t0=n - 1.0, t1=float(n), size=size, starts=kind == "I")
    return shelf


def firsts(due: list[Stretch]) -> list[int]:
    return [stretch.first for stretch in due]


def test_entries_are_gathered_into_stretches() -> None:
    shelf = shelf_of("IPP", "IP", "I")
    assert list(shelf.stretches) == [
        Stretch(first=1, last=3, entries=3, t0=0.0, t1=3.0, size=30),
        Stretch(first=4, last=5, entries=2, t0=3.0, t1=5.0, size=20),
        Stretch(first=6, last=6, entries=1, t0=5.0, t1=6.0, size=10),
    ]
    assert (shelf.size, shelf.seen, shelf.t1) == (60, 6, 6.0)


def test_what_comes_before_the_first_start_is_a_stretch_too() -> None:
    assert firsts(list(shelf_of("PP", "IP").stretches)) == [1, 3]


def test_an_empty_shelf_has_nothing_to_give() -> None:
    shelf = Shelf()
    assert shelf.due(Bounds(seconds=0, size=0), before=9) == []
    assert (shelf.t1, shelf.start_of(5)) == (0.0, 0)


def test_the_start_of_a_number_is_its_stretchs() -> None:
    shelf = shelf_of("IPP", "IP", "I")
    assert [shelf.start_of(n) for n in range(8)] == [0, 1, 1, 1, 4, 4, 6, 6]


def test_what_is_old_goes() -> None:
    shelf = shelf_of("IPP", "IP", "IP", "IP")  # which ends at 9 s
    assert firsts(shelf.due(Bounds(seconds=6.0, size=1000), before=9)) == []
    assert firsts(shelf.due(Bounds(seconds=5.9, size=1000), before=9)) == [1]
    assert firsts(shelf.due(Bounds(seconds=2.0, size=1000), before=9)) == [1, 4]
    assert firsts(shelf.due(Bounds(seconds=1.9, size=1000), before=9)) == [1, 4, 6]


def test_what_is_too_much_goes() -> None:
    shelf = shelf_of("IPP", "IP", "IP", "IP")  # 90 bytes
    assert firsts(shelf.due(Bounds(seconds=FOREVER, size=90), before=9)) == []
    assert firsts(shelf.due(Bounds(seconds=FOREVER, size=89), before=9)) == [1]
    assert firsts(shelf.due(Bounds(seconds=FOREVER, size=60), before=9)) == [1]
    assert firsts(shelf.due(Bounds(seconds=FOREVER, size=59), before=9)) == [1, 4]


def test_what_is_still_needed_stays() -> None:
    shelf = shelf_of("IPP", "IP", "IP", "IP")
    nothing = Bounds(seconds=0, size=0)
    assert firsts(shelf.due(nothing, before=0)) == []
    assert firsts(shelf.due(nothing, before=3)) == []
    assert firsts(shelf.due(nothing, before=4)) == [1]
    assert firsts(shelf.due(nothing, before=6)) == [1, 4]


def test_what_has_gone_is_forgotten() -> None:
    shelf = shelf_of("IPP", "IP", "I")
    shelf.drop(before=4)
    assert (firsts(list(shelf.stretches)), shelf.size, shelf.seen) == ([4, 6], 30, 6)
    shelf.drop(before=99)
    assert (list(shelf.stretches), shelf.size, shelf.seen) == ([], 0, 6)


def test_any_stream_stays_within_its_bounds_and_keeps_what_is_needed() -> None:
    draw = random.Random(3)
    for _ in range(200):
        shelf, captioned, bounds = Shelf(), 0, Bounds(seconds=draw.uniform(0, 9), size=60)
        for n in range(1, 60):
            shelf.add(
                n, t0=n - 1.0, t1=float(n), size=draw.randint(1, 9), starts=draw.random() < 0.3
            )
            captioned = draw.randint(captioned, n)
            needed = shelf.start_of(captioned)
            before = list(shelf.stretches)
            due = shelf.due(bounds, before=needed)
            # the oldest go, and nothing that is needed
            assert due == before[: len(due)]
            assert all(stretch.last < needed for stretch in due)
            if due:
                shelf.drop(before=due[-1].last + 1)
            # what stays beyond a bound is needed
            left = list(shelf.stretches)
            assert shelf.size == sum(stretch.size for stretch in left)
            if left[0].last < needed:
                assert shelf.size <= bounds.size
                assert shelf.t1 - left[0].t1 <= bounds.seconds
