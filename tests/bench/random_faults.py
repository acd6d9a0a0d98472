"""Faults of every kind at random moments, on live and file jobs, and what came of every chunk.

    python -m tests.bench.random_faults [--faults 40] [--seed 0] [CLIP …]

Five jobs are on their way at a time: three of files, each followed by another when it ends, one of
an RTSP and one of an HLS source. Redis and the Ray side have a supervisor, as under `serve`;
nothing else is put right by hand. A fault may strike before the last one is over. Afterwards every
job must have the events of every chunk exactly once, in order, their spans without holes, and the
texts of the files those of an undisturbed run. Without clips, one is rendered.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from streamer.config import LogSettings
from streamer.log import configure
from streamer.workers import CONTROLLER
from tests.bench.account import Account
from tests.bench.clips import some_clips
from tests.bench.follower import Followed, Follower
from tests.bench.kept_service import kept_service, resize_disk, small_disk
from tests.integration.cutting_proxy import CuttingProxy
from tests.servers.hls import HlsServer
from tests.servers.rtsp import rtsp_server
from tests.service import Service

FILES = 3
"""File jobs at a time."""
DISK_MB = 1024
SETTINGS = {
    "WORKERS__SILENT_S": "4",
    "WORKERS__STARTING_S": "90",
    # what strikes here is no job's fault, and comes faster than a job can clear itself
    "WORKERS__STRIKES": "1000",
    "LIVE__STALL_S": "4",
    "LIVE__RETRY_MAX_S": "2",
    "FETCH__ALLOW_NETWORKS": '["127.0.0.0/8"]',
}
SLOWLY: dict[str, Any] = {"source": {"fps": 2, "chunk_s": 0.5, "ahead": 4}}
LIVE: dict[str, Any] = {"source": {"fps": 2, "chunk_s": 0.5, "live": True}}
DECODED = 2
"""Chunks of a job that may be decoded and not tokenized."""
OVERLAP = 0.35
"""Share of faults that are followed by the next one before they are over."""
RECOVERED_S = 240.0
"""Longest wait for the first new chunk of every job."""


class Server(Protocol):
    """Of a live source."""

    def stop(self) -> None: ...

    def start(self) -> None: ...


@dataclass(slots=True, kw_only=True)
class Scene:
    """What faults can strike."""

    running: Service
    follower: Follower
    clips: Sequence[Path]
    random: random.Random
    files: int = FILES
    overlap: float = OVERLAP
    rtsp: Server | None = None
    hls: Server | None = None
    proxy: CuttingProxy | None = None
    """Before the RTSP server."""
    disk: Path | None = None
    """The small one that Redis's folder is."""
    jobs: dict[str, str] = field(default_factory=dict)
    """Of every place, the job that it has now."""
    done: dict[str, list[tuple[str, Path | None]]] = field(default_factory=dict)
    """All jobs of every place, with their clips."""
    replaced: dict[str, str] = field(default_factory=dict)
    """Workers that were struck, with the boot that was."""
    order: Iterator[Path] = field(init=False)
    _undoing: list[threading.Timer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.order = itertools.cycle(self.clips)

    def put(self, place: str, url: str | Path, clip: Path | None = None, **settings: Any) -> None:
        """A new job in a place."""
        job = self.running.submit(url, tenant=place.partition(" ")[0], **settings)
        self.jobs[place] = job
        self.done.setdefault(place, []).append((job, clip))
        self.follower.add(job)

    def refill(self) -> None:
        """Another file where one has ended."""
        for n in range(1, self.files + 1):
            place = f"file {n}"
            job = self.jobs.get(place)
            if job is None or self.running.status(job).finished:
                clip = next(self.order)
                self.put(place, clip, clip, **SLOWLY)

    def well(self) -> bool:
        """Whether those that were struck have a successor that is ready."""
        reports = self.running.workers() if self.replaced else {}
        for name, boot in list(self.replaced.items()):
            report = reports.get(name)
            if report and report.boot != boot and report.state == "ready":
                del self.replaced[name]
        return not self.replaced

    def later(self, delay_s: float, undo: Callable[[], object]) -> None:
        """Puts something right after a while."""
        timer = threading.Timer(delay_s, undo)
        timer.daemon = True
        timer.start()
        self._undoing.append(timer)

    def settle(self) -> None:
        """Waits for all that is to be put right."""
        for timer in self._undoing:
            timer.join()

    def followed(self, job: str) -> Followed:
        return self.follower.jobs[job]


Fault = Callable[[Scene], str | None]
"""Strikes; says what in particular, or None where there is nothing to strike now."""


def _worker(name: str, number: signal.Signals) -> Fault:
    def strike(scene: Scene) -> str | None:
        report = scene.running.workers().get(name)
        if report is None or report.state != "ready":
            return None
        try:
            os.kill(report.pid, number)
        except ProcessLookupError:
            return None
        scene.replaced[name] = report.boot
        return f"pid {report.pid}"

    return strike


def _ray(pid_of: Callable[[Scene], int | None]) -> Fault:
    """With it go all workers."""
    kill = _send(pid_of, signal.SIGKILL)

    def strike(scene: Scene) -> str | None:
        reports = scene.running.workers()
        said = kill(scene)
        if said is not None:
            scene.replaced |= {name: report.boot for name, report in reports.items()}
        return said

    return strike


def _keeper(scene: Scene) -> int | None:
    return scene.running.keeper.pid if scene.running.keeper else None


def _live_child(scene: Scene) -> int | None:
    """A process that decodes a live source."""
    found = [
        progress.source.pid
        for report in scene.running.workers().values()
        for progress in report.jobs.values()
        if progress.source and progress.source.pid
    ]
    return scene.random.choice(sorted(found)) if found else None


def _head(scene: Scene) -> int | None:
    """Ray's head process."""
    keeper = scene.running.keeper
    with suppress(psutil.Error):
        for child in psutil.Process(keeper.pid).children(recursive=True) if keeper else []:
            if "gcs_server" in child.name():
                return child.pid
    return None


def _send(pid_of: Callable[[Scene], int | None], number: signal.Signals) -> Fault:
    def strike(scene: Scene) -> str | None:
        pid = pid_of(scene)
        if pid is None:
            return None
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return None
        return f"pid {pid}"

    return strike


def _redis_pause(scene: Scene) -> str:
    pid, pause_s = scene.running.redis.pid, scene.random.uniform(2, 6)

    def go_on() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    os.kill(pid, signal.SIGSTOP)
    scene.later(pause_s, go_on)
    return f"for {pause_s:.1f} s"


def _redis_cut(scene: Scene) -> str:
    client: Any = scene.running.client
    return f"{client.client_kill_filter(_type='normal')} connections"


def _redis_full(scene: Scene) -> str | None:
    folder = scene.disk
    if folder is None:
        return None
    full_s = scene.random.uniform(3, 6)
    used_kb = -(-shutil.disk_usage(folder).used // 1024)
    while not resize_disk(folder, used_kb):  # it grew meanwhile
        used_kb += 64
    with suppress(OSError), Path(folder, "ballast").open("wb") as ballast:
        while True:
            ballast.write(bytes(4096))
            ballast.flush()

    def free() -> None:
        Path(folder, "ballast").unlink(missing_ok=True)
        resize_disk(folder, DISK_MB * 1024)

    scene.later(full_s, free)
    return f"for {full_s:.1f} s"


def _away(server_of: Callable[[Scene], Server | None]) -> Fault:
    def strike(scene: Scene) -> str | None:
        server = server_of(scene)
        if server is None:
            return None
        away_s = scene.random.uniform(1, 8)
        server.stop()
        scene.later(away_s, server.start)
        return f"for {away_s:.1f} s"

    return strike


def _source_cut(scene: Scene) -> str | None:
    return f"{scene.proxy.cut()} connections" if scene.proxy else None


def _source_held(scene: Scene) -> str | None:
    if scene.proxy is None:
        return None
    held_s = scene.random.uniform(2, 8)
    scene.proxy.hold()
    scene.later(held_s, scene.proxy.flow)
    return f"for {held_s:.1f} s"


FAULTS: dict[str, Fault] = {
    "decode KILL": _worker("decode-1", signal.SIGKILL),
    "decode STOP": _worker("decode-1", signal.SIGSTOP),
    "tokenize KILL": _worker("tokenize-1", signal.SIGKILL),
    "tokenize STOP": _worker("tokenize-1", signal.SIGSTOP),
    "caption KILL": _worker("caption-1", signal.SIGKILL),
    "caption STOP": _worker("caption-1", signal.SIGSTOP),
    "controller KILL": _worker(CONTROLLER, signal.SIGKILL),
    "controller STOP": _worker(CONTROLLER, signal.SIGSTOP),
    "live child KILL": _send(_live_child, signal.SIGKILL),
    "live child STOP": _send(_live_child, signal.SIGSTOP),
    "redis KILL": _send(lambda scene: scene.running.redis.pid, signal.SIGKILL),
    "redis STOP": _redis_pause,
    "redis cut": _redis_cut,
    "redis disk full": _redis_full,
    "rtsp cut": _source_cut,
    "rtsp held": _source_held,
    "rtsp away": _away(lambda scene: scene.rtsp),
    "hls away": _away(lambda scene: scene.hls),
    "keeper KILL": _ray(_keeper),
    "ray head KILL": _ray(_head),
}
RARE = {"keeper KILL": 0.2, "ray head KILL": 0.2}
"""They take all of Ray along."""


def drawn(chance: random.Random, count: int, kinds: Sequence[str]) -> list[str]:
    """Every kind once as far as `count` goes, the rest by chance, in any order."""
    once = chance.sample(list(kinds), min(count, len(kinds)))
    weights = [RARE.get(kind, 1.0) for kind in kinds]
    more = chance.choices(list(kinds), weights, k=count - len(once))
    plan = once + more
    chance.shuffle(plan)
    return plan


@dataclass(slots=True, kw_only=True)
class Struck:
    """One fault, and when every job went on."""

    kind: str
    said: str
    at: float
    """Since the first one could strike."""
    monotonic: float
    in_flight: dict[str, int]
    """Per place: chunks that were tokenized and not captioned."""
    behind: dict[str, tuple[str, int]]
    """Per place: its job, and the last chunk that was tokenized then."""
    recovered_s: float | None = None

    def look(self, scene: Scene, now: float) -> bool:
        """Whether all goes on: who was struck is there again, and every job tells of new pictures.

        New are those that were not decoded yet when it struck.
        """
        if self.recovered_s is not None:
            return True
        if not scene.well():
            return False
        for job, last in self.behind.values():
            told = scene.followed(job).pictured
            if (
                not (told and told[-1][0] > last + DECODED)
                and not scene.running.status(job).finished
            ):
                return False
        self.recovered_s = now - self.monotonic
        return True

    def __str__(self) -> str:
        flight = " ".join(f"{place}:{count}" for place, count in self.in_flight.items())
        took = "not yet" if self.recovered_s is None else f"{self.recovered_s:6.1f} s"
        return f"{self.at:7.1f} s  {self.kind:16} {self.said:16} {took:>9}  {flight}"


HEAD = "     time  fault            what             recovery  chunks in flight"


def strike(scene: Scene, kind: str, started: float) -> Struck | None:
    """One fault, with what was in flight a moment before."""
    behind, in_flight = {}, {}
    for place, job in scene.jobs.items():
        tokens = scene.running.queue.last(job, "tokens")
        behind[place] = (job, tokens)
        in_flight[place] = max(0, tokens - scene.running.queue.last(job, "events"))
    at = time.monotonic()
    said = FAULTS[kind](scene)
    if said is None:
        return None
    return Struck(
        kind=kind,
        said=said,
        at=at - started,
        monotonic=at,
        in_flight=in_flight,
        behind=behind,
    )


def strike_all(scene: Scene, plan: Sequence[str], say: Callable[[str], None]) -> list[Struck]:
    """Every fault of the plan, and every job on its way again."""
    started = time.monotonic()
    struck: list[Struck] = []
    told = 0
    for kind in plan:
        _between(scene, scene.random.uniform(0.5, 3.0))
        for _ in range(240):  # what it strikes may be away because of the last one
            one = strike(scene, kind, started)
            if one is not None:
                struck.append(one)
                break
            _between(scene, 0.5)
        else:
            raise AssertionError(f"{kind}: there was nothing to strike for 120 s")
        if scene.random.random() >= scene.overlap:
            _recover(scene, struck)
        while told < len(struck) and struck[told].look(scene, time.monotonic()):
            say(str(struck[told]))
            told += 1
    _recover(scene, struck)
    for one in struck[told:]:
        say(str(one))
    return struck


def _between(scene: Scene, pause_s: float) -> None:
    """Time goes by, and ended files are followed by others."""
    until = time.monotonic() + pause_s
    while True:
        scene.refill()
        left_s = until - time.monotonic()
        if left_s <= 0:
            return
        time.sleep(min(0.25, left_s))


def _recover(scene: Scene, struck: Sequence[Struck]) -> None:
    """Until every job told of a chunk that is younger than every fault."""
    deadline = time.monotonic() + RECOVERED_S
    while True:
        looked = [one.look(scene, time.monotonic()) for one in struck]
        if all(looked):
            return
        if time.monotonic() > deadline:
            waiting = [
                f"{place} ({job}: {scene.running.status(job).state}, chunk {last})"
                for place, (job, last) in struck[-1].behind.items()
                if not any(n > last + DECODED for n, _ in scene.followed(job).pictured)
            ]
            raise AssertionError(
                f"{struck[-1].kind}: no new chunk for {RECOVERED_S:g} s after it: "
                f"{', '.join(waiting)}"
            )
        _between(scene, 0.25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of all the jobs of a place."""

    place: str
    jobs: int
    chunks: int
    missing: int
    doubled: int
    disordered: int
    malformed: int
    torn: int
    changed: int
    """Entries that were not what they had been when they were read first."""
    other_texts: int
    """Texts of files that an undisturbed run does not have."""
    kinds: Counter[str]
    wrong: tuple[str, ...]

    @property
    def whole(self) -> bool:
        return not any(
            (
                self.missing,
                self.doubled,
                self.disordered,
                self.malformed,
                self.torn,
                self.changed,
                self.other_texts,
                self.wrong,
            )
        )

    def __str__(self) -> str:
        numbers = (
            self.jobs,
            self.chunks,
            self.missing,
            self.doubled,
            self.disordered,
            self.malformed,
            self.torn,
            self.changed,
            self.other_texts,
        )
        told = " ".join(f"{kind}:{count}" for kind, count in sorted(self.kinds.items()))
        return f"{self.place:8}" + "".join(f"{n:>10}" for n in numbers) + f"   {told}"


RESULT = "place   " + "".join(
    f"{name:>10}"
    for name in (
        "jobs",
        "chunks",
        "missing",
        "doubled",
        "disorder",
        "malformed",
        "torn",
        "changed",
        "texts",
    )
)


def judge(scene: Scene, said: Mapping[Path, Sequence[str | None]]) -> list[Outcome]:
    """Lets the files end and the live jobs pause, and reads every stream anew."""
    running = scene.running
    live = [job for place, job in scene.jobs.items() if not place.startswith("file")]
    for job in live:
        running.queue.update_job(job, {"paused": "1"})
    running.wait_finished([job for place in scene.done for job, clip in scene.done[place] if clip])
    for job in live:
        _drain(running, job)
    return [_judge(scene, place, said) for place in scene.done]


def _drain(running: Service, job: str) -> None:
    """Until a paused job has no chunk left that was tokenized and not captioned, for two looks."""
    seen: list[int] = []

    def still() -> bool:
        seen.append(running.queue.last(job, "tokens"))
        time.sleep(1.0)
        return seen[-2:] == 2 * [running.queue.last(job, "events")]

    running.wait(still, f"that job {job} stands still")


def _judge(scene: Scene, place: str, said: Mapping[Path, Sequence[str | None]]) -> Outcome:
    total: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    wrong: list[str] = []
    for job, clip in scene.done[place]:
        running = scene.running
        status = running.status(job)
        again = Account()
        texts = [
            event.text
            for entry in running.queue.read(job, "events", after=0, count=1_000_000)
            for event in again.add(entry)
        ]
        last = running.queue.last(job, "tokens")
        followed = scene.followed(job).account
        _wait_read(running, followed, again.last)
        wrong += again.faults + [f"as read: {fault}" for fault in followed.faults]
        if clip is not None and (status.state != "ended" or status.last_chunk != last):
            wrong.append(f"job {job} is {status.state}: {status.error}")
        total["chunks"] += again.chunks
        total["missing"] += again.missing + last - again.last
        total["doubled"] += again.doubled + followed.doubled
        total["disordered"] += again.disordered + followed.disordered
        total["malformed"] += again.malformed
        total["torn"] += again.torn
        total["changed"] += again.differs(followed)
        if clip is not None:
            total["texts"] += sum(a != b for a, b in itertools.zip_longest(texts, said[clip]))
        kinds += again.kinds
    return Outcome(
        place=place,
        jobs=len(scene.done[place]),
        chunks=total["chunks"],
        missing=total["missing"],
        doubled=total["doubled"],
        disordered=total["disordered"],
        malformed=total["malformed"],
        torn=total["torn"],
        changed=total["changed"],
        other_texts=total["texts"],
        kinds=kinds,
        wrong=tuple(wrong),
    )


def _wait_read(running: Service, account: Account, last: int) -> None:
    running.wait(lambda: account.last >= last, "the follower's end", 30)


def undisturbed(running: Service, clips: Sequence[Path]) -> dict[Path, list[str | None]]:
    """What is said about each clip when nothing befalls the service."""
    jobs = {clip: running.submit(clip, **SLOWLY) for clip in dict.fromkeys(clips)}
    running.wait_finished(list(jobs.values()), 600)
    said = {clip: [event.text for event in running.events(job)] for clip, job in jobs.items()}
    for job in jobs.values():
        running.queue.delete_job(job)
    return said


@contextmanager
def live_sources(clips: Sequence[Path]) -> Iterator[tuple[Server, CuttingProxy, str, Server, str]]:
    """An RTSP server behind a proxy that cuts, an HLS server, and the URL of a camera of each."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rtsp = stack.enter_context(rtsp_server({"cam": clips[0]}))
        proxy = stack.enter_context(CuttingProxy(rtsp.url("cam")))
        hls = stack.enter_context(HlsServer(folder, {"cam": clips[-1]}))
        path = rtsp.url("cam").split("/", 3)[3]
        yield rtsp, proxy, f"rtsp://127.0.0.1:{proxy.port}/{path}", hls, hls.url("cam")


@contextmanager
def scene_of(
    clips: Sequence[Path], *, seed: int, files: int = FILES, live: bool = True
) -> Iterator[tuple[Scene, dict[Path, list[str | None]]]]:
    """A service with all its jobs on their way, and what the clips say undisturbed."""
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(DISK_MB))
        folder = disk or Path(stack.enter_context(tempfile.TemporaryDirectory()), "redis")
        allowed = sorted({str(clip.parent) for clip in clips})
        paths = "[" + ",".join(f'"{path}"' for path in allowed) + "]"
        running = stack.enter_context(kept_service(folder, **SETTINGS, FETCH__ALLOW_PATHS=paths))
        running.wait_ready(["decode-1", "tokenize-1", "caption-1"])
        said = undisturbed(running, clips)
        follower = stack.enter_context(Follower(running.queue))
        scene = Scene(
            running=running,
            follower=follower,
            clips=clips,
            random=random.Random(seed),
            files=files,
            disk=disk,
        )
        stack.callback(scene.settle)
        if live:
            rtsp, proxy, rtsp_url, hls, hls_url = stack.enter_context(live_sources(clips))
            scene.rtsp, scene.proxy, scene.hls = rtsp, proxy, hls
            scene.put("rtsp", rtsp_url, **LIVE)
            scene.put("hls", hls_url, **LIVE)
        scene.refill()
        running.wait(
            lambda: all(scene.followed(job).pictured for job in scene.jobs.values()),
            "the first caption of every job",
        )
        yield scene, said


def possible(scene: Scene) -> list[str]:
    """The kinds of faults that this scene can have."""
    kinds = list(FAULTS)
    if scene.disk is None:
        kinds.remove("redis disk full")
    if scene.rtsp is None:
        kinds = [k for k in kinds if not k.startswith(("rtsp", "hls", "live"))]
    return kinds


def run(scene: Scene, plan: Sequence[str], say: Callable[[str], None]) -> list[Struck]:
    """The plan, then calm: every fault is put right."""
    say(HEAD)
    struck = strike_all(scene, plan, say)
    scene.settle()
    return struck


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--faults", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files-only", action="store_true", help="no live jobs")
    parser.add_argument("--kinds", nargs="+", choices=FAULTS, help="only these")
    given = parser.parse_args()
    configure(LogSettings())
    with tempfile.TemporaryDirectory() as folder:
        clips = [clip.absolute() for clip in some_clips(given.clips, Path(folder))]
        with scene_of(clips, seed=given.seed, live=not given.files_only) as (scene, said):
            if scene.disk is None:
                print("no disk can be mounted here: the kind 'redis disk full' is left out")  # noqa: T201
            kinds = given.kinds or possible(scene)
            plan = drawn(scene.random, given.faults, kinds)
            started = time.monotonic()
            struck = run(scene, plan, lambda row: print(row, flush=True))  # noqa: T201
            took_s = time.monotonic() - started
            outcomes = judge(scene, said)
    print(f"\n{len(struck)} faults of {len(set(plan))} kinds in {took_s:.0f} s")  # noqa: T201
    print(RESULT)  # noqa: T201
    for outcome in outcomes:
        print(outcome)  # noqa: T201
        for sentence in outcome.wrong:
            print(f"    {sentence}")  # noqa: T201
    if not all(outcome.whole for outcome in outcomes):
        sys.exit("not every chunk was told exactly once")


if __name__ == "__main__":
    main()
