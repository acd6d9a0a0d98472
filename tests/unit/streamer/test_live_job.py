"""Live jobs in the tokenizer: what is gone is said, writers are replaced, none falls behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from streamer.actors.decode import End, Failure
from streamer.actors.tokenize import LOOK_S, Tokenizing, encoder_for
from streamer.adapters.clock import ManualClock
from streamer.adapters.memory_queue import MemoryQueue
from streamer.adapters.queue import Stream, Written
from streamer.errors import WriterReplaced
from streamer.jobs import Job, read_status
from streamer.model import VideoModel
from streamer.types import FrameChunk, Hole
from streamer.wire import ChunkHead, decode_head
from tests.unit.streamer.fakes import JOB, a_job, write_events
from tests.unit.streamer.tiny import chunks_of, moving_square, tiny_model

WALL = 1_700_000_000.0
"""When the camera began."""


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return tiny_model()


class Camera:
    """Chunks that come as time goes by, each given once; a decoder that lives on meanwhile."""

    def __init__(self, clock: ManualClock, *, seconds: float = 60, per_chunk: int = 4) -> None:
        frames = np.resize(moving_square(16), (round(2 * seconds), 64, 80, 3))
        self.clock = clock
        self.left = [
            replace(chunk, wall0=WALL + chunk.t0, wall1=WALL + chunk.t1)
            for chunk in chunks_of(frames, per_chunk=per_chunk)
        ]
        self.end: End | Failure | None = None
        self.asked_wall: list[float | None] = []

    @property
    def newest_s(self) -> float:
        return self.clock.monotonic()

    def use(self, worker: str | None) -> None:
        pass

    def ready(self, start_s: float, wall_s: float | None = None) -> bool:
        return self.end is not None or self.left[0].t1 <= self.newest_s + 1e-6

    def read(self, start_s: float, wall_s: float | None = None) -> FrameChunk | End | Failure:
        self.asked_wall.append(wall_s)
        assert self.ready(start_s)
        if self.end is not None:
            return self.end
        chunk = self.left.pop(0)
        assert chunk.t0 >= start_s - 1e-6, "a live source does not go back"
        return replace(chunk, newest_s=max(self.newest_s, chunk.t1))

    def close(self) -> None:
        pass

    def miss(self, seconds: float, hole: Hole | None = None) -> None:
        """The next chunks of so many seconds never come."""
        end = self.left[0].t0 + seconds
        self.left = [chunk for chunk in self.left if chunk.t0 >= end - 1e-6]
        self.left[0] = replace(self.left[0], hole=hole)


class Stage:
    """A live job, its camera, its tokenizer and a caption side."""

    def __init__(
        self, model: VideoModel, *, per_chunk: int = 4, unread_bytes: int = 1 << 30, **source: float
    ) -> None:
        self.model = model
        self.clock = ManualClock()
        self.job: Job = a_job(source=source) if source else a_job()
        self.queue = MemoryQueue()
        self.queue.create_job(JOB, self.job.record())
        self.camera = Camera(self.clock, per_chunk=per_chunk)
        self.unread_bytes = unread_bytes
        self.writer = self.new_writer()

    def new_writer(self) -> Tokenizing:
        """One that knows what the queue knows."""
        return Tokenizing(
            self.job,
            self.camera,
            self.queue,
            self.clock,
            encoder_for(self.model, self.job),
            unread_bytes=self.unread_bytes,
        )

    def pass_time(self, seconds: float, *, captions: bool = True, step_s: float = 0.5) -> None:
        """The writer does what it can all the while."""
        for _ in range(round(seconds / step_s)):
            self.clock.advance(step_s)
            while self.writer.ready() and self.writer.step():
                if captions:
                    self.caption()

    def caption(self, upto: int | None = None) -> None:
        last = self.queue.last(JOB, "tokens")
        write_events(self.queue, self.job, upto=last if upto is None else upto)

    @property
    def heads(self) -> list[ChunkHead]:
        return [decode_head(e.fields) for e in self.queue.read(JOB, "tokens", after=0, count=999)]

    def check(self) -> None:
        """What holds of any live job's stream."""
        heads = self.heads
        assert [head.number for head in heads] == list(range(1, len(heads) + 1))
        assert all(a.t1 == b.t0 for a, b in pairwise(heads))
        assert all(a.wall1 == b.wall0 for a, b in pairwise(heads))
        assert all(head.live for head in heads)
        assert all(head.wall0 == pytest.approx(WALL + head.t0) for head in heads)
        bodies = [head for head in heads if head.has_body]
        assert [head.tubelet_t for head in bodies[1:]] == [
            head.tubelet_t + len(head.tubelet_s) for head in bodies[:-1]
        ]
        missing = {head.number for head in heads if not head.has_body}
        assert all(head.kind == "I" for head in bodies if head.number - 1 in missing)


def kinds(heads: list[ChunkHead]) -> str:
    return "".join(head.kind[0] for head in heads)


def test_chunks_have_their_wall_clock(model: VideoModel) -> None:
    stage = Stage(model)
    stage.pass_time(8)
    assert [(h.t0, h.t1, h.wall0, h.wall1) for h in stage.heads] == [
        (t, t + 2, WALL + t, WALL + t + 2) for t in (0, 2, 4, 6)
    ]
    assert {(h.level, h.behind_s) for h in stage.heads} == {(0, 0.0)}
    assert stage.camera.asked_wall == [None, WALL + 2, WALL + 4, WALL + 6]
    assert (stage.queue.job(JOB) or {})["live"] == "1"
    stage.check()


@pytest.mark.parametrize(
    ("hole", "kind", "reason"),
    [
        (Hole(kind="gap", reason="nothing came"), "gap", "nothing came"),
        (Hole(kind="skipped", reason="nobody read it"), "skipped", "nobody read it"),
        (None, "gap", "nobody read the source here: a worker was replaced"),
    ],
)
def test_what_is_missing_is_one_entry_and_its_chunk_is_not_lost(
    model: VideoModel, hole: Hole | None, kind: str, reason: str
) -> None:
    stage = Stage(model)
    stage.pass_time(4)
    stage.camera.miss(20, hole)
    stage.pass_time(26)
    head = stage.heads[2]
    assert (head.kind, head.reason, head.t0, head.t1) == (kind, reason, 4, 24)
    assert kinds(stage.heads) == f"IP{kind[0]}IPP"
    # a silence is not counted as being behind
    assert {h.level for h in stage.heads} == {0}
    stage.check()


def test_what_is_missing_at_the_start_has_its_wall_clock_too(model: VideoModel) -> None:
    stage = Stage(model)
    stage.camera.miss(6, Hole(kind="gap", reason="nothing came"))
    stage.pass_time(10)
    assert [(h.kind, h.t0, h.t1) for h in stage.heads] == [("gap", 0, 6), ("I", 6, 8), ("P", 8, 10)]
    stage.check()


@pytest.mark.parametrize("lost_s", [0, 2, 4])
@pytest.mark.parametrize("captions", [True, False])
def test_a_new_writer_starts_a_group_and_reads_nothing_again(
    model: VideoModel, lost_s: float, captions: bool
) -> None:
    # Given a writer that dies with chunks in its hands
    stage = Stage(model)
    stage.pass_time(6, captions=captions)
    if lost_s:
        stage.camera.miss(lost_s)
    # When another takes its place
    stage.writer = stage.new_writer()
    assert stage.writer.progress.chunk == 3
    stage.pass_time(lost_s + 4, captions=captions)
    # Then what nobody has any more is one entry, and the next chunk stands alone
    assert kinds(stage.heads) == ("IPPgIP" if lost_s else "IPPIP")
    i_chunk = next(h for h in stage.heads[3:] if h.kind == "I")
    assert (i_chunk.reason, i_chunk.changed, i_chunk.t0) == ("restart", 1.0, 6 + lost_s)
    # And it asks where the last one ended, also by the wall clock
    assert WALL + 6 in stage.camera.asked_wall
    stage.check()


def test_a_writer_that_dies_between_a_gap_and_its_chunk_loses_that_chunk_alone(
    model: VideoModel,
) -> None:
    stage = Stage(model)
    stage.pass_time(2)
    stage.camera.miss(2, Hole(kind="gap", reason="nothing came"))
    stage.clock.advance(4)
    assert stage.writer.step()
    assert kinds(stage.heads) == "Ig"
    stage.writer = stage.new_writer()
    stage.pass_time(4)
    assert [(h.kind, h.t0, h.t1) for h in stage.heads[1:4]] == [
        ("gap", 2, 4),
        ("gap", 4, 6),
        ("I", 6, 8),
    ]
    stage.check()


def test_a_writer_whose_place_another_took_stops(model: VideoModel) -> None:
    """Two writers of a file have the same chunks, so that "already" is fine; here they have not."""
    stage = Stage(model)
    stage.pass_time(2)
    sleeper, stage.writer = stage.writer, stage.new_writer()
    stage.pass_time(2)
    stage.clock.advance(2)
    with pytest.raises(WriterReplaced, match="entry 2 is another writer's"):
        sleeper.step()
    assert kinds(stage.heads) == "II"


def test_a_write_whose_answer_was_lost_is_its_own(model: VideoModel) -> None:
    stage = Stage(model)

    class Lossy(MemoryQueue):
        """Writes twice, as who got no answer does."""

        def append(
            self, job_id: str, stream: Stream, number: int, fields: Mapping[str, bytes]
        ) -> Written:
            super().append(job_id, stream, number, fields)
            return super().append(job_id, stream, number, fields)

    stage.queue = Lossy()
    stage.queue.create_job(JOB, stage.job.record())
    stage.writer = stage.new_writer()
    stage.pass_time(6)
    assert kinds(stage.heads) == "IPP"
    stage.check()


def test_the_share_that_changed_is_told_of_i_chunks_too(model: VideoModel) -> None:
    stage = Stage(model)
    stage.pass_time(2)
    stage.writer.ask_keyframes(1)
    stage.pass_time(4)
    first, asked, after = stage.heads
    assert (first.changed, asked.reason) == (1.0, "asked")
    assert 0 < asked.changed < 0.5
    assert after.changed == after.tokens / after.dense


def test_a_source_that_never_worked_fails_its_job(model: VideoModel) -> None:
    stage = Stage(model)
    stage.camera.end = Failure(reason="rtsp://10.0.0.1/: not allowed")
    assert not stage.writer.step()
    status = read_status(stage.queue.job(JOB) or {})
    assert (status.last_chunk, status.error) == (0, "rtsp://10.0.0.1/: not allowed")


# Falling behind


def test_a_slow_captioner_is_met_by_steps_and_then_by_a_skip(model: VideoModel) -> None:
    # Given a job that may be 20 s behind, and a captioner that stops
    stage = Stage(model, behind_s=20)
    stage.pass_time(2)
    stage.pass_time(28, captions=False)
    # Then chunks are thinned out: 25 % behind, 50 % behind, and no more are written at 100 %
    written = stage.heads
    assert [h.level for h in written] == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2]
    assert [round(h.behind_s) for h in written] == [0, *range(0, 20, 2)]
    assert [len(h.tubelet_s) for h in written[4:]] == [2, 2, 1, 1, 1, 1, 1]
    assert stage.writer.progress.level == 3
    # When it has caught up but for 6 s, then it is still too far behind
    stage.caption(upto=8)
    stage.pass_time(2, captions=False)
    assert len(stage.heads) == len(written)
    # When it is within a quarter, then what was dropped is one entry, and the present an I-chunk
    stage.caption(upto=9)
    stage.pass_time(2)
    skipped, present = stage.heads[-2:]
    assert (skipped.kind, skipped.t0, skipped.level) == ("skipped", 22, 3)
    assert skipped.reason == "20.0 s behind: skipped to the present"
    assert (skipped.t1, present.kind, present.level) == (present.t0, "I", 0)
    assert present.t1 == stage.clock.monotonic()
    stage.check()


def test_a_slow_tokenizer_is_behind_as_well(model: VideoModel) -> None:
    """What waits in the decoder counts: here the writer did nothing for 12 of 20 s."""
    stage = Stage(model, behind_s=20)
    stage.pass_time(2)
    stage.clock.advance(12)
    stage.writer.step()
    assert (stage.heads[-1].level, stage.heads[-1].behind_s) == (2, 10.0)
    # and it recovers by steps, without a skip
    stage.pass_time(16)
    assert all(head.has_body for head in stage.heads)
    assert len(stage.heads) == 15
    found = [h.level for h in stage.heads]
    assert sorted(found[1:], reverse=True) == found[1:]
    assert set(found) == {0, 1, 2}
    stage.check()


def test_tokens_that_nobody_captions_are_bounded_in_bytes(model: VideoModel) -> None:
    stage = Stage(model, unread_bytes=60_000, behind_s=600)
    stage.pass_time(50, captions=False)
    entries = stage.queue.read(JOB, "tokens", after=0, count=999)
    sizes = [sum(map(len, entry.fields.values())) for entry in entries]
    assert sum(sizes) - sizes[-1] < 60_000 <= sum(sizes)
    stage.caption()
    stage.pass_time(2)
    assert kinds(stage.heads)[-2:] == "sI"
    assert stage.heads[-2].reason == "0.1 MiB of tokens not captioned: skipped to the present"
    stage.check()


def test_a_writer_that_takes_over_is_as_far_behind(model: VideoModel) -> None:
    stage = Stage(model, behind_s=20)
    stage.pass_time(16, captions=False)
    before = stage.heads[-1]
    stage.writer = stage.new_writer()
    stage.pass_time(2, captions=False)
    assert (before.behind_s, stage.heads[-1].behind_s) == (14.0, 16.0)
    assert stage.heads[-1].level == 2
    stage.check()


def test_a_skip_that_ends_with_the_source_is_told(model: VideoModel) -> None:
    stage = Stage(model, behind_s=4)
    stage.pass_time(20, captions=False)
    assert stage.writer.progress.level == 3
    stage.camera.end = End()
    assert not stage.writer.step()
    assert (stage.heads[-1].kind, stage.heads[-1].t1) == ("skipped", 20)
    assert read_status(stage.queue.job(JOB) or {}).last_chunk == len(stage.heads)
    stage.check()


@pytest.mark.parametrize("dead_s", [5, 25])
def test_a_writer_replaced_while_it_skips_says_so_once(model: VideoModel, dead_s: float) -> None:
    stage = Stage(model, behind_s=8)
    stage.pass_time(16, captions=False)
    assert stage.writer.progress.level == 3
    stage.camera.miss(dead_s // 2 * 2)
    stage.writer = stage.new_writer()
    stage.caption()
    stage.pass_time(dead_s + 2)
    assert sum(not head.has_body for head in stage.heads) == 1
    stage.check()


def test_a_chunk_of_one_frame_is_a_tubelet(model: VideoModel) -> None:
    stage = Stage(model, per_chunk=1, chunk_s=0.5, fps=2, behind_s=8)
    stage.pass_time(3)
    assert [(h.t0, h.t1) for h in stage.heads] == [(t / 2, t / 2 + 0.5) for t in range(6)]
    assert [h.tubelet_t for h in stage.heads] == list(range(6))
    # one frame cannot be halved
    stage.clock.advance(4)
    stage.pass_time(1)
    assert 2 in {h.level for h in stage.heads}
    assert {len(h.tubelet_s) for h in stage.heads} == {1}
    stage.check()


def test_looking_how_far_captions_are_is_not_done_all_the_time(model: VideoModel) -> None:
    stage = Stage(model)

    class Counting(MemoryQueue):
        looks = 0

        def last(self, job_id: str, stream: Stream) -> int:
            self.looks += 1
            return 0

    counting = Counting()
    counting.create_job(JOB, stage.job.record())
    stage.queue = counting
    stage.writer = stage.new_writer()
    stage.clock.advance(20)
    for _ in range(10):
        stage.writer.step()
        stage.clock.advance(LOOK_S / 5)
    assert counting.looks == 2
