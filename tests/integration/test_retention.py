"""Retention on a real server: a stream without end, two janitors, and a disk that is full."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from streamer import service
from streamer.actors.janitor import Janitor
from streamer.adapters.clock import SYSTEM_CLOCK
from streamer.adapters.queue import Stream
from streamer.adapters.redis_client import connect
from streamer.adapters.redis_queue import RedisQueue, stream_key
from streamer.adapters.redis_server import EmbeddedRedis
from streamer.archive import Archive, archived_as
from streamer.config import RetentionSettings
from streamer.supervisor import Process, Supervisor
from tests.unit.streamer.long_stream import RECORD, write_caption, write_chunk

JOB = "cam"
NAME = archived_as(JOB, float(RECORD["created_at"]))
CHUNKS = 10_000
GROUP = 10
MIB = 1 << 20


def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def refused(client: redis.Redis) -> bool:
    try:
        client.ping()
    except redis.ConnectionError:
        return True
    return False


def numbers(queue: RedisQueue, stream: Stream) -> list[int]:
    found: list[int] = []
    while page := queue.read(JOB, stream, after=found[-1] if found else 0, count=200):
        found += [entry.number for entry in page]
    return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server


def test_a_live_stream_takes_no_more_memory_after_ten_thousand_chunks(
    server: EmbeddedRedis,
) -> None:
    # Given bounds of a few MiB, and a job that writes much more than that
    limits = RetentionSettings(tokens_s=1e6, tokens_bytes=4 * MIB, events_s=1e6, events_bytes=MIB)
    with connect(server.url) as client:
        client.config_set("appendfsync", "no")  # its own promise is tested elsewhere
        queue = RedisQueue(client)
        queue.create_job(JOB, RECORD)
        janitor = Janitor(limits, queue, SYSTEM_CLOCK)
        used: list[dict[Stream, int]] = []
        streams: tuple[Stream, ...] = ("tokens", "events")
        for number in range(1, CHUNKS + 1):
            write_chunk(queue, JOB, number, starts=number % GROUP == 1, size=8192)
            write_caption(queue, JOB, number)
            if number % 20 == 0:
                janitor.step()
            if number % 500 == 0:
                used.append(
                    {
                        stream: client.memory_usage(stream_key(JOB, stream), samples=0)
                        for stream in streams
                    }
                )
        # Then each stream has stayed within its bound, but for what Redis itself needs
        assert max(each["tokens"] for each in used) < 1.2 * limits.tokens_bytes
        assert max(each["events"] for each in used) < 1.2 * limits.events_bytes
        assert used[-1]["tokens"] > 0.7 * limits.tokens_bytes
        kept = numbers(queue, "tokens")
        assert kept == list(range(kept[0], CHUNKS + 1))
        assert kept[0] % GROUP == 1


def test_two_janitors_and_a_writer_lose_nothing_and_keep_nothing_twice(
    server: EmbeddedRedis, tmp_path: Path
) -> None:
    limits = RetentionSettings(tokens_s=60, events_s=600)
    archive, ended = Archive(str(tmp_path / "archive")), threading.Event()
    with connect(server.url) as client, ThreadPoolExecutor(2) as pool:
        queue = RedisQueue(client)
        queue.create_job(JOB, RECORD)

        def tidy() -> int:
            janitor = Janitor(limits, queue, SYSTEM_CLOCK, archive)
            while not ended.is_set():
                janitor.step()
            janitor.step()
            return janitor.done.archived

        tidying = [pool.submit(tidy) for _ in range(2)]
        try:
            for number in range(1, 1001):
                write_chunk(queue, JOB, number, starts=number % GROUP == 1)
                write_caption(queue, JOB, number)
        finally:
            ended.set()
        archived = sum(each.result(30) for each in tidying)
        groups = [entry.number for entry in archive.groups(NAME, 0, 1e6)]
        events = [entry.number for entry in archive.events(NAME)]
        assert len(groups) > 900
        assert groups + numbers(queue, "tokens") == list(range(1, 1001))
        assert events + numbers(queue, "events") == list(range(1, 1001))
        assert archived >= len(groups) + len(events)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB, most of it taken by a file that may be deleted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        if "mount" in os.environ.get("REQUIRE", "").split(","):
            pytest.fail(f"REQUIRE names mount, and {mounted.stderr.strip()}")
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        (disk / "ballast").write_bytes(bytes(12 * MIB))
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_a_full_disk_stops_the_writer_and_loses_nothing(small_disk: Path, fsync: str) -> None:
    # Given a server that is kept running, and a writer
    server, started = EmbeddedRedis(small_disk / "redis"), threading.Event()
    watched = service._redis(server)

    def start() -> Process:
        process = watched.start()
        started.set()
        return process

    supervisor = Supervisor([replace(watched, start=start)])
    acknowledged: list[int] = []
    enough = threading.Event()

    def write(url: str) -> None:
        with connect(url) as client:
            queue = RedisQueue(client, retry_for_s=90)
            for number in range(1, 10_000):
                write_chunk(queue, JOB, number, starts=True, size=50_000)
                acknowledged.append(number)
                if enough.is_set():
                    return

    with ThreadPoolExecutor(2) as pool:
        keeping = pool.submit(supervisor.run)
        try:
            assert started.wait(30)
            client = connect(server.url)
            queue = RedisQueue(client, retry_for_s=30)
            assert queue.create_job(JOB, RECORD)
            if fsync != "always":
                client.config_set("appendfsync", fsync)

            def full() -> int:
                """How often it has met the full disk."""
                return server.log_path.read_text().count("writing to the AOF file")

            # When the disk is full, then the writer comes no further, and nothing is lost
            writing = pool.submit(write, server.url)
            assert eventually(lambda: full() >= (2 if fsync == "always" else 1))
            assert eventually(lambda: queue.last(JOB, "tokens") == len(acknowledged))
            stopped = len(acknowledged)
            assert not writing.done()
            # When there is room again, then it goes on by itself
            (small_disk / "ballast").unlink()
            assert eventually(lambda: len(acknowledged) >= stopped + 20)
            enough.set()
            writing.result(30)
            # and every entry that was acknowledged is there, also after a restart
            os.kill(server.pid, signal.SIGKILL if fsync == "always" else signal.SIGTERM)
            assert eventually(lambda: refused(client))
            assert numbers(queue, "tokens") == acknowledged
        finally:
            enough.set()
            supervisor.stop()
            keeping.result(30)
