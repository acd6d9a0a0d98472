"""Event streams over real sockets: cut anywhere, resumed, slow, many, and a Redis that dies."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

import streamer.api.events
from streamer.adapters.queue import Queue
from streamer.adapters.redis_client import connect
from streamer.adapters.redis_queue import RedisQueue
from streamer.adapters.redis_server import EmbeddedRedis
from streamer.api.serve import ApiServer
from streamer.events import encode_chunk_events
from streamer.sse import Message
from tests.integration.api_running import TOLD, WAIT_S, Stream, running, settings_for, until
from tests.unit.streamer.api_jobs import caption, finish, make_job, write


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def queue(redis_server: EmbeddedRedis) -> Iterator[Queue]:
    """What a captioner would write to; empty at first."""
    with connect(redis_server.url) as client:
        client.flushall()
        yield RedisQueue(client)


@pytest.fixture
def api(redis_server: EmbeddedRedis, queue: Queue) -> Iterator[ApiServer]:
    with running(settings_for(redis_server.url, keep_alive_s=0.3)) as server:
        yield server


def event_ids(chunks: int, events: int = 1) -> list[str]:
    return [f"{chunk}-{n}" for chunk in range(1, chunks + 1) for n in range(events)]


def told(messages: list[Message]) -> list[str]:
    """The ids of the events among messages."""
    return [message.id for message in messages if message.event in TOLD]


def holds(stream: Stream, text: str) -> bool:
    return text.encode() in stream.raw


def write_slowly(queue: Queue, chunks: int, *, events: int = 1, pause_s: float = 0.005) -> None:
    """A captioner, to the end of the job."""
    for chunk in range(1, chunks + 1):
        write(queue, "cam", chunk, events=events)
        time.sleep(pause_s)
    finish(queue, "cam")


def test_a_client_killed_again_and_again_misses_nothing_and_sees_nothing_twice(
    api: ApiServer, queue: Queue
) -> None:
    # Given a job that is being captioned
    make_job(queue)
    draw = random.Random(3)
    seen: list[str] = []
    ended = False
    connections = 0
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_slowly, queue, 150, events=2)
        # When a client is killed after a few events each time, and comes back with the last id
        while not ended:
            connections += 1
            stream = Stream(api.url, "cam", last=seen[-1] if seen else "")
            most = draw.randint(1, 40)
            for message in stream:
                if message.event in TOLD:
                    seen.append(message.id)
                    most -= 1
                ended = ended or message.event == "end"
                if not most:
                    break
            if most:
                assert ended
            stream.kill()
            ended = ended or stream.status == 204
        writing.result(WAIT_S)
    # Then it has every event once, in order
    assert seen == event_ids(150, 2)
    assert connections > 5


def test_a_slow_subscriber_holds_up_nobody_and_nothing_is_held_for_it(
    api: ApiServer, queue: Queue
) -> None:
    # Given a long job and one who does not read
    make_job(queue)
    text = "x" * 20_000
    with Stream(api.url, "cam", buffer=4096) as slow:
        for chunk in range(1, 501):
            events = encode_chunk_events([caption("cam", chunk, text=text)])
            queue.append("cam", "events", chunk, events)
        # When another one begins later, from the beginning
        finish(queue, "cam")
        with Stream(api.url, "cam") as late:
            assert told(list(late)) == event_ids(500)
        # Then the first one is still being waited for, by TCP alone
        (held,) = api.server_state.connections
        assert held.transport.get_write_buffer_size() < 1 << 20  # of 10 MB
        assert api.service.tail.followers == 1
        assert told(list(slow)) == event_ids(500)


def test_subscribers_stand_at_different_places(api: ApiServer, queue: Queue) -> None:
    make_job(queue)
    write(queue, "cam", 1, 2, 3)
    with (
        Stream(api.url, "cam") as first,
        Stream(api.url, "cam", last="2-0") as second,
        ThreadPoolExecutor(2) as pool,
    ):
        reading = [pool.submit(list, stream) for stream in (first, second)]
        write_slowly(queue, 6)
        seen = [told(read.result(WAIT_S)) for read in reading]
    assert seen == [event_ids(6), event_ids(6)[2:]]


def test_the_state_is_told_at_once_and_on_every_change(api: ApiServer, queue: Queue) -> None:
    make_job(queue)
    with Stream(api.url, "cam") as stream:
        messages = iter(stream)
        assert next(messages).data == '{"job":"cam","state":"queued","error":null}'
        for change, data in (
            ({"state": "running"}, '{"job":"cam","state":"running","error":null}'),
            ({"paused": "1"}, '{"job":"cam","state":"paused","error":null}'),
            ({"paused": ""}, '{"job":"cam","state":"running","error":null}'),
        ):
            queue.update_job("cam", change)
            message = next(messages)
            assert (message.event, message.data) == ("state", data)
        httpx.delete(f"{api.url}/v1/jobs/cam").raise_for_status()
        rest = [(message.event, message.data) for message in messages]
    assert rest[-1] == ("end", '{"job":"cam","state":"deleted","error":null}')


def test_an_id_that_was_not_reached_is_waited_for(api: ApiServer, queue: Queue) -> None:
    make_job(queue)
    write(queue, "cam", 1, 2)
    with Stream(api.url, "cam", last="4-0") as stream:
        write_slowly(queue, 6)
        assert told(list(stream)) == ["5-0", "6-0"]


def test_a_silent_stream_gives_signs_of_life(api: ApiServer, queue: Queue) -> None:
    make_job(queue)
    with Stream(api.url, "cam") as stream, ThreadPoolExecutor(1) as pool:
        reading = pool.submit(list, stream)
        until(lambda: stream.raw.count(b": keep-alive\n\n") >= 2)
        finish(queue, "cam")
        reading.result(WAIT_S)
    assert stream.raw.startswith(b"retry: 1000\n\n")


def test_two_hundred_subscribers_come_and_go(
    api: ApiServer, queue: Queue, redis_server: EmbeddedRedis
) -> None:
    jobs = [f"job-{n}" for n in range(10)]
    for job in jobs:
        make_job(queue, job)
    with connect(redis_server.url) as client:
        loops: list[asyncio.AbstractEventLoop] = []

        def tasks() -> int:
            asyncio.run_coroutine_threadsafe(_note_loop(loops), loop_of(api)).result(WAIT_S)
            return len(asyncio.all_tasks(loops[0]))

        def used() -> tuple[int, int, int]:
            return tasks(), len(api.server_state.connections), api.service.tail.followers

        def come(n: int) -> Stream:
            return Stream(api.url, jobs[n % 10])

        with ThreadPoolExecutor(20) as pool:
            before, connections = used(), len(client.client_list())
            for wave in (1, 2):
                streams = list(pool.map(come, range(200)))
                until(lambda: api.service.tail.followers == 200)
                for job in jobs:
                    write(queue, job, wave)

                def first(stream: Stream, chunk: str = f"{wave}-0") -> bool:
                    return any(message.id == chunk for message in stream)

                assert all(pool.map(first, streams))
                assert len(client.client_list()) < connections + 50  # one a thread of the pool
                assert threading.active_count() < 100
                for n, stream in enumerate(streams):
                    (stream.kill if n % 2 else stream.socket.close)()
                until(lambda: used() == before)
        until(lambda: not [t for t in threading.enumerate() if t.name == "api-tail"])


async def _note_loop(loops: list[asyncio.AbstractEventLoop]) -> None:
    loops[:] = [asyncio.get_running_loop()]


def loop_of(api: ApiServer) -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = api.servers[0].get_loop()
    return loop


def test_a_redis_that_dies_and_comes_back_interrupts_no_stream(tmp_path: Path) -> None:
    # Given two who follow a job
    with (
        EmbeddedRedis(tmp_path) as server,
        connect(server.url) as client,
        running(settings_for(server.url, keep_alive_s=0.2)) as api,
        ThreadPoolExecutor(2) as pool,
    ):
        queue = RedisQueue(client)
        make_job(queue)
        write(queue, "cam", 1, 2)
        with Stream(api.url, "cam") as behind, Stream(api.url, "cam", last="2-0") as at_end:
            reading = [pool.submit(list, stream) for stream in (behind, at_end)]
            until(lambda: b"id: 2-0" in behind.raw)
            # When Redis is killed, and started again after a while
            os.kill(server.pid, signal.SIGKILL)
            quiet = at_end.raw.count(b"keep-alive")
            begun = time.monotonic()
            answer = httpx.get(f"{api.url}/v1/jobs/cam", timeout=WAIT_S)
            assert answer.status_code == 503
            assert time.monotonic() - begun < 6
            assert httpx.get(f"{api.url}/healthz").status_code == 200
            assert httpx.get(f"{api.url}/readyz").status_code == 503
            assert "streamer_redis_up 0.0" in httpx.get(f"{api.url}/metrics", timeout=WAIT_S).text
            until(lambda: at_end.raw.count(b"keep-alive") > quiet + 2)
            assert not any(read.done() for read in reading)
            server.restart()
            write_slowly(queue, 5)
            # Then both go on, on the same connection
            seen = [told(read.result(WAIT_S)) for read in reading]
        assert seen == [event_ids(5), event_ids(5)[2:]]
        assert httpx.get(f"{api.url}/readyz").status_code == 200


def test_a_finished_job_is_told_to_its_end_after_redis_was_away(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path) as server,
        connect(server.url) as client,
        running(settings_for(server.url)) as api,
        ThreadPoolExecutor(1) as pool,
    ):
        queue = RedisQueue(client)
        make_job(queue)
        for chunk in range(1, 401):
            text = caption("cam", chunk, text="x" * 20_000)
            queue.append("cam", "events", chunk, encode_chunk_events([text]))
        finish(queue, "cam")
        with Stream(api.url, "cam", buffer=4096) as stream:
            os.kill(server.pid, signal.SIGKILL)
            reading = pool.submit(list, stream)
            until(lambda: api.service.tail.lost_s > 0)
            server.restart()
            messages = reading.result(WAIT_S)
        assert told(messages) == event_ids(400)
        assert messages[-1].event == "end"


def test_a_redis_that_stays_away_ends_the_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamer.api.events, "LOST_S", 1.0)
    with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
        make_job(RedisQueue(client))
        with (
            running(settings_for(server.url, keep_alive_s=0.2)) as api,
            Stream(api.url, "cam") as stream,
        ):
            server.close()
            assert [message.event for message in stream] == ["state"]


def test_a_service_that_is_started_anew_goes_on_where_the_last_one_stopped(
    redis_server: EmbeddedRedis, queue: Queue
) -> None:
    make_job(queue)
    seen: list[str] = []
    port, last = 0, ""
    for life in (1, 2, 3):
        with running(settings_for(redis_server.url, port=port)) as api:
            port = api.config.port or int(api.url.rpartition(":")[2])
            with Stream(api.url, "cam", last=last) as stream, ThreadPoolExecutor(1) as pool:
                reading = pool.submit(list, stream)
                for chunk in range(10 * life - 9, 10 * life + 1):
                    write(queue, "cam", chunk)
                until(partial(holds, stream, f"id: {10 * life}-0\n"))
                begun = time.monotonic()
                api.should_exit = True
                seen += told(reading.result(WAIT_S))  # the connection is closed
                assert time.monotonic() - begun < 2
                last = stream.last
    assert seen == event_ids(30)
