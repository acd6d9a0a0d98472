"""The roster on a real server: the contract, and what others may have written there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis
from structlog.testing import capture_logs

from streamer.adapters.clock import ManualClock
from streamer.adapters.redis_client import connect
from streamer.adapters.redis_roster import PLACEMENTS, SIZES, WORKERS, RedisRoster
from streamer.adapters.redis_server import EmbeddedRedis
from streamer.adapters.roster import Roster
from streamer.errors import QueueError
from streamer.workers import Placement, Size
from tests.unit.streamer.test_roster import PLACED, REPORT, RosterContract


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def client(server: EmbeddedRedis, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with connect(server.url, protocol=request.param) as client:
        client.flushall()
        yield client


class TestRedisRoster(RosterContract):
    @pytest.fixture
    def roster(self, client: redis.Redis) -> Roster:
        return RedisRoster(client)

    def test_keys_are_as_documented(self, roster: Roster, client: redis.Redis) -> None:
        roster.report(REPORT)
        roster.place({"cam": PLACED})
        roster.resize({"caption": Size(min=1, max=1)})
        roster.publish("capacity", "16")
        assert sorted(client.scan_iter()) == [
            b"streamer:placements",
            b"streamer:published",
            b"streamer:sizes",
            b"streamer:workers",
        ]

    def test_fields_of_another_version_are_ignored_and_absent_ones_have_defaults(
        self, roster: Roster, client: redis.Redis
    ) -> None:
        jobs = '{"a":{"chunk":1,"t1":2,"y":3}}'
        report = f'{{"name":"x-1","kind":"x","boot":"b","beat":1,"mood":"good","jobs":{jobs}}}'
        client.hset(WORKERS, "x-1", report)
        client.hset(PLACEMENTS, "cam", '{"tenant":"ann","dream":"dream-1"}')
        client.hset(SIZES, "caption", '{"min":1,"max":2,"step":3}')
        client.hset(SIZES, "dream", '{"min":1,"max":2}')
        assert roster.reports()["x-1"].kind == "x"
        assert roster.reports()["x-1"].jobs["a"].t1 == 2.0
        assert roster.placements() == {"cam": Placement(tenant="ann")}
        assert roster.sizes() == {"caption": Size(min=1, max=2)}

    @pytest.mark.parametrize("text", ["{", "[]", "null", '{"beat":1}', '{"beat":"many"}', "\xff"])
    @pytest.mark.parametrize(
        ("key", "read"),
        [
            (WORKERS, lambda roster: roster.reports()),
            (PLACEMENTS, lambda roster: roster.placements()),
            (SIZES, lambda roster: roster.sizes()),
        ],
        ids=["workers", "placements", "sizes"],
    )
    def test_what_is_malformed_is_named_in_the_log_and_left_out(
        self,
        roster: Roster,
        client: redis.Redis,
        key: str,
        read: Callable[[Roster], dict[str, object]],
        text: str,
    ) -> None:
        before = read(roster)
        client.hset(key, "caption-1", text)
        with capture_logs() as logs:
            assert read(roster) == before
        [entry] = logs
        assert (entry["event"], entry["key"], entry["name"]) == (
            "record_malformed",
            key,
            "caption-1",
        )

    def test_a_foreign_key_is_a_clear_error(self, roster: Roster, client: redis.Redis) -> None:
        for key in (WORKERS, PLACEMENTS, SIZES):
            client.set(key, "x")
        for call in (
            lambda: roster.report(REPORT),
            roster.reports,
            roster.placements,
            roster.sizes,
            lambda: roster.forget("caption-1"),
            lambda: roster.place({"cam": None}),
        ):
            with pytest.raises(QueueError, match=r"refused to .*WRONGTYPE"):
                call()


def test_a_server_that_is_away_is_waited_for_within_the_limit() -> None:
    clock = ManualClock()
    roster = RedisRoster(connect("redis://:secret@127.0.0.1:1/0"), retry_for_s=30, clock=clock)
    with pytest.raises(QueueError, match=r"^Redis at 127\.0\.0\.1:1 could not place jobs") as e:
        roster.place({"cam": PLACED})
    assert "secret" not in str(e.value)
    assert clock.monotonic() == pytest.approx(30)
