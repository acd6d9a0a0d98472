"""The decode worker over rendered clips, whose pictures say their own number."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.actors.decode import LIVE_WAIT_S, DecodeWorker, End, Failure, NotYet, Reading
from streamer.actors.lives import LiveSources
from streamer.config import JobSettings, SourceSettings
from streamer.errors import SourceError
from streamer.jobs import Job
from streamer.sources import Limits
from streamer.sources.guard import TRUSTING, FetchPolicy
from streamer.sources.live import LiveOptions
from streamer.types import FrameChunk
from streamer.workers import Progress, SourceState
from tests.clips import cut, number_of, render


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4.5 s at ten pictures a second."""
    options = {"g": "20", "bf": "2"}
    return render(tmp_path_factory.mktemp("clips") / "clip.mp4", 45, options=options)


def reading(path: Path, job: str = "cam", fps: float = 2.0, chunk_s: float = 2.0) -> Reading:
    return Reading(job=job, url=str(path), fps=fps, chunk_s=chunk_s)


def seen(read: FrameChunk | End | Failure | NotYet) -> tuple[int, float, float, list[int]]:
    assert isinstance(read, FrameChunk), read
    return read.number, read.t0, read.t1, [number_of(image) for image in read.frames]


FIRST = (1, 0.0, 2.0, [0, 5, 10, 15])
SECOND = (2, 2.0, 4.0, [20, 25, 30, 35])
LAST = (3, 4.0, 4.5, [40])


def test_a_clip_is_read_on_to_its_end(clip: Path) -> None:
    worker = DecodeWorker()
    assert [seen(worker.read(reading(clip), t)) for t in (0.0, 2.0, 4.0)] == [FIRST, SECOND, LAST]
    assert worker.read(reading(clip), 4.5) == End()
    assert worker.open == {}


def test_reading_on_opens_the_source_once(clip: Path) -> None:
    worker = DecodeWorker()
    worker.read(reading(clip), 0.0)
    held = worker.open["cam"]
    worker.read(reading(clip), 2.0)
    assert worker.open["cam"] is held


def test_the_time_that_decoding_took_is_told(clip: Path) -> None:
    ticks = iter(range(1000))
    chunk = DecodeWorker(clock=lambda: next(ticks)).read(reading(clip), 0.0)
    assert isinstance(chunk, FrameChunk)
    assert chunk.decode_ms == 4000.0


def test_any_chunk_can_be_read_again_or_sought(clip: Path) -> None:
    worker = DecodeWorker()
    order = (0.0, 0.0, 2.0, 2.0, 0.0, 4.0, 2.0, 4.0, 0.0)
    expected = {0.0: FIRST, 2.0: SECOND, 4.0: LAST}
    whole = {t: worker.read(reading(clip, job="other"), t) for t in expected}
    for start_s in order:
        read, want = worker.read(reading(clip), start_s), whole[start_s]
        assert seen(read) == expected[start_s]
        assert isinstance(read, FrameChunk)
        assert isinstance(want, FrameChunk)
        assert np.array_equal(read.frames, want.frames)
        assert np.array_equal(read.pts, want.pts)


def test_a_fresh_worker_knows_the_end_as_one_that_read_there(clip: Path) -> None:
    """4.5 s is no chunk's border: the last chunk, which holds it, has been read already."""
    assert DecodeWorker().read(reading(clip), 4.5) == End()
    assert DecodeWorker().read(reading(clip), 100.0) == End()


def test_two_jobs_do_not_disturb_each_other(clip: Path, tmp_path: Path) -> None:
    other = render(tmp_path / "other.mp4", 20, fps=4)
    worker = DecodeWorker()
    one, two = reading(clip), reading(other, job="b", fps=4, chunk_s=1)
    assert seen(worker.read(one, 0.0)) == FIRST
    assert seen(worker.read(two, 0.0)) == (1, 0.0, 1.0, [0, 1, 2, 3])
    assert seen(worker.read(one, 2.0)) == SECOND
    assert seen(worker.read(two, 1.0)) == (2, 1.0, 2.0, [4, 5, 6, 7])
    worker.close("cam")
    assert list(worker.open) == ["b"]
    assert seen(worker.read(two, 2.0)) == (3, 2.0, 3.0, [8, 9, 10, 11])
    assert seen(worker.read(one, 4.0)) == LAST


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that announces 9 s and holds about half of them."""
    folder = tmp_path_factory.mktemp("short")
    whole = render(folder / "whole.mp4", 90, movflags="faststart", noise=40)
    return cut(whole, folder / "short.mp4", 0.5)


def test_an_end_before_the_announced_one_says_what_is_missing(short: Path) -> None:
    worker, at, spans = DecodeWorker(), 0.0, []
    while isinstance(read := worker.read(reading(short), at), FrameChunk):
        spans.append((read.t0, read.t1))
        at = read.t1
    assert isinstance(read, End)
    assert read.missing is not None
    assert read.missing[0] == pytest.approx(at)
    assert read.missing[1] == pytest.approx(9.0, abs=0.2)
    assert all(a[1] == b[0] for a, b in pairwise(spans))


@pytest.mark.parametrize("beyond", [0.0, 0.5, 3.0])
def test_what_is_missing_does_not_depend_on_who_asks(short: Path, beyond: float) -> None:
    worker, at = DecodeWorker(), 0.0
    while isinstance(read := worker.read(reading(short), at), FrameChunk):
        at = read.t1
    assert DecodeWorker().read(reading(short), at + beyond) == read


def test_a_bad_path_is_a_failure_with_a_sentence(tmp_path: Path) -> None:
    worker = DecodeWorker()
    read = worker.read(reading(tmp_path / "none.mp4"), 0.0)
    assert isinstance(read, Failure)
    assert "none.mp4: cannot be opened (No such file or directory)" in read.reason
    assert "\n" not in read.reason
    assert worker.open == {}


def test_a_file_that_appears_later_is_read(clip: Path, tmp_path: Path) -> None:
    worker, path = DecodeWorker(), tmp_path / "later.mp4"
    assert isinstance(worker.read(reading(path), 0.0), Failure)
    path.write_bytes(clip.read_bytes())
    assert seen(worker.read(reading(path), 0.0)) == FIRST


def test_closing_what_is_not_open_is_no_error() -> None:
    worker = DecodeWorker()
    worker.close("nobody")
    assert worker.open == {}


# Many jobs


def test_progress_is_told_by_job(clip: Path) -> None:
    worker = DecodeWorker()
    assert worker.progress == {}
    worker.read(reading(clip), 0.0)
    worker.read(reading(clip, job="other"), 2.0)
    assert {job: progress.t1 for job, progress in worker.progress.items()} == {
        "cam": 2.0,
        "other": 4.0,
    }
    assert worker.progress["cam"] == Progress(chunk=0, t1=2.0)


def test_sources_that_nobody_reads_are_let_go(clip: Path) -> None:
    # Given a job that is read no more, and one that is
    now = [0.0]
    worker = DecodeWorker(clock=lambda: now[0])
    worker.read(reading(clip), 0.0)
    worker.read(reading(clip, job="busy"), 0.0)
    now[0] = 100.0
    worker.read(reading(clip, job="busy"), 2.0)
    # When so long nobody asked for the first
    now[0] = 120.0
    worker.close_idle(120.0)
    assert worker.open.keys() == {"cam", "busy"}
    now[0] = 120.1
    worker.close_idle(120.0)
    # Then it is let go, and the other one is not
    assert worker.open.keys() == {"busy"}
    # And it is opened again for whoever asks
    assert seen(worker.read(reading(clip), 2.0)) == SECOND
    assert seen(worker.read(reading(clip, job="busy"), 4.0)) == LAST


def test_threads_that_read_the_same_jobs_do_not_disturb_each_other(clip: Path) -> None:
    # Given four threads that read two jobs at any place
    worker, expected = DecodeWorker(), {0.0: FIRST, 2.0: SECOND, 4.0: LAST}

    def read(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(15):
            start_s = draw.choice((0.0, 2.0, 4.0))
            assert (
                seen(worker.read(reading(clip, job=draw.choice("ab")), start_s))
                == expected[start_s]
            )

    # Then each has what is there
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(read, seed) for seed in range(4)]:
            done.result(60)


def test_a_source_that_hangs_holds_up_its_own_job_alone(clip: Path) -> None:
    # Given a read that comes to no end
    begun, go_on = threading.Event(), threading.Event()

    def clock() -> float:
        if threading.current_thread().name.startswith("hung"):
            begun.set()
            assert go_on.wait(30)
        return 0.0

    worker = DecodeWorker(clock=clock)
    with (
        ThreadPoolExecutor(1, thread_name_prefix="hung") as hung,
        ThreadPoolExecutor(2) as others,
    ):
        first = hung.submit(worker.read, reading(clip), 0.0)
        assert begun.wait(30)
        try:
            # When others are read meanwhile, then that is no trouble
            assert seen(worker.read(reading(clip, job="other"), 0.0)) == FIRST
            worker.close("other")
            # But who wants the same job waits
            second = others.submit(worker.read, reading(clip), 2.0)
            assert not second.done()
        finally:
            go_on.set()
        assert seen(first.result(30)) == FIRST
        assert seen(second.result(30)) == SECOND


def test_what_may_not_be_read_is_a_failure(clip: Path) -> None:
    assert isinstance(DecodeWorker(FetchPolicy()).read(reading(clip), 0.0), Failure)
    allowed = FetchPolicy(paths=(str(clip.parent),))
    assert seen(DecodeWorker(allowed).read(reading(clip), 0.0)) == FIRST


# Live sources


class Lives:
    """Cameras whose chunks the test gives, by what they are asked."""

    def __init__(self, *urls: str) -> None:
        self.urls = urls
        self.told: list[str] = []
        self.opened: list[tuple[str, float, float | None]] = []
        self.sources: list[FakeLive] = []
        self.error: str | None = None

    def tell(self, reading: Reading) -> bool:
        self.told.append(reading.url)
        if self.error:
            raise SourceError(self.error)
        return reading.url in self.urls

    def open(self, reading: Reading, start_s: float, wall_s: float | None) -> FakeLive:
        self.opened.append((reading.url, start_s, wall_s))
        self.sources.append(FakeLive())
        return self.sources[-1]


class FakeLive:
    def __init__(self) -> None:
        self.ended = False
        self.failure: str | None = None
        self.chunks: list[FrameChunk] = []
        self.asked: list[tuple[float, float]] = []
        self.closed = False
        self.waiting = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.state = SourceState(connected=True, reconnects=2, pid=7)

    def chunk(self, start_s: float, *, wait_s: float) -> FrameChunk | None:
        self.asked.append((start_s, wait_s))
        self.waiting.set()
        assert self.go_on.wait(30)
        return self.chunks.pop(0) if self.chunks else None

    def close(self) -> None:
        self.closed = True


CAMERA = Reading(job="live", url="rtsp://cam/", fps=2.0, chunk_s=2.0, behind_s=30.0)


def live_chunk(t0: float) -> FrameChunk:
    return FrameChunk(
        number=1,
        t0=t0,
        t1=t0 + 2,
        pts=t0 + np.arange(4) / 2,
        frames=np.zeros((4, 8, 8, 3), dtype=np.uint8),
        decode_ms=40.0,
        wall0=1e9 + t0,
        wall1=1e9 + t0 + 2,
    )


def live_worker(**options: Any) -> tuple[DecodeWorker, Lives]:
    lives = Lives(CAMERA.url)
    return DecodeWorker(lives=lives, **options), lives


def test_a_live_source_has_nothing_there_yet() -> None:
    worker, lives = live_worker()
    assert worker.read(CAMERA, 0.0) == NotYet()
    [source] = lives.sources
    source.chunks = [live_chunk(0.0)]
    assert seen_live(worker.read(CAMERA, 0.0)) == 0.0
    assert worker.read(CAMERA, 2.0) == NotYet()
    # it was opened once, its server asked once what it is, and it is waited for a moment
    assert lives.opened == [(CAMERA.url, 0.0, None)]
    assert lives.told == [CAMERA.url]
    assert source.asked == [(0.0, LIVE_WAIT_S)] * 2 + [(2.0, LIVE_WAIT_S)]
    assert worker.meter.chunks == 1


def seen_live(read: FrameChunk | End | Failure | NotYet) -> float:
    assert isinstance(read, FrameChunk), read
    return read.t0


def test_a_live_source_that_was_read_before_is_taken_up_where_it_was() -> None:
    """Its server, which may be away just now, need not say that it is live."""
    worker, lives = live_worker()
    lives.error = "it cannot be reached"
    assert worker.read(CAMERA, 8.0, 1e9 + 8) == NotYet()
    assert lives.opened == [(CAMERA.url, 8.0, 1e9 + 8)]
    # But without anything known of it that is the job's end
    worker, lives = live_worker()
    lives.error = "it cannot be reached"
    assert worker.read(CAMERA, 0.0) == Failure(reason="it cannot be reached")


@pytest.mark.parametrize("reason", [None, "not allowed"])
def test_a_live_source_that_is_over_is_let_go(reason: str | None) -> None:
    worker, lives = live_worker()
    worker.read(CAMERA, 0.0)
    [source] = lives.sources
    source.chunks = [live_chunk(0.0)]
    source.ended, source.failure = reason is None, reason
    # What it still holds is given first
    assert seen_live(worker.read(CAMERA, 0.0)) == 0.0
    assert worker.read(CAMERA, 2.0) == (Failure(reason=reason) if reason else End())
    assert source.closed
    assert worker.open == {}


def test_files_are_read_as_ever_beside_live_sources(clip: Path) -> None:
    worker, lives = live_worker()
    assert worker.read(CAMERA, 0.0) == NotYet()
    assert seen(worker.read(reading(clip), 0.0)) == FIRST
    assert seen(worker.read(reading(clip), 2.0)) == SECOND
    assert lives.told == [CAMERA.url, str(clip)]


def test_progress_says_how_a_live_source_is(clip: Path) -> None:
    worker, lives = live_worker()
    worker.read(CAMERA, 4.0, 1e9)
    worker.read(reading(clip), 0.0)
    assert worker.progress == {
        "live": Progress(chunk=0, t1=4.0, source=lives.sources[0].state),
        "cam": Progress(chunk=0, t1=2.0),
    }


def test_a_live_source_that_nobody_reads_is_let_go_and_taken_up_again() -> None:
    now = [0.0]
    worker, lives = live_worker(clock=lambda: now[0])
    worker.read(CAMERA, 0.0)
    now[0] = 100.0
    worker.read(CAMERA, 0.0)  # asking is reading, also when there is nothing
    now[0] = 220.0
    worker.close_idle(120.0)
    assert worker.open.keys() == {CAMERA.job}
    now[0] = 220.1
    worker.close_idle(120.0)
    assert worker.open == {}
    assert lives.sources[0].closed
    worker.read(CAMERA, 2.0, 1e9 + 2)
    assert lives.opened[1] == (CAMERA.url, 2.0, 1e9 + 2)
    worker.close(CAMERA.job)
    assert lives.sources[1].closed


def test_live_sources_that_wait_hold_no_file_up(clip: Path) -> None:
    # Given more silent cameras than files may be read at a time
    worker, lives = live_worker(slots=1)
    cameras = [replace(CAMERA, job=f"live-{n}") for n in range(3)]
    for camera in cameras:
        worker.read(camera, 0.0)
    for source in lives.sources:
        source.waiting.clear()
        source.go_on.clear()
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(worker.read, camera, 0.0) for camera in cameras]
        try:
            assert all(source.waiting.wait(30) for source in lives.sources)
            # Then a file is read meanwhile
            assert seen(worker.read(reading(clip), 0.0)) == FIRST
            assert worker.backlog == 0
        finally:
            for source in lives.sources:
                source.go_on.set()
        assert [read.result(30) for read in waiting] == [NotYet()] * 3


@pytest.mark.parametrize(
    ("url", "wanted", "live"),
    [("rtsp://cam/", None, True), ("/clip.mp4", None, False), ("/clip.mp4", True, True)],
)
def test_what_is_live_is_told_by_its_url_or_its_settings(
    url: str, wanted: bool | None, live: bool
) -> None:
    lives = LiveSources(policy=TRUSTING, limits=Limits(), options=LiveOptions())
    source = SourceSettings(live=wanted, behind_s=7)
    job = Job(id="cam", url=url, questions=(), settings=JobSettings(source=source))
    asked = Reading.of(job)
    assert (asked.live, asked.behind_s) == (wanted, 7)
    assert lives.tell(asked) is live
