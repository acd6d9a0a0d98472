"""Exports and uploads over a real connection and a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import psutil
import pytest

from streamer.adapters.queue import Queue
from streamer.adapters.redis_client import connect
from streamer.adapters.redis_queue import RedisQueue, stream_key
from streamer.adapters.redis_server import EmbeddedRedis
from streamer.adapters.redis_uploads import PREFIX, RedisUploads
from streamer.api.serve import ApiServer
from streamer.client import Client
from streamer.errors import ServiceError
from streamer.events import encode_chunk_events
from tests.integration.api_running import running, settings_for
from tests.unit.streamer.api_jobs import caption, make_job
from tests.unit.streamer.test_uploads import check_contract

CHUNKS = 20_000


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def queue(redis_server: EmbeddedRedis) -> Iterator[Queue]:
    with connect(redis_server.url) as client:
        client.flushall()
        yield RedisQueue(client)


@pytest.fixture
def api(redis_server: EmbeddedRedis, queue: Queue) -> Iterator[ApiServer]:
    with running(settings_for(redis_server.url)) as server:
        yield server


def fill(queue: Queue, redis_url: str, chunks: int) -> None:
    """A job of many hours; written past the queue, which would sync each chunk to the disk."""
    make_job(queue)
    with connect(redis_url) as client, client.pipeline(transaction=False) as pipe:
        for chunk in range(1, chunks + 1):
            text = f"Chunk {chunk}. " + "It goes on. " * 40
            fields = encode_chunk_events([caption("cam", chunk, text=text)])
            pipe.xadd(stream_key("cam", "events"), fields, id=f"{chunk}-0")
            if chunk % 1000 == 0:
                pipe.execute()
        pipe.execute()


def test_a_long_job_is_exported_without_being_held(
    redis_server: EmbeddedRedis, api: ApiServer, queue: Queue, tmp_path: Path
) -> None:
    fill(queue, redis_server.url, CHUNKS)
    process = psutil.Process()
    with Client(api.url) as client:
        list(client.export("cam", "json", t1=100.0))  # everything that is needed is imported
        before, most, size = process.memory_info().rss, 0, 0
        for piece in client.export("cam", "json"):
            size += len(piece)
            most = max(most, process.memory_info().rss)
        assert size > 10 << 20
        assert most - before < size / 4
        vtt = b"".join(client.export("cam", "vtt", t0=3599.0, t1=3605.0)).decode()
    assert "00:59:59.000 --> 01:00:00.000\nChunk 1800. " in vtt
    assert "01:00:04.000 --> 01:00:05.000\nChunk 1803. " in vtt
    assert vtt.count("-->") == 4


def test_what_cannot_be_exported_is_said_in_a_sentence(api: ApiServer) -> None:
    with Client(api.url) as client, pytest.raises(ServiceError, match="there is no job none"):
        list(client.export("none", "srt"))


def test_players_read_the_subtitles(api: ApiServer, queue: Queue, tmp_path: Path) -> None:
    make_job(queue)
    for chunk, text in enumerate(("a <b> & c", "two\nlines", "x --> y"), 1):
        events = [caption("cam", chunk, text=text)]
        queue.append("cam", "events", chunk, encode_chunk_events(events))
    for kind in ("vtt", "srt"):
        path = tmp_path / f"cam.{kind}"
        path.write_bytes(httpx.get(f"{api.url}/v1/jobs/cam/captions.{kind}").content)
        with av.open(str(path)) as opened:
            packets = [packet for packet in opened.demux(subtitles=0) if packet.size]
        spans = [(float(p.pts * p.time_base), float(p.duration * p.time_base)) for p in packets]
        assert spans == [(0.0, 2.0), (2.0, 2.0), (4.0, 2.0)]


def test_uploads_in_redis(redis_server: EmbeddedRedis) -> None:
    with connect(redis_server.url) as client:
        uploads = RedisUploads(client)
        check_contract(uploads)
        # and none of them stays for ever, from its first piece on
        uploads.put(bytes(100), keep_s=60)
        keys = client.keys(f"{PREFIX}*")
        assert keys
        assert all(0 < client.pttl(key) <= 60_000 for key in keys)
