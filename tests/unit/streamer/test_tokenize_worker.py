"""The token stream's writer: what it writes, and that a crash anywhere changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest

from streamer.actors.decode import End, Failure
from streamer.actors.tokenize import LOOK_S, TokenizeWorker, Tokenizing, encoder_for
from streamer.adapters.clock import ManualClock
from streamer.adapters.memory_queue import MemoryQueue
from streamer.adapters.queue import Queue
from streamer.config import DEFAULT_PIPELINE
from streamer.errors import SourceError, StreamGone, WriterReplaced
from streamer.jobs import Job, read_status
from streamer.model import VideoModel
from streamer.types import FrameChunk
from streamer.wire import TokenChunk, decode
from streamer.workers import Progress
from tests.unit.streamer.fakes import (
    JOB,
    FakeDecoder,
    FragileQueue,
    PowerCut,
    RememberingQueue,
    a_job,
    decoded,
    placed,
    same_chunk,
    tokenizer_of,
    work_off,
    write_events,
)
from tests.unit.streamer.tiny import chunks_of, moving_square, tiny_model


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return tiny_model()


def run(tokenizing: Tokenizing) -> None:
    """To the end, with a caption side that keeps up."""
    while tokenizing.step():
        write_events(tokenizing.queue, tokenizing.job, upto=tokenizing.number - 1)


def write_one(tokenizing: Tokenizing) -> None:
    """The next entry, after taking up those that are written."""
    before = tokenizing.number
    while tokenizing.number == before:
        assert tokenizing.step()


def eventful() -> list[FrameChunk]:
    """Two seconds each; the hole after the third comes early, the sixth is of another size and the
    last has an odd number of frames."""
    chunks = chunks_of(moving_square(28))
    tall = np.repeat(moving_square(1, size=(80, 48)), 4, axis=0)
    last = chunks[6]
    return [
        *chunks[:2],
        replace(chunks[2], t1=5.5, pts=chunks[2].pts[:3], frames=chunks[2].frames[:3]),
        chunks[4],
        replace(chunks[5], frames=tall),
        replace(last, t1=13.5, pts=last.pts[:3], frames=last.frames[:3]),
    ]


MISSING = End(missing=(13.5, 20.7))


def uninterrupted(model: VideoModel, decoder: FakeDecoder) -> list[TokenChunk]:
    queue = RememberingQueue()
    run(tokenizer_of(model, a_job(), decoder, queue))
    return decoded(queue)


def test_chunks_are_numbered_contiguous_and_i_then_p(model: VideoModel) -> None:
    # Given a clip in which little moves
    queue, clock = RememberingQueue(), ManualClock()
    worker = tokenizer_of(model, a_job(), FakeDecoder(chunks_of(moving_square(14))), queue, clock)
    # When it is tokenized to its end
    run(worker)
    # Then
    heads = [chunk.head for chunk in decoded(queue)]
    assert [h.number for h in heads] == [1, 2, 3, 4]
    assert [h.kind for h in heads] == ["I", "P", "P", "P"]
    assert [(h.t0, h.t1) for h in heads] == [(0, 2), (2, 4), (4, 6), (6, 7)]
    assert [h.tubelet_t for h in heads] == [0, 2, 4, 6]
    assert all(0 < h.tokens < h.dense for h in heads)
    assert all(h.written_at == clock.now() for h in heads)
    assert {h.job for h in heads} == {JOB}
    status = read_status(queue.job(JOB) or {})
    assert (status.state, status.last_chunk, status.error) == ("queued", 4, None)


def test_what_is_missing_has_entries_of_its_own(model: VideoModel) -> None:
    heads = [chunk.head for chunk in uninterrupted(model, FakeDecoder(eventful(), MISSING))]
    assert [(h.number, h.kind, h.t0, h.t1) for h in heads] == [
        (1, "I", 0, 2),
        (2, "P", 2, 4),
        (3, "P", 4, 5.5),
        (4, "gap", 5.5, 8),
        (5, "I", 8, 10),
        (6, "I", 10, 12),
        (7, "I", 12, 13.5),
        (8, "gap", 13.5, 20.7),
    ]
    assert [h.reason for h in heads] == [
        "first",
        "",
        "",
        "the source has no pictures here",
        "gap",
        "resize",
        "resize",
        "the file announces pictures here, but does not hold them",
    ]
    with_body = [h for h in heads if h.has_body]
    assert [h.grid for h in with_body] == [(4, 5)] * 4 + [(5, 3), (4, 5)]
    assert [h.tubelet_t for h in with_body] == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("cut_after", range(1, 9))
@pytest.mark.parametrize(
    "pipeline",
    [
        ({"name": "rlt"},),
        (DEFAULT_PIPELINE,),
        (DEFAULT_PIPELINE, {"name": "evs", "rate": 0.3}, {"name": "prumerge"}, {"name": "tome"}),
        ({"name": "dtd", "space": "pixel", "threshold": 0.02},),
    ],
    ids=["rlt", "default", "chain", "change"],
)
def test_a_crash_after_any_entry_changes_nothing(
    model: VideoModel, cut_after: int, pipeline: tuple[dict[str, object], ...]
) -> None:
    job = a_job(pipeline=pipeline)
    undisturbed = RememberingQueue()
    run(tokenizer_of(model, job, FakeDecoder(eventful(), MISSING), undisturbed))
    # Given a worker that dies when an entry is stored and its own state has not moved on
    decoder = FakeDecoder(eventful(), MISSING)
    queue = FragileQueue("tokens", cut_after)
    with pytest.raises(PowerCut):
        run(tokenizer_of(model, job, decoder, queue))
    assert queue.last(JOB, "tokens") == cut_after
    # When another takes its place
    run(tokenizer_of(model, job, decoder, queue))
    # Then nobody can tell
    for chunk, expected in zip(decoded(queue), decoded(undisturbed), strict=True):
        assert same_chunk(chunk, expected), expected.head
    assert read_status(queue.job(JOB) or {}).last_chunk == 8


@pytest.mark.parametrize("steps", range(1, 5))
def test_two_crashes_in_long_groups_change_nothing(model: VideoModel, steps: int) -> None:
    """The keyframe interval falls due at the same chunk, however often the writer was replaced."""
    decoder = FakeDecoder(chunks_of(moving_square(24)))
    job, queue, whole = a_job(keyframes={"interval_s": 6.0}), RememberingQueue(), RememberingQueue()
    run(tokenizer_of(model, job, decoder, whole))
    for _ in range(2):
        tokenizing = tokenizer_of(model, job, decoder, queue)
        for _ in range(steps):
            if tokenizing.number <= 6:
                write_one(tokenizing)
    run(tokenizer_of(model, job, decoder, queue))
    assert [c.head.kind for c in decoded(whole)] == ["I", "P", "P", "I", "P", "P"]
    for chunk, expected in zip(decoded(queue), decoded(whole), strict=True):
        assert same_chunk(chunk, expected), expected.head


def test_a_replaced_writer_that_comes_back_does_no_harm(model: VideoModel) -> None:
    # Given a worker that fell asleep after one chunk, and one that did the rest
    decoder, queue = FakeDecoder(chunks_of(moving_square(16))), RememberingQueue()
    sleeper = tokenizer_of(model, a_job(), decoder, queue)
    sleeper.step()
    run(tokenizer_of(model, a_job(), decoder, queue))
    before = queue.read(JOB, "tokens", after=0)
    # When it wakes up
    run(sleeper)
    # Then what was written stands
    assert queue.read(JOB, "tokens", after=0) == before
    assert read_status(queue.job(JOB) or {}).last_chunk == 4


def test_a_replaced_writer_stops_when_its_place_is_trimmed(model: VideoModel) -> None:
    decoder, queue = FakeDecoder(chunks_of(moving_square(16))), RememberingQueue()
    sleeper = tokenizer_of(model, a_job(), decoder, queue)
    run(tokenizer_of(model, a_job(), decoder, queue))
    queue.trim(JOB, "tokens", before=3)
    with pytest.raises(WriterReplaced, match="entry 1 was refused, the stream is at 4"):
        sleeper.step()


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_file_waits_for_its_captions(model: VideoModel, ahead: int) -> None:
    # Given a caption side that has said nothing
    job, queue, clock = a_job(source={"ahead": ahead}), RememberingQueue(), ManualClock()
    tokenizing = tokenizer_of(model, job, FakeDecoder(eventful(), MISSING), queue, clock)
    # When it is asked again and again
    for _ in range(10):
        if tokenizing.ready():
            assert tokenizing.step()
    # Then it is `ahead` chunks ahead
    assert queue.last(JOB, "tokens") == ahead
    # When captions come one by one, then never more than `ahead` wait, not even at a gap
    for said in range(1, 9 - ahead):
        write_events(queue, job, upto=said)
        assert not tokenizing.ready()  # it does not look all the time
        clock.advance(2 * LOOK_S)
        for _ in range(3):
            if tokenizing.ready():
                tokenizing.step()
        assert queue.last(JOB, "tokens") == said + ahead


def test_a_worker_that_takes_over_is_not_ahead_of_what_was_said(model: VideoModel) -> None:
    job, queue, decoder = a_job(source={"ahead": 1}), RememberingQueue(), FakeDecoder(eventful())
    first = tokenizer_of(model, job, decoder, queue)
    for said in (1, 2):
        assert first.ready()
        first.step()
        write_events(queue, job, upto=said)
    second = tokenizer_of(model, job, decoder, queue)
    for _ in range(3):  # two that are written, and a new one
        assert second.ready()
        second.step()
    assert queue.last(JOB, "tokens") == 3
    assert not second.ready()


@pytest.mark.parametrize("died_after", range(2, 8))
def test_an_i_chunk_that_was_asked_for_stays_one(model: VideoModel, died_after: int) -> None:
    """The plan of a group follows from its chunks alone, whatever made it start."""
    job, decoder = a_job(), FakeDecoder(chunks_of(moving_square(32)))
    whole, queue = RememberingQueue(), RememberingQueue()

    def written(queue: Queue, upto: int) -> Tokenizing:
        tokenizing = tokenizer_of(model, job, decoder, queue)
        while tokenizing.number <= upto:
            if tokenizing.number == 3:
                tokenizing.ask_keyframes(1)
            write_one(tokenizing)
        return tokenizing

    # Given an I-chunk that was asked for once, and a writer that dies after it
    run(written(whole, 4))
    written(queue, died_after)
    # When another takes its place, which knows that it was asked for
    tokenizing = tokenizer_of(model, job, decoder, queue)
    tokenizing.ask_keyframes(tokenizing.keyframes)
    if died_after < 3:
        tokenizing.ask_keyframes(1)
    run(tokenizing)
    # Then nobody can tell
    assert [c.head.kind for c in decoded(whole)] == ["I", "P", "I", *"PPPPP"]
    assert decoded(whole)[2].head.reason == "asked"
    for chunk, expected in zip(decoded(queue), decoded(whole), strict=True):
        assert same_chunk(chunk, expected), expected.head


def test_a_first_chunk_that_was_asked_for_is_no_reason_for_another(model: VideoModel) -> None:
    queue, decoder = RememberingQueue(), FakeDecoder(chunks_of(moving_square(12)))
    tokenizing = tokenizer_of(model, a_job(), decoder, queue)
    tokenizing.ask_keyframes(3)
    run(tokenizing)
    assert [c.head.reason for c in decoded(queue)] == ["first", "", ""]


def test_placements_ask_for_i_chunks(model: VideoModel) -> None:
    job, queue = a_job(), MemoryQueue()
    created(queue, job)
    worker = worker_of(model, queue, clips(job))
    worker.take(placed(job, keyframes=4))
    for _ in range(2):
        worker.work()
    worker.take(placed(job, keyframes=5))
    for _ in range(2):
        worker.work()
    heads = [decode(e.fields).head for e in queue.read(JOB, "tokens", after=0)]
    assert [(h.kind, h.reason) for h in heads] == [
        ("I", "first"),
        ("P", ""),
        ("I", "asked"),
        ("P", ""),
    ]


def test_a_source_that_fails_ends_the_job_with_its_sentence(model: VideoModel) -> None:
    queue = RememberingQueue()
    decoder = FakeDecoder(chunks_of(moving_square(8)), Failure(reason="clip.mp4: it broke"))
    run(tokenizer_of(model, a_job(), decoder, queue))
    status = read_status(queue.job(JOB) or {})
    assert (status.last_chunk, status.error) == (2, "clip.mp4: it broke")
    assert [chunk.head.kind for chunk in decoded(queue)] == ["I", "P"]


def test_a_source_that_fails_at_once_has_no_chunks(model: VideoModel) -> None:
    queue = RememberingQueue()
    run(tokenizer_of(model, a_job(), FakeDecoder([], Failure(reason="no such file")), queue))
    status = read_status(queue.job(JOB) or {})
    assert (status.last_chunk, status.error) == (0, "no such file")
    assert queue.length(JOB, "tokens") == 0


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_source_shorter_than_a_chunk_is_one_chunk(model: VideoModel, frames: int) -> None:
    queue = RememberingQueue()
    run(tokenizer_of(model, a_job(), FakeDecoder(chunks_of(moving_square(frames))), queue))
    [chunk] = decoded(queue)
    assert (chunk.head.kind, chunk.head.t0, chunk.head.t1) == ("I", 0, frames / 2)
    tubelets = (frames + 1) // 2
    assert chunk.head.dense == tubelets * 20
    assert chunk.head.tubelet_s == ((0.25, 1.0) if frames > 1 else (0.0,))[:tubelets]
    assert read_status(queue.job(JOB) or {}).last_chunk == 1


def test_a_source_that_starts_late_starts_with_a_gap(model: VideoModel) -> None:
    decoder = FakeDecoder(chunks_of(moving_square(12))[1:])
    whole = uninterrupted(model, decoder)
    assert [(c.head.kind, c.head.t0) for c in whole] == [("gap", 0), ("I", 2), ("P", 4)]
    queue = FragileQueue("tokens", 1)
    with pytest.raises(PowerCut):
        run(tokenizer_of(model, a_job(), decoder, queue))
    run(tokenizer_of(model, a_job(), decoder, queue))
    for chunk, expected in zip(decoded(queue), whole, strict=True):
        assert same_chunk(chunk, expected)


def test_a_deleted_job_stops_its_writer(model: VideoModel) -> None:
    queue = RememberingQueue()
    worker = tokenizer_of(model, a_job(), FakeDecoder(chunks_of(moving_square(16))), queue)
    worker.step()
    queue.delete_job(JOB)
    with pytest.raises(StreamGone):
        worker.step()
    assert queue.jobs() == []


def test_a_source_that_cannot_be_read_again_is_named(model: VideoModel) -> None:
    # Given two chunks in the stream, and a file that was shortened meanwhile
    queue = RememberingQueue()
    worker = tokenizer_of(model, a_job(), FakeDecoder(chunks_of(moving_square(8))), queue)
    worker.step()
    worker.step()
    # Then a new worker says so
    with pytest.raises(SourceError, match=r"cannot be read again from 2 s: it ends before"):
        run(tokenizer_of(model, a_job(), FakeDecoder(chunks_of(moving_square(4))), queue))
    gone = FakeDecoder([], Failure(reason="no such file"))
    with pytest.raises(SourceError, match=r"cannot be read again from 0 s: no such file"):
        run(tokenizer_of(model, a_job(), gone, queue))


# Many jobs


class Waited:
    """Counts how often there was nothing to do."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def worker_of(
    model: VideoModel,
    queue: Queue,
    decoders: Mapping[str, FakeDecoder],
    *,
    clock: ManualClock | None = None,
    wait: Callable[[], None] = Waited(),  # noqa: B008  # nobody looks at it
) -> TokenizeWorker:
    return TokenizeWorker(
        queue,
        clock or ManualClock(),
        decoder_of=lambda job: decoders[job.id],
        encoder_of=lambda job: encoder_for(model, job),
        wait=wait,
    )


def created(queue: Queue, *jobs: Job) -> None:
    for job in jobs:
        queue.create_job(job.id, job.record(), tenant=job.tenant)


def clips(*jobs: Job, frames: int = 24) -> dict[str, FakeDecoder]:
    """A source of its own for each."""
    return {job.id: FakeDecoder(chunks_of(moving_square(frames))) for job in jobs}


def test_jobs_side_by_side_have_what_each_has_alone(model: VideoModel) -> None:
    # Given three jobs with sources of different length
    jobs = [a_job(id=id) for id in "abc"]
    decoders = {
        job.id: FakeDecoder(chunks_of(moving_square(frames)))
        for job, frames in zip(jobs, (24, 7, 16), strict=True)
    }
    queue = MemoryQueue()
    created(queue, *jobs)
    # When one worker tokenizes all of them
    work_off(worker_of(model, queue, decoders), *jobs)
    # Then nobody can tell
    for job in jobs:
        alone = RememberingQueue()
        run(tokenizer_of(model, job, decoders[job.id], alone))
        chunks = [decode(e.fields) for e in queue.read(job.id, "tokens", after=0)]
        for chunk, expected in zip(chunks, decoded(alone), strict=True):
            assert same_chunk(chunk, expected)
        last = read_status(queue.job(job.id) or {}).last_chunk
        assert last == len(chunks)
        assert decoders[job.id].closed


def test_twelve_jobs_of_one_tenant_wait_for_one_of_another(model: VideoModel) -> None:
    # Given a tenant with twelve cameras, and one with one
    crowd = [a_job(id=f"a{n:02}", tenant="crowd") for n in range(12)]
    single = a_job(id="b", tenant="single")
    queue = MemoryQueue()
    created(queue, *crowd, single)
    worker = worker_of(model, queue, clips(*crowd, single))
    worker.take(placed(*crowd, single))
    # When all have work, then both have as many turns, and the cameras as many among themselves
    for _ in range(12):
        assert worker.work()
        assert worker.backlog == 12
    done = {job.id: queue.last(job.id, "tokens") for job in (*crowd, single)}
    assert done.pop("b") == 6
    assert sorted(done.values()) == [0] * 6 + [1] * 6


def test_a_paused_job_does_not_advance(model: VideoModel) -> None:
    # Given two jobs, one of which is paused
    one, other = a_job(id="one"), a_job(id="other")
    queue, waited = MemoryQueue(), Waited()
    created(queue, one, other)
    worker = worker_of(model, queue, clips(one, other, frames=8), wait=waited)
    worker.take({**placed(one, paused=True), **placed(other)})
    # Then the other comes to its end, and it stays
    while worker.work():
        pass
    assert (queue.last("one", "tokens"), queue.last("other", "tokens")) == (0, 2)
    assert waited.times == 1
    assert worker.backlog == 0
    # When it is resumed, then it goes on
    work_off(worker, one, other)
    assert queue.last("one", "tokens") == 2


def test_what_is_written_is_taken_up_before_there_is_more(model: VideoModel) -> None:
    # Given a job three chunks of which are written, and a worker that takes its place
    job, queue = a_job(), RememberingQueue()
    decoders = clips(job)
    first = tokenizer_of(model, job, decoders[JOB], queue)
    for _ in range(3):
        write_one(first)
    worker = worker_of(model, queue, decoders)
    worker.take(placed(job))
    # When it works, then three pieces of its work write nothing
    for _ in range(3):
        assert worker.runs[JOB].replay
        assert worker.work()
        assert (queue.last(JOB, "tokens"), worker.meter.chunks) == (3, 0)
        assert worker.progress[JOB] == Progress(chunk=3, t1=6.0)
    # And the next one does
    assert worker.work()
    assert (queue.last(JOB, "tokens"), worker.meter.chunks) == (4, 1)
    assert worker.progress[JOB] == Progress(chunk=4, t1=8.0)


def test_a_job_whose_pictures_are_not_there_holds_nobody_up(model: VideoModel) -> None:
    slow, quick = a_job(id="slow"), a_job(id="quick")
    queue, waited = MemoryQueue(), Waited()
    created(queue, slow, quick)
    decoders = clips(slow, quick, frames=8)
    worker = worker_of(model, queue, decoders, wait=waited)
    decoders["slow"].is_ready = False
    worker.take(placed(slow, quick))
    while worker.work():
        pass
    assert (queue.last("slow", "tokens"), queue.last("quick", "tokens")) == (0, 2)
    # nothing to do: it waited for the decoders, not for a time of its own
    assert waited.times == 1
    decoders["slow"].is_ready = True
    assert worker.work()
    assert queue.last("slow", "tokens") == 1


def test_a_moved_job_is_decoded_elsewhere(model: VideoModel) -> None:
    job, queue = a_job(), MemoryQueue()
    created(queue, job)
    decoders = clips(job)
    worker = worker_of(model, queue, decoders)
    worker.take(placed(job, decode=None))
    worker.take(placed(job))
    worker.take(placed(job, decode="decode-2"))
    asked = [name for name, _ in groupby(decoders[JOB].used)]
    assert asked == [None, "decode-1", "decode-2"]
    # When it is another worker's job, then its source is let go
    worker.take({})
    assert decoders[JOB].closed
    assert worker.runs == {}


def test_a_source_that_cannot_be_read_again_fails_its_job_alone(model: VideoModel) -> None:
    # Given two jobs with two chunks each, and a worker that finds one of the files shortened
    bad, good = a_job(id="bad"), a_job(id="good")
    queue = MemoryQueue()
    decoders = clips(bad, good, frames=12)
    for job in (bad, good):
        tokenizing = tokenizer_of(model, job, decoders[job.id], queue)
        write_one(tokenizing)
        write_one(tokenizing)
    decoders["bad"].chunks = decoders["bad"].chunks[:1]
    # When it works, then the one job ends where it is, with a sentence
    work_off(worker_of(model, queue, decoders), bad, good)
    status = read_status(queue.job("bad") or {})
    assert status.last_chunk == 2
    assert status.error == "the source cannot be read again from 2 s: it ends before"
    # And the other has all its chunks
    status = read_status(queue.job("good") or {})
    assert (status.last_chunk, status.error) == (3, None)


def test_settings_that_cannot_be_met_fail_their_job_alone(model: VideoModel) -> None:
    bad = a_job(id="bad", pipeline=({"name": "nonesuch"},))
    good = a_job(id="good")
    queue = MemoryQueue()
    created(queue, bad, good)
    work_off(worker_of(model, queue, clips(bad, good, frames=8)), bad, good)
    status = read_status(queue.job("bad") or {})
    assert status.last_chunk == 0
    assert status.error is not None
    assert "nonesuch" in status.error
    assert read_status(queue.job("good") or {}).last_chunk == 2


def test_a_token_stream_that_cannot_be_read_fails_its_job_alone(model: VideoModel) -> None:
    bad, good = a_job(id="bad"), a_job(id="good")
    queue = MemoryQueue()
    created(queue, bad, good)
    queue.append("bad", "tokens", 1, {"head": b"{"})
    work_off(worker_of(model, queue, clips(bad, good, frames=8)), bad, good)
    assert read_status(queue.job("bad") or {}).last_chunk == 1
    assert "job bad tokens entry 1: head is not JSON" in (queue.job("bad") or {})["error"]
    assert read_status(queue.job("good") or {}).last_chunk == 2


def test_a_source_that_ended_is_not_taken_up_again(model: VideoModel) -> None:
    job, queue = a_job(), MemoryQueue()
    created(queue, job)
    decoders = clips(job, frames=8)
    work_off(worker_of(model, queue, decoders), job)
    again = worker_of(model, queue, {})
    again.take(placed(job))
    assert again.runs == {}


def test_a_deleted_job_is_let_go(model: VideoModel) -> None:
    gone, other = a_job(id="gone"), a_job(id="other")
    queue = MemoryQueue()
    created(queue, gone, other)
    worker = worker_of(model, queue, clips(gone, other, frames=8))
    worker.take(placed(gone, other))
    queue.delete_job("gone")
    work_off(worker, gone, other)
    assert queue.jobs() == ["other"]
    assert read_status(queue.job("other") or {}).last_chunk == 2
