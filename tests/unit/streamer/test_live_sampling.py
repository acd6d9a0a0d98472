"""Of a live source's pictures those on screen at k/fps are taken, as soon as they are known."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from streamer.sources.live.sampling import LiveSampler


def sampled(times: Iterable[float], fps: float = 2.0) -> list[tuple[int, int, float, float]]:
    """(slot, count, time of the picture, time at which that is known)."""
    sampler: LiveSampler[float] = LiveSampler(fps=fps)
    return [
        (shown.slot, shown.count, shown.picture, t) for t in times for shown in sampler.push(t, t)
    ]


def test_a_picture_that_appears_at_a_slot_is_known_at_once() -> None:
    assert sampled(k * 0.1 for k in range(11)) == [
        (0, 1, 0.0, 0.0),
        (1, 1, 0.5, 0.5),
        (2, 1, 1.0, 1.0),
    ]


def test_between_two_pictures_the_first_is_on_screen() -> None:
    assert sampled([0.0, 0.3, 0.7, 1.3]) == [(0, 1, 0.0, 0.0), (1, 1, 0.3, 0.7), (2, 1, 0.7, 1.3)]


def test_a_slow_source_repeats_pictures() -> None:
    assert sampled([0.0, 1.0, 2.0], fps=4) == [
        (0, 1, 0.0, 0.0),
        (1, 3, 0.0, 1.0),
        (4, 1, 1.0, 1.0),
        (5, 3, 1.0, 2.0),
        (8, 1, 2.0, 2.0),
    ]


def test_times_that_were_rounded_count_as_there() -> None:
    assert [s[:2] for s in sampled([0.0, 0.5004, 1.0004])] == [(0, 1), (1, 1), (2, 1)]


def test_over_a_long_silence_a_picture_stays_no_longer_than_usual() -> None:
    found = sampled([0.0, 0.25, 0.5, 10.1, 10.4, 10.6], fps=4)
    assert [s[:3] for s in found] == [
        (0, 1, 0.0),
        (1, 1, 0.25),
        (2, 1, 0.5),
        (41, 1, 10.1),
        (42, 1, 10.4),
    ]


def test_a_source_that_became_slow_has_no_silence() -> None:
    times = [k * 0.5 for k in range(4)] + [2 + k * 4.0 for k in range(30)]
    late = [s for s in sampled(times, fps=1) if s[3] > 80]
    slots = [slot for s in late for slot in range(s[0], s[0] + s[1])]
    assert slots == list(range(slots[0], slots[-1] + 1))


def test_a_start_in_the_middle_waits_for_its_first_slot() -> None:
    assert [s[:3] for s in sampled([7.2, 7.4, 7.6])] == [(15, 1, 7.4)]


@pytest.mark.parametrize("fps", [0.5, 2.0, 29.97])
def test_every_slot_is_taken_once(fps: float) -> None:
    found = sampled((k / 25 + 0.003 for k in range(500)), fps=fps)
    slots = [slot for s in found for slot in range(s[0], s[0] + s[1])]
    assert slots == list(range(slots[0], slots[0] + len(slots)))
    assert len(slots) == pytest.approx(20 * fps, abs=1.5)
