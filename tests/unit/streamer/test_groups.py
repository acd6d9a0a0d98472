"""Where a reader of a token stream must start, and where a moment lies in it."""

from __future__ import annotations

import pytest

from streamer.adapters.memory_queue import MemoryQueue
from streamer.groups import PAGE, entry_at, last_group

JOB = "cam"


def stream(kinds: str) -> MemoryQueue:
    """One entry per letter: I, P, g(ap) or x for one that cannot be read."""
    queue = MemoryQueue()
    queue.create_job(JOB, {"state": "running"})
    for number, kind in enumerate(kinds, start=1):
        queue.append(JOB, "tokens", number, _entry(number, kind))
    return queue


def _entry(number: int, kind: str, job: str = JOB) -> dict[str, bytes]:
    body = '"tubelet_s":[0.5],"grid":[1,1],"tokens":1,"dense":1'
    more = {"I": body, "P": body, "g": '"reason":"no pictures"', "x": '"kind":'}[kind]
    name = "gap" if kind == "g" else kind
    head = f'{{"schema":1,"job":"{job}","number":{number},"kind":"{name}","t0":0,"t1":1,{more}}}'
    return {"head": head.encode()}


def numbers(queue: MemoryQueue, upto: int | None = None) -> list[int]:
    return [entry.number for entry in last_group(queue, JOB, upto=upto)]


@pytest.mark.parametrize(
    ("kinds", "group"),
    [
        ("", []),
        ("I", [1]),
        ("IPP", [1, 2, 3]),
        ("IPPIP", [4, 5]),
        ("IPI", [3]),
        ("IPg", [1, 2, 3]),
        ("gIP", [2, 3]),
        ("g", [1]),
        ("gPP", [1, 2, 3]),
        ("IIPxP", [2, 3, 4, 5]),
        ("IPxPPg", [1, 2, 3, 4, 5, 6]),
        ("xx", [1, 2]),
    ],
)
def test_the_group_at_the_end(kinds: str, group: list[int]) -> None:
    assert numbers(stream(kinds)) == group


@pytest.mark.parametrize("length", range(PAGE - 1, 3 * PAGE + 2))
def test_a_group_longer_than_a_page_is_found_whole(length: int) -> None:
    assert numbers(stream("IPI" + "P" * length)) == list(range(3, length + 4))


@pytest.mark.parametrize(
    ("upto", "group"),
    [(0, []), (1, [1]), (3, [1, 2, 3]), (4, [4]), (6, [4, 5, 6]), (7, [7]), (99, [7, 8])],
)
def test_the_group_that_a_number_belongs_to(upto: int, group: list[int]) -> None:
    assert numbers(stream("IPPIPPIP"), upto) == group


def test_what_was_trimmed_is_not_missed() -> None:
    queue = stream("IPPIPP")
    queue.trim(JOB, "tokens", before=5)
    assert numbers(queue) == [5, 6]


@pytest.mark.parametrize("stray", [_entry(9, "I"), _entry(4, "I", job="other")])
def test_an_i_chunk_that_belongs_elsewhere_starts_nothing(stray: dict[str, bytes]) -> None:
    queue = stream("IPP")
    queue.append(JOB, "tokens", 4, stray)
    assert numbers(queue) == [1, 2, 3, 4]


def timed(spans: list[tuple[float, float]], *, broken: frozenset[int] = frozenset()) -> MemoryQueue:
    """One entry per span; those at `broken` numbers cannot be read."""
    queue = MemoryQueue()
    queue.create_job(JOB, {"state": "running"})
    for number, (t0, t1) in enumerate(spans, start=1):
        entry = _entry(number, "x" if number in broken else "I")
        head = entry["head"].replace(b'"t0":0,"t1":1', f'"t0":{t0},"t1":{t1}'.encode())
        queue.append(JOB, "tokens", number, {"head": head})
    return queue


@pytest.mark.parametrize(
    ("seconds", "number"),
    [(0.0, 1), (1.9, 1), (2.0, 2), (3.0, 2), (4.0, 3), (100.0, 3), (119.9, 3), (120.0, 4)],
)
def test_the_entry_of_a_moment(seconds: float, number: int) -> None:
    queue = timed([(0, 2), (2, 4), (4, 120), (120, 122)])
    assert entry_at(queue, JOB, seconds) == number
    assert entry_at(queue, JOB, 122.0) is None


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 8, 40])
@pytest.mark.parametrize("trimmed", [0, 1, 5])
def test_the_entry_of_a_moment_is_found_in_streams_of_all_lengths(
    length: int, trimmed: int
) -> None:
    queue = timed([(n, n + 1) for n in range(length)])
    queue.trim(JOB, "tokens", before=trimmed + 1)
    for second in range(length):
        assert entry_at(queue, JOB, second + 0.5) == max(second, trimmed) + 1 or trimmed >= length
    assert entry_at(queue, JOB, float(length)) is None


def test_entries_without_a_time_are_passed_over() -> None:
    spans = [(float(n), n + 1.0) for n in range(9)]
    queue = timed(spans, broken=frozenset({1, 4, 5, 6, 9}))
    found = [entry_at(queue, JOB, n + 0.5) for n in range(9)]
    assert found == [2, 2, 3, 7, 7, 7, 7, 8, None]
