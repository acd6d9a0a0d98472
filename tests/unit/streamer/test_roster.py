"""What every roster must do, run here on the one in memory; test_redis_roster.py runs it on Redis.

And the names that workers report under.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from streamer.adapters.memory_roster import MemoryRoster
from streamer.adapters.roster import Roster
from streamer.workers import (
    CONTROLLER,
    KINDS,
    LATENCY_BUCKETS_S,
    Placement,
    Progress,
    Size,
    WorkerKind,
    WorkerReport,
    kind_of,
)

REPORT = WorkerReport(
    name="caption-1",
    kind="caption",
    boot="3f2a",
    beat=7,
    state="starting",
    error="no such checkpoint: “größer”",
    node="10.0.0.7",
    pid=4711,
    rss_bytes=1 << 33,
    backlog=3,
    busy_s=12.5,
    step_s=0.25,
    chunks=40,
    latency_s=31.75,
    latencies=tuple(range(len(LATENCY_BUCKETS_S) + 1)),
    batch=2.5,
    jobs={"cam": Progress(chunk=12, t1=24.0), "dock": Progress(chunk=0, t1=0.0)},
)
PLACED = Placement(
    tenant="ann",
    decode="decode-1",
    tokenize="tokenize-2",
    caption="caption-1",
    paused=True,
    strikes=3,
)


def a_report(name: str, beat: int = 1) -> WorkerReport:
    return WorkerReport(name=name, kind="caption", boot="b", beat=beat)


class RosterContract:
    """A subclass gives the fixture `roster`: an empty one."""

    def test_an_empty_roster_is_empty(self, roster: Roster) -> None:
        assert roster.reports() == {}
        assert roster.placements() == {}
        assert roster.sizes() == {}
        assert roster.published("settings") is None

    def test_a_report_comes_back_as_it_was(self, roster: Roster) -> None:
        roster.report(REPORT)
        assert roster.reports() == {"caption-1": REPORT}

    def test_the_last_report_of_each_is_kept(self, roster: Roster) -> None:
        for report in (a_report("caption-1"), a_report("caption-2"), a_report("caption-1", 2)):
            roster.report(report)
        assert {name: r.beat for name, r in roster.reports().items()} == {
            "caption-1": 2,
            "caption-2": 1,
        }

    def test_a_worker_that_is_no_more_is_forgotten(self, roster: Roster) -> None:
        roster.report(a_report("caption-1"))
        roster.report(a_report("caption-2"))
        roster.forget("caption-1")
        roster.forget("caption-1")
        assert roster.reports().keys() == {"caption-2"}

    def test_a_placement_comes_back_as_it_was(self, roster: Roster) -> None:
        roster.place({"cam": PLACED, "dock": Placement(tenant="local")})
        assert roster.placements() == {"cam": PLACED, "dock": Placement(tenant="local")}

    def test_what_is_not_placed_anew_stays(self, roster: Roster) -> None:
        roster.place({"a": PLACED, "b": PLACED, "c": PLACED})
        moved = PLACED.moved("caption", "caption-9")
        roster.place({"a": None, "b": moved, "nobody": None})
        assert roster.placements() == {"b": moved, "c": PLACED}
        roster.place({})
        assert roster.placements() == {"b": moved, "c": PLACED}

    def test_pools_are_given_sizes(self, roster: Roster) -> None:
        roster.resize({"caption": Size(min=1, max=4)})
        roster.resize({"decode": Size(min=0, max=2)})
        roster.resize({"caption": Size(min=2, max=3)})
        roster.resize({})
        assert roster.sizes() == {"caption": Size(min=2, max=3), "decode": Size(min=0, max=2)}

    def test_what_is_published_is_known_to_all(self, roster: Roster) -> None:
        roster.publish("operators", '{"rlt": "größer"}')
        roster.publish("capacity", "16")
        roster.publish("capacity", "32")
        assert roster.published("operators") == '{"rlt": "größer"}'
        assert roster.published("capacity") == "32"
        assert roster.published("nothing") is None

    def test_the_parts_are_apart(self, roster: Roster) -> None:
        roster.report(a_report("x"))
        roster.place({"x": PLACED})
        roster.publish("x", "y")
        roster.forget("x")
        assert roster.placements() == {"x": PLACED}
        roster.place({"x": None})
        assert roster.published("x") == "y"

    def test_many_report_at_once(self, roster: Roster) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: roster.report(a_report(f"caption-{n % 10}", n)), range(100)))
        assert len(roster.reports()) == 10
        assert all(r.beat % 10 == int(name[-1]) for name, r in roster.reports().items())


class TestMemoryRoster(RosterContract):
    @pytest.fixture
    def roster(self) -> Roster:
        return MemoryRoster()

    def test_what_is_told_is_a_copy(self) -> None:
        roster = MemoryRoster()
        roster.report(REPORT)
        roster.place({"cam": PLACED})
        roster.resize({"caption": Size(min=1, max=1)})
        roster.reports().clear()
        roster.placements().clear()
        roster.sizes().clear()
        assert (len(roster.reports()), len(roster.placements()), len(roster.sizes())) == (1, 1, 1)


# Names


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("caption-1", "caption"),
        ("decode-12", "decode"),
        ("tokenize-0", "tokenize"),
        (CONTROLLER, None),
        ("caption", None),
        ("caption-", None),
        ("caption-x", None),
        ("caption-1-2", None),
        ("dream-1", None),
        ("", None),
    ],
)
def test_a_workers_kind_is_in_its_name(name: str, kind: WorkerKind | None) -> None:
    assert kind_of(name) == kind


def test_a_placement_moves_one_kind_at_a_time() -> None:
    for kind in KINDS:
        moved = PLACED.moved(kind, None)
        assert moved.on(kind) is None
        assert all(moved.on(other) == PLACED.on(other) for other in KINDS if other != kind)
        assert moved.moved(kind, PLACED.on(kind)) == PLACED
