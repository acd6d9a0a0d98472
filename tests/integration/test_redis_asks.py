"""Asks on a real server: the contract, and what others may have written there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import redis
from structlog.testing import capture_logs

from streamer.adapters.asks import KEPT_S, Asks, Reply
from streamer.adapters.clock import ManualClock
from streamer.adapters.redis_asks import ASKS, RedisAsks, replies_key
from streamer.adapters.redis_client import connect
from streamer.adapters.redis_server import EmbeddedRedis
from streamer.errors import QueueError
from tests.unit.streamer.test_asks import ANSWER, NOW, AsksContract, a_request, ids

IDLE_S = 0.2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def client(server: EmbeddedRedis, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with connect(server.url, protocol=request.param) as client:
        client.flushall()
        yield client


class TestRedisAsks(AsksContract):
    @pytest.fixture(autouse=True)
    def _sides(self, client: redis.Redis, clock: ManualClock) -> None:
        self.time = clock
        self.another: Callable[[], Asks] = lambda: RedisAsks(client, idle_s=IDLE_S, clock=clock)

    @pytest.fixture
    def asks(self) -> Asks:
        return self.another()

    @pytest.fixture
    def other(self) -> Asks:
        return self.another()

    def wait_idle(self, part: float = 1.0) -> None:
        """The server measures it, on its own clock."""
        self.time.advance(part * 10.0)
        time.sleep(part * (IDLE_S + 0.05))

    def test_keys_are_as_documented_and_nothing_stays(
        self, asks: Asks, other: Asks, client: redis.Redis
    ) -> None:
        asks.put(a_request())
        other.take("caption-1", count=1)
        other.tell("ask-1", Reply(n=1, text="One"))
        other.tell("ask-1", ANSWER)
        assert sorted(client.scan_iter()) == [b"streamer:asks", b"streamer:replies:ask-1"]
        assert [i for i, _ in client.xrange(replies_key("ask-1")) or []] == [
            b"1-0",
            b"9007199254740991-0",
        ]
        assert 0 < client.pttl(replies_key("ask-1")) <= KEPT_S * 1e3
        other.done("ask-1")
        assert client.xlen(ASKS) == 0
        assert client.xpending(ASKS, "captioners")["pending"] == 0

    def test_a_reply_is_heard_while_waiting_for_it(self, asks: Asks, other: Asks) -> None:
        before = time.monotonic()
        assert asks.hear("ask-1", after=0, block_s=0.05) == []
        assert time.monotonic() - before >= 0.05
        other.tell("ask-1", Reply(n=1, text="One"))
        assert asks.hear("ask-1", after=0, block_s=5.0) == [Reply(n=1, text="One")]

    def test_what_cannot_be_read_stops_nobody(self, asks: Asks, client: redis.Redis) -> None:
        client.xadd(ASKS, {"ask": "{"})
        client.xadd(ASKS, {"other": "x"})
        newer = '{"id":"ask-2","job":"cam","prompt":"?","deadline":%d,"mood":"good"}'
        client.xadd(ASKS, {"ask": newer % (NOW + 9)})
        client.xadd(replies_key("ask-2"), {"reply": "[]"}, id="1-0")
        client.xadd(replies_key("ask-2"), {"reply": '{"n":2,"later":1}'}, id="2-0")
        with capture_logs() as logs:
            assert ids(asks.take("caption-1", count=9)) == ["ask-2"]
            assert asks.hear("ask-2", after=0) == [Reply(n=2)]
        assert [line["event"] for line in logs] == ["record_malformed"] * 3
        assert client.xlen(ASKS) == 1

    def test_the_captioners_are_found_again_after_all_was_lost(
        self, asks: Asks, other: Asks, client: redis.Redis
    ) -> None:
        asks.put(a_request())
        assert ids(other.take("caption-1", count=1)) == ["ask-1"]
        client.flushall()
        self.time.advance(60.0)
        assert other.take("caption-1", count=1) == []
        assert other.wanted(["ask-1"]) == set()
        asks.put(a_request("ask-2", deadline=NOW + 120))
        assert ids(other.take("caption-1", count=1)) == ["ask-2"]


def test_no_server_is_said_soon() -> None:
    with connect("redis://127.0.0.1:1") as client:
        asks = RedisAsks(client, clock=ManualClock())
        with pytest.raises(QueueError, match=r"127\.0\.0\.1:1 could not put a question"):
            asks.put(a_request())
