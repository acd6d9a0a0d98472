"""Hours of live video in minutes of patience: does anything creep?

    python -m tests.bench.soak --minutes 30 [--cuts] CLIP …

Four live jobs, two of RTSP and two of HLS sources that loop the clips, on a whole service: Redis,
Ray and its workers, an API with a subscriber of every job. Measured are the latency of every chunk,
the memory of every process, how many tokens a session holds, and that no chunk is missing. After a
warm-up, slopes are given per 1000 chunks with 95 % intervals (tests/bench/slopes.py).
With --cuts the RTSP server goes away twice for 20 s, and once changes its pictures' size.
Writes tests/bench/results/soak.csv (thinned), soak_slopes.csv and docs/soak.svg.
"""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from streamer.adapters.queue import Entry
from streamer.config import KeyframeSettings
from streamer.errors import QueueError, WireError
from streamer.events import Event
from streamer.groups import head_of
from tests.bench import results
from tests.bench.account import WITHOUT_PICTURES
from tests.bench.clips import some_clips
from tests.bench.cuts import Told, take_away, told_of, unix
from tests.bench.follower import Follower
from tests.bench.memory import RAY, Processes
from tests.bench.slopes import Slope, binned, slope, trimmed_mean
from tests.integration.cutting_proxy import CuttingProxy, Silence
from tests.servers.hls import HlsServer
from tests.servers.rtsp import RtspServer, rtsp_server
from tests.service import Service, service

FPS = 2.0
SAMPLE_S = 5.0
LOOK_FOR_RAYS_S = 120.0
BIN_S = 30.0
"""Of which means count, and which the file has."""
ALL = "all"
WARM_UP_S = 180.0
LATENCY_LIMIT = 0.01
MEMORY_LIMIT_MB = 1.0
AWAY_S = 20.0
SETTINGS = {
    "FETCH__ALLOW_NETWORKS": '["127.0.0.0/8"]',
    # so that what Redis keeps is full before the warm-up is over
    "RETENTION__TOKENS_S": "60",
    "RETENTION__EVENTS_S": "120",
    "LIVE__RETRY_MAX_S": "0.5",
    "LIVE__RETRY_S": "0.25",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One value of one series."""

    at_s: float
    """Since the first chunk of the last job."""
    series: str
    """latency | end to end | memory | group | redis"""
    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A slope as the file has it."""

    series: str
    name: str
    unit: str
    level: float
    slope: float
    """Per 1000 chunks of a job."""
    low: float
    high: float
    limit: float
    within: bool
    minutes: float


@dataclass(slots=True, kw_only=True)
class Record:
    """All that is measured."""

    places: dict[str, str] = field(default_factory=dict)
    """job → e.g. `rtsp 1`."""
    points: list[Point] = field(default_factory=list)
    events: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    """Gaps, skips, errors and changes of level, by place."""
    newest: dict[str, float] = field(default_factory=dict)
    """Of every place, the end of its last chunk with pictures, in Unix seconds."""
    began: float | None = None

    def heard(self, job: str, events: list[Event], at: float) -> None:
        """What the follower calls."""
        place = self.places.get(job)
        if place is None:
            return
        told = events[-1]
        self.events[place] += [e for e in events if e.event not in ("caption", "unchanged", "seen")]
        if told.event in WITHOUT_PICTURES or told.wall1 is None:
            return
        end = unix(told.wall1)
        self.newest[place] = end
        latencies = [e.chunk_latency_ms for e in events if e.chunk_latency_ms is not None]
        if latencies:
            self.add("latency", place, max(latencies))
        # a chunk lasts until its next picture would come: its own last one is that much older
        self.add("end to end", place, 1e3 * (at - end + 1 / FPS))

    def add(self, series: str, name: str, value: float) -> None:
        """From the moment on that all jobs are on their way."""
        if self.began is not None:
            at_s = time.monotonic() - self.began
            self.points.append(Point(at_s=at_s, series=series, name=name, value=value))

    def names(self, series: str) -> list[str]:
        return list(dict.fromkeys(p.name for p in self.points if p.series == series))

    def of(self, series: str, name: str) -> tuple[Any, Any]:
        """(seconds, values)."""
        own = [p for p in self.points if p.series == series and p.name == name]
        return np.array([p.at_s for p in own]), np.array([p.value for p in own])

    def together(self, series: str) -> tuple[Any, Any]:
        """All places' values of a series, each place at the mean level of all."""
        own = {name: self.of(series, name) for name in self.names(series)}
        levels = {name: float(np.median(y)) for name, (_, y) in own.items()}
        level = sum(levels.values()) / len(levels)
        x = np.concatenate([x for x, _ in own.values()])
        y = np.concatenate([y * level / levels[name] for name, (_, y) in own.items()])
        return x, y

    def rows(self, *, chunk_s: float, warm_up_s: float, minutes: float) -> Iterator[Row]:
        """Every slope of what came after the warm-up."""
        span_s = 1000 * chunk_s
        for series, unit in (("latency", "ms"), ("end to end", "ms"), ("memory", "MB")):
            names = self.names(series)
            for name in names if unit == "MB" else [*names, ALL]:
                x, y = self.of(series, name) if name != ALL else self.together(series)
                late = x >= warm_up_s
                x, y = x[late], y[late]
                if len(x) < 2 or x[-1] - x[0] < 0.5 * (60 * minutes - warm_up_s):
                    continue  # a process that was not there most of the time
                try:
                    found = slope(x, y, width=min(BIN_S, (x[-1] - x[0]) / 12)).over(span_s)
                except ValueError:
                    continue
                limit = MEMORY_LIMIT_MB if unit == "MB" else LATENCY_LIMIT * abs(found.level)
                yield _row(series, name, unit, found, limit, minutes)

    def thinned(self) -> Iterator[Point]:
        """A mean for every bin of every series; of what sessions hold, the most."""
        for series in ("latency", "end to end", "memory", "group", "redis"):
            for name in self.names(series):
                of_bin = np.max if series == "group" else trimmed_mean
                middles, means = binned(*self.of(series, name), BIN_S, of_bin)
                for at_s, value in zip(middles, means, strict=True):
                    yield Point(at_s=at_s, series=series, name=name, value=value)


def _row(series: str, name: str, unit: str, found: Slope, limit: float, minutes: float) -> Row:
    return Row(
        series=series,
        name=name,
        unit=unit,
        level=found.level,
        slope=found.each,
        low=found.low,
        high=found.high,
        limit=limit,
        within=found.within(limit),
        minutes=minutes,
    )


class Groups:
    """How many tokens each job's session holds, read off the heads of its token stream.

    A session is a group: at an I-chunk it begins anew.
    """

    def __init__(self, running: Service, budget: float) -> None:
        """budget: most tokens of a group, in full tubelets."""
        self.running = running
        self.budget = budget
        self.held: dict[str, int] = {}
        self.bound: dict[str, float] = {}
        self.most: dict[str, int] = defaultdict(int)
        self.most_share = 0.0
        """The largest share of its bound that a session had."""
        self.chunks = 0
        self._after: dict[str, int] = {}

    def look(self, job: str) -> int | None:
        """Reads on; the tokens held now, None before the first I-chunk."""
        after = self._after.get(job)
        if after is None:
            after = max(0, self.running.queue.last(job, "tokens") - 1)
        for entry in self.running.queue.read(job, "tokens", after=after, count=500):
            self._take(job, entry)
            after = entry.number
        self._after[job] = after
        return self.held.get(job)

    def _take(self, job: str, entry: Entry) -> None:
        try:
            head = head_of(entry, job)
        except WireError:
            return
        if head.kind == "I":
            self.held[job] = 0
        if not head.has_body or job not in self.held:
            return
        self.chunks += 1
        self.held[job] += head.tokens
        tubelets = max(1, len(head.tubelet_s))
        self.bound[job] = self.budget * head.dense / tubelets
        self.most[job] = max(self.most[job], self.held[job])
        self.most_share = max(self.most_share, self.held[job] / self.bound[job])


class Subscriber:
    """Reads a job's events over HTTP and keeps nothing; comes back when the connection is lost."""

    def __init__(self, port: int, job: str) -> None:
        self.port = port
        self.job = job
        self.received = 0
        self.connections = 0
        self.ending = threading.Event()
        threading.Thread(target=self._read, name=f"subscriber {job}", daemon=True).start()

    def _read(self) -> None:
        while not self.ending.wait(1.0):
            http_side = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            with suppress(OSError, http.client.HTTPException):
                http_side.request("GET", f"/v1/jobs/{self.job}/events")
                answer = http_side.getresponse()
                self.connections += 1
                while not self.ending.is_set() and (line := answer.readline()):
                    self.received += line.startswith(b"id:")
            http_side.close()


@contextmanager
def api(running: Service) -> Iterator[tuple[int, int]]:
    """An API of the service as a process of its own: its pid and port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamer", "api"],
        env={
            **os.environ,
            **running.environment,
            "STREAMER__QUEUE__URL": running.redis.url,
            "STREAMER__API__PORT": str(port),
        },
        stdout=2,
    )
    try:
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The servers and what they have."""

    rtsp: RtspServer
    urls: dict[str, str]
    """place → URL."""
    proxies: dict[str, CuttingProxy]
    """place → what stands before it, of RTSP sources."""


@contextmanager
def sources(clips: Sequence[Path]) -> Iterator[Live]:
    """Two cameras of each kind."""
    four = [clips[n % len(clips)] for n in range(4)]
    with (
        tempfile.TemporaryDirectory() as folder,
        rtsp_server({"cam1": four[0], "cam2": four[1]}) as rtsp,
        HlsServer(Path(folder), {"cam1": four[2], "cam2": four[3]}) as hls,
        CuttingProxy(rtsp.url("cam1")) as first,
        CuttingProxy(rtsp.url("cam2")) as second,
    ):
        proxies = {"rtsp 1": first, "rtsp 2": second}
        urls = {f"rtsp {n}": f"rtsp://127.0.0.1:{proxies[f'rtsp {n}'].port}/cam{n}" for n in (1, 2)}
        urls |= {f"hls {n}": hls.url(f"cam{n}") for n in (1, 2)}
        yield Live(rtsp=rtsp, urls=urls, proxies=proxies)


def soak(
    running: Service,
    live: Live,
    *,
    minutes: float,
    chunk_s: float,
    cuts: bool,
    api_at: tuple[int, int],
    say: Callable[[str], None],
    keeps_up: bool = True,
) -> tuple[Record, bool]:
    """All of it on a service that is ready; whether no chunk is missing and all is bounded.

    keeps_up: whether leaving out pictures in the open, because the machine is busy, is a failure.
    """
    record = Record()
    budget = KeyframeSettings().budget
    groups = Groups(running, budget)
    processes = Processes(running, {"api": api_at[0]})
    with Follower(running.queue, record.heard) as follower:
        jobs = {}
        for place, url in live.urls.items():
            source = {"fps": FPS, "chunk_s": chunk_s, "live": True}
            job = running.submit(url, tenant=place.partition(" ")[0], source=source)
            jobs[place], record.places[job] = job, place
            follower.add(job)
        subscribers = [Subscriber(api_at[1], job) for job in jobs.values()]
        running.wait(
            lambda: all(follower.jobs[job].pictured for job in jobs.values()),
            "the first caption of every job",
        )
        record.began = time.monotonic()
        before = {name: report.boot for name, report in running.workers().items()}
        first = {job: follower.jobs[job].account.chunks for job in jobs.values()}
        absences: list[Silence] = []
        cutter = threading.Thread(
            target=_cut, args=(live.rtsp, 60 * minutes, absences, say), daemon=True
        )
        if cuts:
            cutter.start()
        _sample(running, record, groups, processes, jobs, 60 * minutes, say)
        if cuts:
            cutter.join()
        whole = True
        say(f"\n{'job':10}{'chunks':>8}{'missing':>9}{'doubled':>9}{'torn':>6}  told besides")
        for place, job in jobs.items():
            account = follower.jobs[job].account
            besides = {k: n for k, n in account.kinds.items() if k not in ("caption", "unchanged")}
            say(
                f"{place:10}{account.chunks - first[job]:8}{account.missing:9}"
                f"{account.doubled:9}{account.torn:6}  {besides or 'nothing'}"
            )
            for sentence in account.faults:
                say(f"    {sentence}")
            lost = account.kinds["gap"] + account.kinds["skipped"]
            whole &= account.whole and (cuts or not keeps_up or not lost)
        for place, events in record.events.items():
            for event in events[:20]:
                say(
                    f"    {place} {event.id} {event.event} {event.t0:g} to {event.t1:g} s: "
                    f"{event.reason}"
                )
        told: list[Told] = []
        for place in [place for place in jobs if place.startswith("rtsp") and cuts]:
            told += told_of(absences, live.proxies[place].silences, record.events[place])
        for one in told:
            say(str(one))
        replaced = [n for n, r in running.workers().items() if r.boot != before.get(n)]
        say(f"workers replaced: {', '.join(replaced) or 'none'}")
        received = sum(one.received for one in subscribers)
        connections = sum(one.connections for one in subscribers)
        say(f"{received} events over HTTP in {connections} connections")
        bounds = ", ".join(
            f"{record.places[job]} {groups.most[job]} of {groups.bound[job]:.0f}"
            for job in groups.most
        )
        say(f"most tokens of a session, of its bound ({groups.chunks} chunks): {bounds}")
        whole &= groups.most_share <= 1.0 and not replaced
        whole &= len(told) == 2 * len(absences) and all(one.right for one in told)
        for one_reader in subscribers:
            one_reader.ending.set()
        for job in jobs.values():
            running.queue.delete_job(job)
    return record, whole


def _sample(
    running: Service,
    record: Record,
    groups: Groups,
    processes: Processes,
    jobs: dict[str, str],
    seconds: float,
    say: Callable[[str], None],
) -> None:
    assert record.began is not None
    redis: Any = running.client
    sampled_at = looked_at = said_at = -1e9
    while (now := time.monotonic() - record.began) < seconds:
        with suppress(QueueError):
            if now - looked_at >= LOOK_FOR_RAYS_S:
                looked_at = now
                processes.look_for_rays()
            if now - sampled_at >= SAMPLE_S:
                sampled_at = now
                memory = processes.memory(running.workers(), record.places)
                for name, mb in memory.items():
                    record.add("memory", name, mb)
                for place, job in jobs.items():
                    held = groups.look(job)
                    if held is not None:
                        record.add("group", place, held)
                record.add("redis", "used", redis.info("memory")["used_memory"] / 1e6)
                if now - said_at >= 60:
                    said_at = now
                    workers = sum(mb for name, mb in memory.items() if not name.startswith(RAY))
                    late = {p: f"{time.time() - end:.1f}" for p, end in record.newest.items()}
                    say(f"{now:6.0f} s: {workers:.0f} MB, newest captions {late} s old")
        time.sleep(0.5)


def _cut(
    camera: RtspServer, seconds: float, absences: list[Silence], say: Callable[[str], None]
) -> None:
    """Twice away, and another size between."""
    time.sleep(0.3 * seconds)
    absences.append(take_away(camera, AWAY_S))
    time.sleep(0.2 * seconds)
    camera.resize("cam1", 640, 360)
    say("the RTSP server sends 640 × 360 now")
    time.sleep(0.15 * seconds)
    absences.append(take_away(camera, AWAY_S))


def table(rows: Sequence[Row], warm_up_s: float) -> Iterator[str]:
    """For people."""
    yield f"\nper 1000 chunks of a job, 95 % intervals; the first {warm_up_s:g} s are left out"
    yield f"{'':34}{'level':>12}{'slope':>10}{'interval':>22}{'limit':>9}"
    for row in rows:
        interval = f"{row.low:+.2f} to {row.high:+.2f}"
        limit = f"± {row.limit:.1f}"
        verdict = "" if row.within else "  beyond"
        if row.name.startswith(RAY):
            verdict = "  (not ours)" if not row.within else ""
        yield (
            f"{row.series + ', ' + row.name:34}{row.level:9.1f} {row.unit}{row.slope:+10.2f}"
            f"{interval:>22}{limit:>9}{verdict}"
        )


def main() -> None:
    from streamer.config import LogSettings
    from streamer.log import configure
    from tests import soak_picture

    configure(LogSettings())
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--chunk-s", type=float, default=0.5)
    parser.add_argument("--warm-up-s", type=float, help=f"{WARM_UP_S:g}, or a fifth of all")
    parser.add_argument("--cuts", action="store_true")
    parser.add_argument("--dry", action="store_true", help="writes no files")
    given = parser.parse_args()
    warm_up_s = given.warm_up_s or min(WARM_UP_S, 60 * given.minutes / 5)

    def say(line: str) -> None:
        print(line, flush=True)  # noqa: T201

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        clips = [clip.absolute() for clip in some_clips(given.clips, folder)]
        live = stack.enter_context(sources(clips))
        running = stack.enter_context(service(folder / "redis", folder, **SETTINGS))
        api_at = stack.enter_context(api(running))
        running.wait_ready(["decode-1", "tokenize-1", "caption-1"])
        record, whole = soak(
            running,
            live,
            minutes=given.minutes,
            chunk_s=given.chunk_s,
            cuts=given.cuts,
            api_at=api_at,
            say=say,
        )
    found = record.rows(chunk_s=given.chunk_s, warm_up_s=warm_up_s, minutes=given.minutes)
    rows = list(found)
    for line in table(rows, warm_up_s):
        say(line)
    if not given.dry:
        results.merge("soak_slopes", rows, key=("series", "name"))
        (results.FOLDER / "soak.csv").unlink(missing_ok=True)
        results.merge("soak", list(record.thinned()), key=("series", "name"))
        soak_picture.draw(results.read("soak"), warm_up_s)
    if not whole:
        sys.exit("something is missing or not bounded")


if __name__ == "__main__":
    main()
