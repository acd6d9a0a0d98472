"""Media time of a live source goes forward through jitter, bursts, resets, outages and drift."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from streamer.sources.live.timeline import Anchor, Timeline

PERIOD = 0.04


def send(
    line: Timeline,
    *,
    begin: float,
    seconds: float,
    first: float = 0.0,
    jitter: random.Random | None = None,
    speed: float = 1.0,
) -> list[float]:
    """Times of pictures that are sent from `begin` on, with stamps from `first` on."""
    times = []
    for k in range(round(seconds / PERIOD)):
        late = jitter.uniform(0, 0.3) if jitter and k else 0.0
        t = line.place(first + k * PERIOD, begin + k * PERIOD / speed + late, nominal_s=PERIOD)
        assert t is not None
        times.append(t)
    assert times == sorted(set(times))
    return times


def test_time_begins_at_the_first_picture_and_follows_the_stamps() -> None:
    line = Timeline()
    times = send(line, begin=1000.0, seconds=10, first=77.0, jitter=random.Random(1))
    assert times == pytest.approx([k * PERIOD for k in range(250)])


def test_our_clock_at_zero_is_told_by_the_least_delay() -> None:
    line = Timeline()
    line.place(0.0, 1000.9, nominal_s=PERIOD)
    assert line.epoch == 1000.9
    send(line, begin=1000.1, seconds=10, first=PERIOD, jitter=random.Random(2))
    assert line.epoch == pytest.approx(1000.1 - PERIOD, abs=0.02)


def test_a_burst_is_no_jump() -> None:
    # Given a playlist: six seconds at once, every six seconds, the newest as it was sent
    line = Timeline()
    times = []
    for part in range(5):
        for k in range(150):
            stamp = part * 6 + k * PERIOD
            t = line.place(stamp, 1000 + part * 6 + k * 0.001, nominal_s=PERIOD)
            times.append((t, stamp))
    assert all(t == pytest.approx(stamp) for t, stamp in times)
    assert line.epoch == pytest.approx(1000 - 5.96 + 0.149, abs=0.01)
    anchor = line.anchor
    assert anchor is not None
    assert anchor.burst_s == pytest.approx(5.96 - 0.149, abs=0.01)


def test_a_looped_clip_goes_on_where_it_ended() -> None:
    line = Timeline()
    noise = random.Random(3)
    for loop in range(100):
        times = send(line, begin=1000 + loop * 4.0, seconds=4, jitter=noise)
        assert times[0] == pytest.approx(loop * 4.0)


def test_a_jump_ahead_follows_the_clock() -> None:
    line = Timeline()
    send(line, begin=1000, seconds=2)
    times = send(line, begin=1002, seconds=2, first=90_000.0)
    assert times[0] == pytest.approx(2.0)
    times = send(line, begin=1010, seconds=2, first=5.0)
    assert times[0] == pytest.approx(10.0, abs=0.1)


def test_a_pause_of_the_source_within_a_connection_is_kept() -> None:
    line = Timeline()
    send(line, begin=1000, seconds=2)
    assert send(line, begin=1007, seconds=1, first=7.0)[0] == pytest.approx(7.0)


def test_pictures_without_stamps_and_misplaced_ones() -> None:
    line = Timeline()
    line.place(None, 1000, nominal_s=PERIOD)
    assert line.place(None, 1000.1, nominal_s=PERIOD) == PERIOD
    assert line.place(5.0, 1000.2, nominal_s=PERIOD) == 2 * PERIOD
    assert line.place(4.9, 1000.3, nominal_s=PERIOD) is None
    assert line.place(5.1, 1000.3, nominal_s=PERIOD) == pytest.approx(2 * PERIOD + 0.1)


def test_an_outage_is_as_long_as_the_clock_says() -> None:
    # Given a camera whose first picture is half a second late, on every connection
    noise = random.Random(4)
    first = Timeline()
    first.place(0.0, 1000.5, nominal_s=PERIOD)
    send(first, begin=1000 + PERIOD, seconds=60, first=PERIOD, jitter=noise)
    anchor = first.anchor
    assert anchor is not None
    # When it is gone for 20 s and counts anew
    second = Timeline(replace(anchor, offset=None))
    t = second.place(0.0, 1080.5, nominal_s=PERIOD)
    # Then
    assert t == pytest.approx(80.0, abs=0.05)
    times = send(second, begin=1080 + PERIOD, seconds=20, first=PERIOD, jitter=noise)
    assert times[-1] == pytest.approx(100, abs=0.1)
    assert second.epoch == pytest.approx(1000, abs=0.05)


def test_what_comes_at_once_was_sent_before() -> None:
    # Given a playlist that holds nine seconds when it is first read
    line = Timeline(behind_s=9.0)
    # When they come within milliseconds
    walls = []
    for k in range(225):
        t = line.place(k * PERIOD, 1000 + k * 0.0001, nominal_s=PERIOD)
        assert t is not None
        walls.append(line.epoch + t)
    # Then each was seen when it was sent
    assert walls == pytest.approx([991 + k * PERIOD for k in range(225)], abs=0.05)


def test_a_reader_that_is_replaced_does_not_take_a_burst_for_the_present() -> None:
    # Given media time by a reader that is gone, and one that begins nine seconds back
    anchor = Anchor(t=100.0, arrival=1100.0, epoch=1000.0, steady=1000.0)
    line = Timeline(anchor, behind_s=9.0)
    # When it reads what was seen already, and then what was not
    times = [line.place(k * PERIOD, 1104 + k * 0.0001, nominal_s=PERIOD) for k in range(225)]
    # Then it goes on where the other had come to
    assert times.count(None) == 126
    assert [t for t in times if t is not None] == pytest.approx(
        [95 + k * PERIOD for k in range(126, 225)]
    )


def test_a_connection_that_ends_in_its_burst_forgets_no_other() -> None:
    anchor = Anchor(t=100.0, arrival=1100.0, epoch=1000.0, steady=1000.0, burst_s=6.0)
    line = Timeline(anchor)
    line.place(0.0, 1110.0, nominal_s=PERIOD)
    after = line.anchor
    assert after is not None
    assert after.burst_s == 6.0


def test_many_connections_do_not_add_up() -> None:
    noise = random.Random(5)
    anchor: Anchor | None = None
    for connection in range(200):
        line = Timeline(anchor and replace(anchor, offset=None))
        begin = 1000 + connection * 15.0
        line.place(0.0, begin + 0.4 + noise.uniform(0, 0.2), nominal_s=PERIOD)
        send(line, begin=begin + PERIOD, seconds=12, first=PERIOD, jitter=noise)
        anchor = line.anchor
    assert anchor is not None
    assert anchor.t == pytest.approx(199 * 15.0 + 12, abs=0.5)
    assert anchor.epoch == pytest.approx(1000, abs=0.5)


def test_a_connection_that_overlaps_goes_on_with_the_same_stamps() -> None:
    first = Timeline()
    send(first, begin=1000, seconds=10, first=500.0)
    anchor = first.anchor
    assert anchor is not None
    second = Timeline(anchor)
    again = [
        second.place(508.0 + k * PERIOD, 1011 + k * 0.001, nominal_s=PERIOD) for k in range(100)
    ]
    assert [t for t in again if t is None] == [None] * 50
    assert [t for t in again if t is not None] == pytest.approx(
        [10 + k * PERIOD for k in range(50)]
    )


def test_stamps_that_cannot_go_on_give_way_to_the_clock() -> None:
    anchor = Anchor(t=100.0, arrival=1100.0, epoch=1000.0, steady=1000.0, offset=-500.0)
    assert Timeline(anchor).place(0.0, 1110.0, nominal_s=PERIOD) == pytest.approx(110)
    assert Timeline(anchor).place(9000.0, 1110.0, nominal_s=PERIOD) == pytest.approx(110)
    # and never back, whatever the clock says
    assert Timeline(anchor).place(0.0, 900.0, nominal_s=PERIOD) == pytest.approx(100 + PERIOD)


def test_a_stretch_follows_with_what_was_missed() -> None:
    line = Timeline()
    send(line, begin=1000, seconds=2, first=50.0)
    line.begin(follows=True)
    assert line.place(7.0, 1002.0, nominal_s=PERIOD) == pytest.approx(2.0)
    line.begin(follows=True, missed_s=6.0)
    assert line.place(99.0, 1002.1, nominal_s=PERIOD) == pytest.approx(8.0 + PERIOD)
    line.begin(follows=False, missed_s=6.0)
    assert line.place(105.0, 1003.1, nominal_s=PERIOD) == pytest.approx(14.0 + PERIOD)
    line.begin(follows=False)
    assert line.place(0.0, 1013.1, nominal_s=PERIOD) == pytest.approx(24.0 + PERIOD)


@pytest.mark.parametrize("speed", [0.9999, 1.0001])
def test_drift_over_hours_moves_zero_not_time(speed: float) -> None:
    line = Timeline()
    hours, step = 6, 1.0
    for k in range(round(hours * 3600 / step)):
        t = line.place(k * step, 1000 + k * step / speed, nominal_s=step)
        assert t == pytest.approx(k * step)
    true = 1000 + hours * 3600 * (1 / speed - 1)
    assert line.epoch == pytest.approx(true, abs=0.02)


def test_what_is_kept_is_bounded() -> None:
    line = Timeline()
    for k in range(20_000):
        line.place(float(k), 1000.0 + k, nominal_s=1.0)
    assert len(line._least) < 20
