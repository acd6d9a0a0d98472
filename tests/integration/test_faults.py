"""Workers die in the middle of a job; every chunk still gets its event exactly once."""

from __future__ import annotations

import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import ray

from streamer.config import load
from streamer.events import Event, decode_chunk_events
from streamer.local import LocalRun

pytestmark = pytest.mark.timeout(400)


def families(pid: int) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


def test_killed_workers_lose_nothing_and_repeat_nothing(demo_file: Path) -> None:
    # Given a job that goes slowly enough to be hit on its way, and what it says undisturbed
    settings = load(None, {"queue": {"ahead": 3}})
    before = families(os.getpid())
    kills: list[tuple[str, int]] = []
    events: list[Event] = []
    with LocalRun(str(demo_file), settings, told=lambda _: None) as run:
        plan = {3: "tokenize", 6: "caption", 9: "decode", 11: "caption"}
        # When workers are killed with chunks in flight
        for event in run.events():
            events.append(event)
            victim = plan.pop(event.chunk, None)
            if victim:
                in_flight = run.queue.last(run.job.id, "tokens") - event.chunk
                os.kill(run.workers.pid(victim), signal.SIGKILL)
                kills.append((victim, in_flight))
        status = run.status()
        stored = run.queue.read(run.job.id, "events", after=0, count=1000)
        undisturbed = texts_of_a_second_run(run)
    # Then every chunk has one event, in order, and the texts are those of an undisturbed run
    assert not plan
    assert status.state == "ended"
    assert status.error is None
    assert [event.id for event in events] == [f"{n}-0" for n in range(1, 18)]
    assert [entry.number for entry in stored] == list(range(1, 18))
    assert [e for entry in stored for e in decode_chunk_events(entry)] == events
    assert [event.text for event in events] == undisturbed
    assert all(a.t1 == b.t0 for a, b in pairwise(events))
    print(f"killed (worker, chunks in flight): {kills}")  # noqa: T201  # shown with -rP
    # And no process is left
    deadline = time.monotonic() + 20
    while (left := families(os.getpid()) - before) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def texts_of_a_second_run(run: LocalRun) -> list[str | None]:
    """The same job once more on the same servers and the same, living, actors."""
    from dataclasses import replace

    job = replace(run.job, id=run.job.id + "-again")
    run.queue.create_job(job.id, job.record())
    actors = run.workers.actors
    again = [
        actors["tokenize"].run.remote(job, actors["decode"]),
        actors["caption"].run.remote(job),
    ]
    said = 0
    texts: list[str | None] = []
    deadline = time.monotonic() + 120
    while len(texts) < 17 and time.monotonic() < deadline:
        for entry in run.queue.read(job.id, "events", after=said, block_s=1):
            said = entry.number
            texts += [event.text for event in decode_chunk_events(entry)]
    ray.get(again, timeout=60)
    return texts
