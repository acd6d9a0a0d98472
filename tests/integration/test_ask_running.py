"""Asks of a running service: answered by its captioners, also by the one after one that died."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from streamer.adapters.asks import AskRequest, Reply
from streamer.adapters.redis_asks import ASKS, GROUP, RedisAsks
from streamer.adapters.redis_client import connect
from tests.service import QUESTION, service

pytestmark = pytest.mark.timeout(400)

ASKED = 40


def test_every_ask_has_one_answer_whoever_dies(tmp_path: Path, demo_file: Path) -> None:
    with (
        service(tmp_path / "redis", demo_file.parent) as running,
        connect(running.redis.url) as client,
    ):
        # Given a job that has ended
        asks = RedisAsks(client)
        running.wait_ready(["decode-1", "tokenize-1", "caption-1"])
        job = running.submit(demo_file)
        running.wait_finished([job])
        # When many ask about it, and the captioner is killed over some of the answers
        for n in range(ASKED):
            asks.put(
                AskRequest(
                    id=f"ask-{n}",
                    job=job,
                    prompt=QUESTION,
                    t0=n % 8 * 2.0,
                    t1=n % 8 * 2.0 + 16.0,
                    deadline=time.time() + 300,
                )
            )
        running.wait(lambda: client.xpending(ASKS, GROUP)["pending"], "that some are taken")
        boot = running.signal("caption-1", signal.SIGKILL)
        taken = client.xpending(ASKS, GROUP)["pending"]
        assert taken > 0
        assert client.xlen(ASKS) >= taken
        running.wait_replaced("caption-1", boot)
        running.wait(lambda: not client.xlen(ASKS), "that all are answered", 200)
        # Then every one has its answer, and none has two
        for n in range(ASKED):
            last = answer(asks, f"ask-{n}")
            assert last.error is None
            assert last.text
            assert (last.t0, last.t1) == (n % 8 * 2.0, n % 8 * 2.0 + 16.0)
        same = {answer(asks, f"ask-{n}").text for n in range(0, ASKED, 8)}
        assert len(same) == 1


def answer(asks: RedisAsks, ask_id: str) -> Reply:
    [last] = [reply for reply in asks.hear(ask_id, after=0) if reply.done]
    return last
