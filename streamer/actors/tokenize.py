"""Tokenizing: sources' chunks into their jobs' token streams, from wherever those end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from streamer.actors.decode import End, Failure
from streamer.actors.worker import JobWorker
from streamer.adapters.clock import Clock
from streamer.adapters.queue import Entry, Queue
from streamer.core.backlog import Backlog
from streamer.core.keyframes import KeyframePolicy
from streamer.core.pace import SKIPPING, Pace
from streamer.core.pipeline import build_pipeline
from streamer.errors import SourceError, WriterReplaced
from streamer.groups import head_of, last_group
from streamer.jobs import Job, JobStatus
from streamer.model import VideoModel
from streamer.types import FrameChunk, Gap, Hole
from streamer.vision.stream_encoder import StreamEncoder
from streamer.wire import ChunkHead, TokenChunk, encode
from streamer.workers import Placement, Progress

LOOK_S = 0.1
"""How often a job looks how far its captions are."""
UNREAD_BYTES = 64 << 20
_NO_PICTURES = Hole(kind="gap", reason="the source has no pictures here")
_NOT_HELD = Hole(kind="gap", reason="the file announces pictures here, but does not hold them")
_RESTARTED = Hole(kind="gap", reason="nobody read the source here: a worker was replaced")


class Decoder(Protocol):
    """Where one job's chunks of pictures come from.

    wall_s: Unix seconds of start_s, where a live source has been read before.
    """

    def use(self, worker: str | None) -> None:
        """The decode worker to ask from now on."""
        ...

    def ready(self, start_s: float, wall_s: float | None = None) -> bool:
        """Whether `read` would answer at once; asks for the chunk if nobody did."""
        ...

    def read(self, start_s: float, wall_s: float | None = None) -> FrameChunk | End | Failure: ...

    def close(self) -> None: ...


class Tokenizing:
    """Writes one job's token stream. Holds nothing that the stream and the source cannot rebuild.

    Of a file the last group's pictures are decoded again first, because the next P-chunk must be
    compared with the same picture as before; nothing is encoded twice, unless operators after the
    encoder remember tokens. A live source's pictures are gone: its next chunk starts a group.
    """

    def __init__(
        self,
        job: Job,
        decoder: Decoder,
        queue: Queue,
        clock: Clock,
        encoder: StreamEncoder,
        *,
        unread_bytes: int = UNREAD_BYTES,
        keyframes: int = 0,
    ) -> None:
        """unread_bytes: most tokens of a live job that wait to be captioned.
        keyframes: how often an I-chunk was asked for until now.
        """
        self.job = job
        self.decoder = decoder
        self.queue = queue
        self.clock = clock
        self.encoder = encoder
        entries = last_group(queue, job.id)
        heads = [head_of(entry, job.id) for entry in entries]
        self.live = bool(heads) and heads[-1].live
        self.replay = deque[ChunkHead]() if self.live else deque(heads)
        self.first_tubelet = heads[0].tubelet_t if heads else 0
        self.number = heads[-1].number + 1 if heads else 1
        self.end_s = self.next_s = heads[-1].t1 if heads else 0.0
        self.end_wall = self.next_wall = heads[-1].wall1 if self.live else None
        """The end of what is written, and of what was read: beyond it while chunks are dropped."""
        self.held: FrameChunk | None = None
        """A chunk that was read, and comes after an entry about what is missing before it."""
        self.keyframes = keyframes
        self.keyframe_due = False
        self.captioned = 0
        self.looked_at: float | None = None
        self.unread_bytes = unread_bytes
        self.backlog = Backlog()
        self.behind_s = 0.0
        self.pace = Pace()
        self.skipped: str | None = None
        """Why chunks are being dropped."""
        if self.live:
            self._resume(entries, heads)

    @property
    def progress(self) -> Progress:
        return Progress(chunk=self.number - 1, t1=self.end_s, level=self.pace.level)

    def close(self) -> None:
        self.decoder.close()

    def ask_keyframes(self, count: int) -> None:
        """How often an I-chunk was asked for until now."""
        self.keyframe_due = self.keyframe_due or count > self.keyframes
        self.keyframes = count

    def ready(self) -> bool:
        """Whether `step` would do something, and at once."""
        if self.replay:
            head = self.replay[0]
            return not head.has_body or self.decoder.ready(head.t0)
        there = self.held is not None or self.decoder.ready(self.next_s, self.next_wall)
        return there and (self.live or not self.too_far_ahead())

    def step(self) -> bool:
        """Writes the next entry, takes up one that is written, or drops a chunk that comes too
        late; False at the end."""
        if self.replay:
            self._take_up(self.replay[0])
            self.replay.popleft()
            return True
        read = self.held or self.decoder.read(self.next_s, self.next_wall)
        self.held = None
        if isinstance(read, FrameChunk):
            if read.live:
                self._step_live(read)
            elif _is_later(read.t0, self.end_s):
                self._write_hole(_NO_PICTURES, upto=read.t0)
                self.held = read
            else:
                self._write_chunk(read)
            return True
        error = None
        if isinstance(read, Failure):
            error = read.reason
        elif read.missing is not None and _is_later(read.missing[1], self.end_s):
            self.end_s = max(self.end_s, read.missing[0])
            self._write_hole(_NOT_HELD, upto=read.missing[1])
        if self.skipped is not None:
            self._write_skipped(self.skipped, upto=self.next_s, wall=self.next_wall)
        self.finish(error)
        return False

    def too_far_ahead(self) -> bool:
        """Whether the job waits for its captions."""
        ahead = self.job.settings.source.ahead
        if self.number - self.captioned <= ahead:
            return False
        self._look()
        return self.number - self.captioned > ahead

    def finish(self, error: str | None) -> None:
        """No more chunks will come."""
        fields = {"last_chunk": str(self.number - 1)}
        self.queue.update_job(self.job.id, {**fields, "error": error} if error else fields)

    def _take_up(self, head: ChunkHead) -> None:
        if not head.has_body:
            self.encoder.gap(Gap(number=head.number, t0=head.t0, t1=head.t1, reason=head.reason))
            return
        chunk = self.decoder.read(head.t0)
        if not isinstance(chunk, FrameChunk):
            told = chunk.reason if isinstance(chunk, Failure) else "it ends before"
            raise SourceError(f"the source cannot be read again from {head.t0:g} s: {told}")
        self.encoder.replay(chunk, tokens=head.tokens, first_tubelet=self.first_tubelet)

    def _resume(self, entries: Sequence[Entry], heads: Sequence[ChunkHead]) -> None:
        """Goes on behind what another writer of a live job left."""
        with_body = [head for head in heads if head.has_body]
        if with_body:
            self.encoder.resume(with_body[-1].tubelet_t + len(with_body[-1].tubelet_s))
        self.captioned = self.queue.last(self.job.id, "events")
        before = heads[0].number - 1
        if before > self.captioned:
            seconds = (before - self.captioned) * self.job.settings.source.chunk_s
            self.backlog.add(before, seconds=seconds, size=0)
        for entry, head in zip(entries, heads, strict=True):
            self._wait_for_captions(head, entry.fields)
        self.backlog.captioned(self.captioned)

    def _step_live(self, chunk: FrameChunk) -> None:
        if not self.live:
            self.live = True
            self.queue.update_job(self.job.id, {"live": "1"})
        self._keep_pace(chunk)
        if self.pace.skipping:
            self.skipped = self.skipped or self._why_skipped()
            self.next_s, self.next_wall = chunk.t1, chunk.wall1
        elif self.skipped is not None:
            self._write_skipped(self.skipped, upto=chunk.t0, wall=chunk.wall0)
            self.skipped, self.held = None, chunk
        elif _is_later(chunk.t0, self.end_s):
            self._write_hole(chunk.hole or _RESTARTED, upto=chunk.t0, wall=chunk.wall0)
            self.held = chunk
        else:
            self._write_chunk(chunk)

    def _keep_pace(self, chunk: FrameChunk) -> None:
        self._look()
        self.backlog.captioned(self.captioned)
        newest_s = chunk.t1 if chunk.newest_s is None else chunk.newest_s
        self.behind_s = self.backlog.seconds + max(0.0, newest_s - chunk.t1)
        share = max(
            self.behind_s / self.job.settings.source.behind_s,
            self.backlog.size / self.unread_bytes,
        )
        self.pace = self.pace.after(share, now=self.clock.monotonic())

    def _why_skipped(self) -> str:
        if self.behind_s >= self.job.settings.source.behind_s:
            return f"{self.behind_s:.1f} s behind: skipped to the present"
        size = self.backlog.size / 2**20
        return f"{size:.1f} MiB of tokens not captioned: skipped to the present"

    def _look(self) -> None:
        """How far the captions are, but not all the time."""
        now = self.clock.monotonic()
        if self.looked_at is None or now - self.looked_at >= LOOK_S:
            self.looked_at = now
            self.captioned = self.queue.last(self.job.id, "events")

    def _write_chunk(self, chunk: FrameChunk) -> None:
        if self.keyframe_due:
            self.encoder.ask_keyframe()
            self.keyframe_due = False
        numbered = replace(chunk, number=self.number)
        self._write(self.encoder.encode(numbered, self.pace.thinning), level=self.pace.level)

    def _write_skipped(self, reason: str, *, upto: float, wall: float | None) -> None:
        hole = Hole(kind="skipped", reason=reason)
        self._write_hole(hole, upto=upto, wall=wall, level=SKIPPING)

    def _write_hole(
        self, hole: Hole, *, upto: float, wall: float | None = None, level: int | None = None
    ) -> None:
        """One entry for what is missing from the end of what is written on."""
        wall0 = self.end_wall
        if wall0 is None and wall is not None:
            wall0 = wall - (upto - self.end_s)
        gap = Gap(
            number=self.number,
            kind=hole.kind,
            t0=self.end_s,
            t1=upto,
            reason=hole.reason,
            wall0=wall0,
            wall1=wall,
        )
        self._write(self.encoder.gap(gap), level=self.pace.level if level is None else level)

    def _write(self, chunk: TokenChunk, *, level: int) -> None:
        head = replace(
            chunk.head,
            written_at=self.clock.now(),
            level=level,
            behind_s=round(self.behind_s, 3),
        )
        fields = encode(replace(chunk, head=head))
        done = self.queue.append(self.job.id, "tokens", self.number, fields)
        if self.live:
            if done == "already":
                self._check_own(fields)
            self._wait_for_captions(head, fields)
        self.number = head.number + 1
        self.end_s = self.next_s = head.t1
        self.end_wall = self.next_wall = head.wall1 or None

    def _check_own(self, fields: Mapping[str, bytes]) -> None:
        """Two writers of a live job have different chunks: only one of them can go on."""
        there = self.queue.entry(self.job.id, "tokens", self.number)
        if there is None or there.fields["head"] != fields["head"]:
            raise WriterReplaced(
                f"job {self.job.id} tokens: entry {self.number} is another writer's"
            )

    def _wait_for_captions(self, head: ChunkHead, fields: Mapping[str, bytes]) -> None:
        seconds = head.t1 - head.t0 if head.has_body else 0.0
        size = sum(len(value) for value in fields.values())
        self.backlog.add(head.number, seconds=seconds, size=size)


class TokenizeWorker(JobWorker[Tokenizing]):
    """Tokenizes many jobs in turn, a chunk at a time; tenants take turns."""

    def __init__(
        self,
        queue: Queue,
        clock: Clock,
        *,
        decoder_of: Callable[[Job], Decoder],
        encoder_of: Callable[[Job], StreamEncoder],
        wait: Callable[[], None],
        unread_bytes: int = UNREAD_BYTES,
    ) -> None:
        """wait: returns when a decoder may have something, or after a moment.
        unread_bytes: most tokens of a live job that wait to be captioned.
        """
        super().__init__(queue, clock)
        self.decoder_of = decoder_of
        self.encoder_of = encoder_of
        self.wait = wait
        self.unread_bytes = unread_bytes

    def open(self, job: Job) -> Tokenizing:
        decoder = self.decoder_of(job)
        placement = self.placements[job.id]
        decoder.use(placement.decode)
        try:
            return Tokenizing(
                job,
                decoder,
                self.queue,
                self.clock,
                self.encoder_of(job),
                unread_bytes=self.unread_bytes,
                keyframes=placement.keyframes,
            )
        except BaseException:
            decoder.close()
            raise

    def is_over(self, status: JobStatus) -> bool:
        return status.finished or status.last_chunk is not None

    def fail(self, job_id: str, reason: str) -> None:
        last = self.queue.last(job_id, "tokens")
        self.queue.update_job(job_id, {"last_chunk": str(last), "error": reason})

    def take(self, placements: Mapping[str, Placement]) -> None:
        super().take(placements)
        for job_id, run in self.runs.items():
            run.decoder.use(placements[job_id].decode)
            run.ask_keyframes(placements[job_id].keyframes)

    def work(self) -> bool:
        ready = self._ready()
        self.backlog = max(0, len(ready) - 1)
        for job_id in self.turns.pick(ready, most=1):
            with self.isolated(job_id), self.meter.step():
                self._step(job_id, self.runs[job_id])
            return True
        self.wait()
        return False

    def _ready(self) -> dict[str, str]:
        ready = {}
        for job_id, run in list(self.runs.items()):
            placement = self.placements[job_id]
            with self.isolated(job_id):
                if not placement.paused and run.ready():
                    ready[job_id] = placement.tenant
        return ready

    def _step(self, job_id: str, run: Tokenizing) -> None:
        before, started = run.number, self.clock.monotonic()
        if not run.step():
            self.over(job_id)
        if run.number > before:
            self.meter.chunk(self.clock.monotonic() - started)


def _is_later(a: float, b: float) -> bool:
    return a > b + 1e-6


def encoder_for(model: VideoModel, job: Job) -> StreamEncoder:
    """The encoder that a job's settings describe."""
    keyframes = job.settings.keyframes
    return StreamEncoder(
        model.tower,
        model.geometry,
        job=job.id,
        pipeline=build_pipeline(job.settings.pipeline),
        policy=KeyframePolicy(
            interval_s=keyframes.interval_s,
            budget=keyframes.budget,
            cut_share=keyframes.cut_share,
        ),
        context=model.context,
    )
