"""Times of pictures, and what is on screen at k/fps."""

import pytest

from streamer.sources.times import Sampler, Timed, mend


def timed(*times: float | None, duration: float = 0.0) -> list[Timed[int]]:
    return [Timed(time=t, duration=duration, picture=i) for i, t in enumerate(times)]


def mended(*times: float | None, declared_s: float | None = None) -> list[tuple[float | None, int]]:
    found = mend(timed(*times), nominal_s=0.1, declared_s=declared_s, max_hold_s=10)
    return [(item.time, item.picture) for item in found]


def shown(
    pictures: list[Timed[int]],
    *,
    fps: float = 2,
    start_s: float = 0,
    declared_s: float | None = None,
) -> list[tuple[int, int]]:
    sampler: Sampler[int] = Sampler(
        fps=fps, start_s=start_s, nominal_s=0.1, declared_s=declared_s, max_hold_s=10
    )
    return list(sampler.sample(pictures))


def test_ordered_times_pass_unchanged() -> None:
    pictures = timed(0.0, 0.1, 0.4)
    found = list(mend(pictures, nominal_s=0.1, declared_s=None, max_hold_s=10))
    assert all(a is b for a, b in zip(found, pictures, strict=True))


def test_missing_times_follow_the_rate() -> None:
    assert mended(None, None, None) == [(0.0, 0), (0.1, 1), (0.2, 2)]


def test_a_late_picture_is_dropped() -> None:
    assert mended(0.0, 0.2, 0.1, 0.3) == [(0.0, 0), (0.2, 1), (0.3, 3)]


@pytest.mark.parametrize("jump", [4000.0, 1e9, -50.0])
def test_a_clock_set_anew_does_not_move_media_time(jump: float) -> None:
    times = [t for t, _ in mended(20.0, 20.1, 20.1 + jump, 20.2 + jump)]
    assert times == pytest.approx([20.0, 20.1, 20.2, 20.3])


def test_a_long_hold_is_kept_when_the_declared_duration_covers_it() -> None:
    assert mended(0.0, 30.0, declared_s=40.0) == [(0.0, 0), (30.0, 1)]
    assert mended(0.0, 30.0, declared_s=5.0) == [(0.0, 0), (0.1, 1)]


def test_the_picture_on_screen_is_the_last_one_that_appeared() -> None:
    assert shown(timed(0.0, 0.4, 0.6, 1.6)) == [(0, 0), (1, 1), (2, 2), (3, 2)]


def test_times_rounded_up_by_a_container_still_count() -> None:
    assert shown(timed(0.0, 0.501, 1.001)) == [(0, 0), (1, 1), (2, 2)]
    assert shown(timed(0.0, 0.503, 1.003)) == [(0, 0), (1, 0), (2, 1)]


def test_the_last_picture_stands_for_its_duration() -> None:
    assert shown(timed(0.0, duration=1.0)) == [(0, 0), (1, 0)]
    assert shown(timed(0.0)) == [(0, 0)]


def test_an_absurd_last_duration_needs_the_declared_one() -> None:
    assert shown(timed(0.0, duration=60.0)) == [(0, 0)]
    assert len(shown(timed(0.0, duration=60.0), declared_s=60.0)) == 120


@pytest.mark.parametrize("start_s", [0.0, 0.3, 0.5, 1.0, 3.0, 99.0])
def test_a_start_gives_the_tail(start_s: float) -> None:
    pictures = timed(0.0, 0.1, 0.7, 2.9, 3.0, duration=0.1)
    whole = shown(pictures)
    assert shown(pictures, start_s=start_s) == [(k, i) for k, i in whole if k / 2 >= start_s]


def test_a_hole_left_by_damage_is_filled_for_a_bounded_time() -> None:
    pictures = [
        Timed(time=0.0, duration=0.1, picture=0),
        Timed(time=30.0, duration=0.6, picture=1, after_damage=True),
    ]
    slots = [k for k, _ in shown(pictures, fps=1)]
    assert slots == [*range(10), 30]
