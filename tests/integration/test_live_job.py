"""A live job on a real RTSP server, while whatever carries it is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

import pytest

from streamer.events import Event
from streamer.wire import ChunkHead, decode_head
from streamer.workers import SourceState
from tests.bench.faults import QUICK
from tests.servers.rtsp import RtspServer, moving_picture, rtsp_server
from tests.service import Service, service

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RtspServer]:
    clip = moving_picture(tmp_path_factory.mktemp("clips") / "cam.mp4")
    with rtsp_server({"cam": clip}) as server:
        yield server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("redis")
    networks = {"FETCH__ALLOW_NETWORKS": '["127.0.0.0/8"]'}
    with service(folder, folder, **QUICK, **networks) as running:
        running.wait_ready(["decode-1", "tokenize-1", "caption-1", "controller"])
        yield running


def source_of(running: Service, job: str) -> SourceState | None:
    report = running.workers().get("decode-1")
    progress = report.jobs.get(job) if report else None
    return progress.source if progress else None


def pid_of(running: Service, job: str) -> int:
    """Of the process that decodes its source; 0 when there is none."""
    state = source_of(running, job)
    return state.pid if state is not None and state.connected else 0


def further(running: Service, job: str, chunks: int = 6) -> None:
    """Waits for so many more captions."""
    before = running.said(job)
    running.wait(lambda: running.said(job) >= before + chunks, f"{chunks} captions more", 120)


def check(events: Sequence[Event]) -> list[Event]:
    """Every chunk's events once, in order, with nothing between them; the first one of each."""
    firsts = [next(of_chunk) for _, of_chunk in groupby(events, lambda event: event.chunk)]
    assert [event.chunk for event in firsts] == list(range(1, len(firsts) + 1))
    ids = [event.id for event in events]
    assert len(set(ids)) == len(ids)
    assert all(a.t1 == b.t0 for a, b in pairwise(firsts))
    return firsts


def heads_of(running: Service, job: str) -> list[ChunkHead]:
    entries = running.queue.read(job, "tokens", after=0, count=10_000)
    return [decode_head(entry.fields) for entry in entries]


def check_walls(heads: Sequence[ChunkHead]) -> None:
    """Both clocks go on alike, but for what the network and the processes take."""
    assert all(head.live for head in heads)
    assert all(a.t1 == b.t0 and a.wall0 <= b.wall0 for a, b in pairwise(heads))
    apart = [head.wall1 - heads[0].wall0 - head.t1 for head in heads]
    assert max(map(abs, apart)) < 3.0


def test_a_live_job_outlives_all_that_carries_it(running: Service, camera: RtspServer) -> None:
    job = running.submit(camera.url("cam"), source={"chunk_s": 0.5})
    running.wait(lambda: running.said(job) >= 6, "the sixth caption", 120)
    before = source_of(running, job)
    assert before is not None
    assert before.connected
    assert before.rss_bytes > 0
    assert (running.queue.job(job) or {})["live"] == "1"

    # When the process that decodes is killed, then there is another, and captions go on
    pid = pid_of(running, job)
    os.kill(pid, signal.SIGKILL)
    running.wait(lambda: pid_of(running, job) not in (0, pid), "another decoding process", 60)
    further(running, job)

    # When the workers are, one after the other
    for name in ("decode-1", "tokenize-1", "caption-1"):
        boot = running.signal(name, signal.SIGKILL)
        running.wait_replaced(name, boot)
        further(running, job)

    # When the camera is away for a while
    camera.stop()
    running.wait(lambda: pid_of(running, job) == 0, "that it is noticed", 60)
    camera.start()
    running.wait(lambda: pid_of(running, job) > 0, "that it is found again", 60)
    further(running, job)

    # When an I-chunk is asked for
    running.queue.update_job(job, {"keyframes": "1"})
    running.wait(
        lambda: any(head.reason == "asked" for head in heads_of(running, job)[-20:]), "that"
    )

    # Then nothing is missing but what it says, and nothing is there twice
    assert running.status(job).state == "running"
    check_walls(heads_of(running, job))

    firsts = check(running.events(job))
    gaps = [event for event in firsts if event.event in ("gap", "skipped")]
    print([(e.event, e.t0, e.t1, e.reason) for e in gaps])  # noqa: T201  # shown with -rP
    assert gaps
    assert all(event.reason for event in gaps)
    # What the outages took is gone, and nothing else: most chunks have their caption
    assert sum(event.event not in ("gap", "skipped") for event in firsts) >= 5 * 6


def test_a_live_source_that_may_not_be_read_fails_its_job(running: Service) -> None:
    job = running.submit("rtsp://10.1.2.3/cam")
    running.wait_finished([job], 60)
    status = running.status(job)
    assert status.state == "failed"
    assert status.error
    assert "fetch.allow_networks" in status.error
