"""The queue on a real server: the contract, its errors, and a server that dies again and again."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.client import Pipeline

from streamer.adapters.clock import ManualClock
from streamer.adapters.memory_queue import MemoryQueue
from streamer.adapters.queue import Entry, Queue, Room
from streamer.adapters.redis_calls import RedisCalls
from streamer.adapters.redis_client import address, connect
from streamer.adapters.redis_queue import RedisQueue, job_key, stream_key
from streamer.adapters.redis_server import EmbeddedRedis
from streamer.errors import (
    ConfigError,
    NoRoom,
    QueueError,
    StreamerError,
    StreamGone,
    WriterReplaced,
)
from tests.unit.streamer.test_queue import RECORD, QueueContract, numbered, numbers


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def client(server: EmbeddedRedis, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with connect(server.url, protocol=request.param) as client:
        client.flushall()
        yield client


class TestRedisQueue(QueueContract):
    @pytest.fixture
    def queue(self, client: redis.Redis) -> Queue:
        return RedisQueue(client)

    def test_keys_are_as_documented(self, queue: Queue, client: redis.Redis) -> None:
        queue.create_job("cam", RECORD)
        assert sorted(client.scan_iter()) == [
            b"streamer:active",
            b"streamer:jobs",
            b"streamer:{cam}:events",
            b"streamer:{cam}:job",
            b"streamer:{cam}:tokens",
        ]
        queue.append("cam", "tokens", 3, numbered(3))
        assert [i for i, _ in client.xrange("streamer:{cam}:tokens") or []] == [b"3-0"]
        assert client.hgetall("streamer:active") == {b"cam": b"local"}
        queue.delete_job("cam")
        assert list(client.scan_iter()) == []

    def test_a_place_taken_in_between_is_counted(
        self, queue: Queue, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a rival whose job is made between our look at the room and our write
        multi = Pipeline.multi
        rivals = ["rival"]

        def rival_first(pipe: Pipeline) -> None:
            if rivals:
                queue.create_job(rivals.pop(), RECORD)
            multi(pipe)

        monkeypatch.setattr(Pipeline, "multi", rival_first)
        # When we take the last place, then it is not there any more
        with pytest.raises(NoRoom):
            queue.create_job("cam", RECORD, room=Room(jobs=1))
        assert queue.jobs() == ["rival"]

    @pytest.mark.parametrize("method", ["update_job", "finish_job", "create_job"])
    def test_a_job_changed_in_between_is_looked_at_again(
        self, queue: Queue, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        # Given a rival who deletes, or makes, the job between our look at it and our write
        multi = Pipeline.multi
        rivals: list[Callable[[str], object]] = [queue.delete_job]
        if method != "create_job":
            queue.create_job("cam", RECORD)
        else:
            rivals = [lambda job_id: client.hset(job_key(job_id), "made", "by rival")]

        def rival_first(pipe: Pipeline) -> None:
            if rivals:
                rivals.pop()("cam")
            multi(pipe)

        monkeypatch.setattr(Pipeline, "multi", rival_first)
        # When we write, then the rival was first
        assert not getattr(queue, method)("cam", {"state": "running"})
        assert queue.job("cam") == ({"made": "by rival"} if method == "create_job" else None)

    def test_a_foreign_key_is_a_clear_error(self, queue: Queue, client: redis.Redis) -> None:
        client.set(stream_key("cam", "tokens"), "x")
        client.set(job_key("cam"), "x")
        for call in (
            lambda: queue.append("cam", "tokens", 1, numbered(1)),
            lambda: queue.read("cam", "tokens", after=0),
            lambda: queue.last("cam", "tokens"),
            lambda: queue.job("cam"),
            lambda: queue.update_job("cam", {"a": "b"}),
        ):
            with pytest.raises(QueueError, match=r"refused to .*WRONGTYPE"):
                call()

    def test_a_full_server_is_waited_for_then_a_clear_error(
        self, queue: Queue, client: redis.Redis
    ) -> None:
        queue.create_job("cam", RECORD)
        client.config_set("maxmemory", 1)
        impatient = RedisQueue(client, retry_for_s=0.1)
        try:
            with pytest.raises(QueueError, match=r"is full and could not append entry 1"):
                impatient.append("cam", "tokens", 1, numbered(1))
            assert queue.read("cam", "tokens", after=0) == []
            # When there is room again, then who waited goes on
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(queue.append, "cam", "tokens", 1, numbered(1))
                time.sleep(0.05)  # so that it was refused; right in either case
                client.config_set("maxmemory", 0)
                assert waiting.result(10) == "written"
        finally:
            client.config_set("maxmemory", 0)

    def test_a_large_entry_stays_in_redis(self, queue: Queue, client: redis.Redis) -> None:
        # Given entries that are large, more of them than are looked at in one go
        queue.create_job("cam", RECORD)
        for number in range(1, 8):
            fields = {"head": b"small", "body": bytes(1 << 20)}
            queue.append("cam", "tokens", number, fields)

        def sent() -> int:
            return int(client.info("stats")["total_net_output_bytes"])

        # When their ends and their heads are asked for, then little is sent
        before = sent()
        assert (queue.first("cam", "tokens"), queue.last("cam", "tokens")) == (1, 7)
        outlines = queue.outlines("cam", "tokens", "head", after=0)
        assert 1 < len(outlines) < 7
        outlines += queue.outlines("cam", "tokens", "head", after=outlines[-1].entry.number)
        assert [outline.entry.number for outline in outlines] == list(range(1, 8))
        assert {outline.size for outline in outlines} == {(1 << 20) + len("headsmallbody")}
        assert sent() - before < 100_000


def outcome(queue: Queue, method: str, *args: Any, **kwargs: Any) -> object:
    """What the call gave, or which error it raised."""
    try:
        return getattr(queue, method)(*args, **kwargs)
    except StreamerError as exc:
        return type(exc)


def test_redis_and_memory_agree_on_random_calls(client: redis.Redis) -> None:
    draw = random.Random(7)
    memory, on_redis = MemoryQueue(), RedisQueue(client)
    for step in range(1500):
        job, n = draw.choice("ab"), draw.randint(1, 9) + step // 100
        at = (job, draw.choice(("tokens", "events")))
        room = draw.choice((None, Room(jobs=1), Room(of_tenant=1)))
        calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
            ("delete_job", (job,), {}),
            ("create_job", (job, RECORD), {"tenant": job, "room": room}),
            ("update_job", (job, {"n": str(n), "even": "" if n % 2 else "1"}), {}),
            ("finish_job", (job, {"state": "ended"}), {}),
            ("job", (job,), {}),
            ("records", ("ab",), {}),
            ("jobs", (), {}),
            ("active", (), {}),
            ("append", (*at, n, numbered(n)), {}),
            ("read", at, {"after": n, "count": 3}),
            ("read_any", (at[1], {"a": n, "b": n - 1}), {"count": 2}),
            ("read_back", at, {"before": n, "count": 3}),
            ("read_back", at, {}),
            ("entry", (*at, n), {}),
            ("outlines", (*at, "head"), {"after": n, "count": 3}),
            ("outlines", (*at, "nothing"), {"after": n - 3}),
            ("first", at, {}),
            ("last", at, {}),
            ("length", at, {}),
            ("trim", at, {"before": n - 5}),
        ]
        weights = [1, 4, 2, 1, 2, 1, 2, 1, 12, 4, 2, 2, 2, 2, 1, 1, 2, 2, 2, 2]
        method, args, kwargs = draw.choices(calls, weights=weights)[0]
        expected = outcome(memory, method, *args, **kwargs)
        assert outcome(on_redis, method, *args, **kwargs) == expected, f"step {step}: {method}"


# Connections


def test_an_address_where_nothing_listens_is_named_within_the_limit() -> None:
    clock = ManualClock()
    queue = RedisQueue(connect("redis://:secret@127.0.0.1:1/0"), retry_for_s=30, clock=clock)
    with pytest.raises(QueueError, match=r"^Redis at 127\.0\.0\.1:1 could not read job cam: ") as e:
        queue.job("cam")
    assert "tried for 30 s" in str(e.value)
    assert "secret" not in str(e.value)
    assert clock.monotonic() == pytest.approx(30)


@pytest.mark.parametrize(
    "refusal",
    [
        redis.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
        redis.ResponseError("Command # 1 (HSET a b) of pipeline caused error: MISCONF Redis is …"),
        redis.ResponseError("BUSY Redis is busy running a script."),
        redis.ResponseError("NOREPLICAS Not enough good replicas to write."),
        redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        redis.ReadOnlyError("You can't write against a read only replica."),
        redis.BusyLoadingError("Redis is loading the dataset in memory"),
        redis.exceptions.MasterDownError("Link with MASTER is down"),
    ],
    ids=lambda refusal: f"{type(refusal).__name__} {str(refusal)[:9]}",
)
def test_a_refusal_that_passes_is_waited_for(refusal: redis.RedisError) -> None:
    clock, refusals = ManualClock(), [refusal] * 5

    def command() -> str:
        if refusals:
            raise refusals.pop()
        return "done"

    with connect("redis://127.0.0.1:1/0") as client:
        calls = RedisCalls(client, retry_for_s=30, clock=clock)
        # When it passes, then the command is done
        assert calls("write", command) == "done"
        assert 0 < clock.monotonic() < 2
        # When it does not, then it is told
        refusals += [refusal] * 1000
        with pytest.raises(QueueError, match=r"^Redis at 127\.0\.0\.1:1 .*could not write"):
            calls("write", command)
        assert 30 < clock.monotonic() < 33


@pytest.mark.parametrize(
    "refusal", ["WRONGTYPE Operation against", "BUSYKEY Target", "ERR MISCONF"]
)
def test_a_refusal_that_stays_is_told_at_once(refusal: str) -> None:
    clock = ManualClock()

    def command() -> None:
        raise redis.ResponseError(refusal)

    with (
        connect("redis://127.0.0.1:1/0") as client,
        pytest.raises(QueueError, match=r"refused to write"),
    ):
        RedisCalls(client, retry_for_s=30, clock=clock)("write", command)
    assert clock.monotonic() == 0


def test_a_wrong_password_is_told_at_once(server: EmbeddedRedis) -> None:
    clock = ManualClock()
    with connect(f"redis://:wrong@127.0.0.1:{server.port}/0") as client:
        queue = RedisQueue(client, clock=clock)
        with pytest.raises(QueueError, match=r"refused the login .*check user and password") as e:
            queue.jobs()
    assert "wrong" not in str(e.value).replace("WRONGPASS", "")
    assert clock.monotonic() == 0


@pytest.mark.parametrize(
    "url",
    ["", "http://h", "redis://:pa/ss@h:6379/0", "redis://:pa@ss@h:x/0", "redis://u:pass@[h/0"],
)
def test_a_url_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="the Redis URL cannot be read") as e:
        connect(url)
    assert e.value.__cause__ is None
    assert "pa" not in str(e.value).replace("password", "")


def test_a_url_does_not_change_our_choices() -> None:
    with pytest.raises(ConfigError, match="options that are not its own: decode_responses"):
        connect("redis://h/0?decode_responses=true")
    client = connect("rediss://u:p@redis.example:7000/2")
    assert address(client) == "redis.example:7000"
    assert address(connect("redis://")) == "localhost:6379"


def test_a_stopped_server_is_waited_for_no_longer_than_the_limit(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, connect(server.url, block_s=0, timeout_s=0.3) as client:
        queue = RedisQueue(client, retry_for_s=0.5)
        queue.create_job("cam", RECORD)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            with pytest.raises(QueueError, match=r"could not append .*imeout"):
                queue.append("cam", "tokens", 1, numbered(1))
            assert time.monotonic() - begun < 3
        finally:
            os.kill(server.pid, signal.SIGCONT)
        # the stopped server had taken some of the tries; which does no harm
        assert queue.append("cam", "tokens", 1, numbered(1)) in ("written", "already")
        assert numbers(queue.read("cam", "tokens", after=0)) == [1]


# Exactly once

WRITERS = 3
ENTRIES = 1000
DEATHS = 5


def test_rivals_and_a_dying_server_give_each_entry_once(tmp_path: Path) -> None:
    # Given three writers of the same entries, a reader, and a server
    with EmbeddedRedis(tmp_path) as server, ThreadPoolExecutor(WRITERS + 1) as pool:
        url = server.url
        with connect(url) as client:
            RedisQueue(client).create_job("cam", RECORD)

        def write(writer: int) -> int:
            with connect(url) as client:
                queue, written = RedisQueue(client, retry_for_s=20), 0
                for n in range(1, ENTRIES + 1):
                    fields = numbered(n) | {"writer": str(writer).encode()}
                    written += queue.append("cam", "events", n, fields) == "written"
                return written

        def follow() -> list[int]:
            with connect(url) as client:
                queue = RedisQueue(client, retry_for_s=20)
                seen: list[int] = []
                while len(seen) < ENTRIES:
                    after = seen[-1] if seen else 0
                    seen += [e.number for e in queue.read("cam", "events", after=after, block_s=5)]
                return seen

        writers = [pool.submit(write, writer) for writer in range(WRITERS)]
        reader = pool.submit(follow)
        # When the server is killed and started again and again
        with connect(url) as client:
            watch = RedisQueue(client, retry_for_s=20)
            for death in range(DEATHS):
                while watch.last("cam", "events") < (death + 1) * ENTRIES // (DEATHS + 1):
                    time.sleep(0.002)
                os.kill(server.pid, signal.SIGKILL)
                server.restart()
        # Then every entry is there once, in order, for the reader too
        written = sum(writer.result(30) for writer in writers)
        assert reader.result(30) == list(range(1, ENTRIES + 1))
        with connect(url) as client:
            entries: list[Entry] = RedisQueue(client).read("cam", "events", after=0, count=1000)
        assert [entry.number for entry in entries] == list(range(1, ENTRIES + 1))
        assert all(entry.fields["head"] == str(entry.number).encode() for entry in entries)
        assert (
            ENTRIES - DEATHS * WRITERS <= written <= ENTRIES
        )  # an answer may be lost, never an entry


def test_a_late_writer_of_a_deleted_job_stops(client: redis.Redis) -> None:
    queue = RedisQueue(client)
    queue.create_job("cam", RECORD)
    with ThreadPoolExecutor(3) as pool:

        def write(_: int) -> type[QueueError]:
            for n in range(1, 1_000_000):
                try:
                    queue.append("cam", "tokens", n, numbered(n))
                except (StreamGone, WriterReplaced) as exc:
                    return type(exc)
            raise AssertionError("the job was never deleted")

        late = [pool.submit(write, writer) for writer in range(3)]
        while queue.last("cam", "tokens") < 5:
            time.sleep(0.002)
        queue.delete_job("cam")
        # refused as rival's, then read back after the deletion: told "replaced", which stops it too
        assert {writer.result(10) for writer in late} <= {StreamGone, WriterReplaced}
    assert list(client.scan_iter()) == []
