"""Kills and stops every kind of process of a running service, with work in flight.

    python -m tests.bench.faults [CLIP …]

Per fault, three jobs of two tenants are on their way. Afterwards every chunk of every job must have
its events exactly once and in order. Without clips, one is rendered.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.bench.clips import common_folder, some_clips
from tests.service import Service, check_complete, service

JOBS = 3
QUICK = {"WORKERS__SILENT_S": "4"}
SLOWLY: dict[str, Any] = {"source": {"fps": 2, "chunk_s": 0.5, "ahead": 4}}
"""Small chunks, so that a short clip has many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fault and what came of it."""

    victim: str
    fault: str
    in_flight: int
    """Chunks tokenized and not captioned when it struck, of all jobs."""
    chunks: int
    missing: int
    doubled: int
    changed: int
    """Texts that an undisturbed run does not have."""
    longest_wait_s: float
    """Between two events of any job, the fault's own pause among them."""

    def __str__(self) -> str:
        return (
            f"{self.victim:12} {self.fault:8} {self.in_flight:9} {self.chunks:7} "
            f"{self.missing:8} {self.doubled:8} {self.changed:8} {self.longest_wait_s:10.1f} s"
        )


HEAD = "process      fault    in flight  chunks  missing  doubled  changed longest wait"


def undisturbed(running: Service, clips: Sequence[Path]) -> list[list[str | None]]:
    """What is said about each clip when nothing befalls the service."""
    jobs = [running.submit(clip, **SLOWLY) for clip in clips]
    running.wait_finished(jobs, 300)
    return [texts(running, job) for job in jobs]


def texts(running: Service, job: str) -> list[str | None]:
    return [event.text for event in running.events(job)]


def strike(
    running: Service,
    victim: str,
    fault: str,
    clips: Sequence[Path],
    said_undisturbed: Sequence[list[str | None]],
) -> Row:
    """One fault in the middle of three jobs, seen through to their end."""
    jobs = [
        running.submit(clips[n % len(clips)], tenant=f"tenant{n % 2}", **SLOWLY)
        for n in range(JOBS)
    ]
    running.wait(lambda: running.said(jobs[0]) >= 5, "the fifth caption")
    in_flight = sum(running.in_flight(job) for job in jobs)
    struck_at = time.monotonic()
    settle = FAULTS[victim](running, getattr(signal, f"SIG{fault}"))
    longest, since, said = 0.0, struck_at, 0
    while not all(running.status(job).finished for job in jobs):
        now, count = time.monotonic(), sum(running.said(job) for job in jobs)
        if count > said:
            longest, since, said = max(longest, now - since), now, count
        elif now - since > 180:
            raise AssertionError(f"{victim} {fault}: no caption for 180 s after it")
        time.sleep(0.02)
    settle()
    chunks = missing = doubled = changed = 0
    for n, job in enumerate(jobs):
        status, events = running.status(job), running.events(job)
        assert status.state == "ended", status
        last = status.last_chunk or 0
        ids = [event.id for event in events]
        chunks += last
        missing += len({f"{n}-0" for n in range(1, last + 1)} - set(ids))
        doubled += len(ids) - len(set(ids))
        pairs = zip(texts(running, job), said_undisturbed[n % len(clips)], strict=True)
        changed += sum(a != b for a, b in pairs)
        check_complete(events, last)
        running.queue.delete_job(job)
    return Row(
        victim=victim,
        fault=fault,
        in_flight=in_flight,
        chunks=chunks,
        missing=missing,
        doubled=doubled,
        changed=changed,
        longest_wait_s=longest,
    )


Settle = Callable[[], None]
"""Waits until all processes are there again."""


def _worker(name: str) -> Callable[[Service, signal.Signals], Settle]:
    def fault(running: Service, number: signal.Signals) -> Settle:
        boot = running.signal(name, number)
        return lambda: running.wait_replaced(name, boot)

    return fault


def _redis(running: Service, number: signal.Signals) -> Settle:
    os.kill(running.redis.pid, number)
    time.sleep(0.5)
    running.redis.restart()
    return lambda: None


def _keeper(running: Service, number: signal.Signals) -> Settle:
    """With it goes the Ray that it started, and every worker."""
    boot = running.workers()["caption-1"].boot
    running.stop_keeper(number)
    running.start_keeper()
    return lambda: running.wait_replaced("caption-1", boot)


def _ray_head(running: Service, number: signal.Signals) -> Settle:
    """The cluster's head process; the supervisor of `serve` would start the Ray side anew."""
    boot = running.workers()["caption-1"].boot
    assert running.keeper is not None
    head = [
        child
        for child in psutil.Process(running.keeper.pid).children(recursive=True)
        if "gcs_server" in child.name()
    ]
    assert head, "no Ray head process found"
    head[0].send_signal(number)
    running.keeper.wait(90)
    running.start_keeper()
    return lambda: running.wait_replaced("caption-1", boot)


FAULTS: dict[str, Callable[[Service, signal.Signals], Settle]] = {
    "decode": _worker("decode-1"),
    "tokenize": _worker("tokenize-1"),
    "caption": _worker("caption-1"),
    "controller": _worker("controller"),
    "redis": _redis,
    "ray side": _keeper,
    "ray head": _ray_head,
}
SHORT = [
    *((victim, "KILL") for victim in ("decode", "tokenize", "controller", "ray head")),
    *((victim, "STOP") for victim in ("decode", "caption")),
]
"""What the tests do of it, beside random_faults.py."""
PLAN = [
    *((victim, "KILL") for victim in FAULTS),
    *((victim, "STOP") for victim in ("decode", "tokenize", "caption", "controller")),
]


def main(clips: Sequence[Path]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clips = some_clips(clips, Path(folder))
        with service(Path(folder, "redis"), common_folder(clips), **QUICK) as running:
            running.wait_ready(["decode-1", "tokenize-1", "caption-1"])
            said = undisturbed(running, clips)
            print(HEAD)  # noqa: T201
            for victim, fault in PLAN:
                print(strike(running, victim, fault, clips, said), flush=True)  # noqa: T201


if __name__ == "__main__":
    main([Path(name).absolute() for name in sys.argv[1:]])
