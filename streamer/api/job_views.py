"""Jobs as their owners see them, put together from queue and roster."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import structlog

from streamer.adapters.clock import Clock
from streamer.adapters.queue import Queue
from streamer.adapters.roster import Roster
from streamer.errors import StreamGone, WireError
from streamer.events import Event, Totals, decode_chunk_events, decode_totals
from streamer.jobs import Job, read_job, read_status
from streamer.sources.url import STREAMS, redact, scheme_of
from streamer.views import Carriers, JobView, Patches, Tokens
from streamer.workers import Placement, Progress, WorkerKind

log = structlog.get_logger(__name__)


class JobViews:
    """The roster at a moment, from which many jobs are seen."""

    def __init__(self, queue: Queue, roster: Roster, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock
        self._reports = roster.reports()
        self._placements = roster.placements()

    def view(self, job_id: str, record: Mapping[str, str]) -> JobView:
        """Raises WireError for a malformed record, StreamGone for a job deleted meanwhile."""
        job, status = read_job(job_id, record), read_status(record)
        newest = self._queue.read_back(job_id, "events", count=1)
        totals = decode_totals(newest[0]) if newest else Totals()
        last = decode_chunk_events(newest[0])[-1] if newest else None
        decoding = self._progress("decode", job_id)
        tokenizing = self._progress("tokenize", job_id)
        live = is_live(job, record, last, decoding)
        source = decoding.source if decoding and status.state == "running" else None
        return JobView(
            id=job_id,
            state=status.state,
            url=redact(job.url),
            created_at=_time(job.created_at),
            ended_at=None if status.ended_at is None else _time(status.ended_at),
            error=status.error,
            questions=job.questions,
            fps=job.settings.source.fps,
            chunk_s=job.settings.source.chunk_s,
            pipeline=job.settings.pipeline,
            live=live,
            connected=source.connected if source else None,
            source_error=source.reason if source and not source.connected else None,
            lag_s=self._lag_s(totals, tokenizing, last if source and source.connected else None),
            level=tokenizing.level if tokenizing else 0,
            reconnects=totals.gaps if live else 0,
            gaps=totals.gaps,
            skipped=totals.skipped,
            levels=totals.levels,
            chunks=totals.chunks,
            captions=totals.captions,
            unchanged=totals.unchanged,
            asked=totals.asked,
            t1=totals.t1,
            patches=Patches(total=totals.patches, kept=totals.patches_kept),
            tokens=Tokens(dense=totals.tokens_dense, kept=totals.tokens),
            workers=_carriers(self._placements.get(job_id)),
        )

    def views(self, records: Mapping[str, Mapping[str, str]]) -> list[JobView]:
        """All that can be seen; one malformed job does not hide the others."""
        seen = []
        for job_id, record in records.items():
            try:
                seen.append(self.view(job_id, record))
            except StreamGone:
                continue
            except WireError as exc:
                log.error("record_malformed", job=job_id, reason=str(exc))
        return seen

    def _progress(self, kind: WorkerKind, job_id: str) -> Progress | None:
        """Of the worker of a kind that has come furthest with a job."""
        found = [
            report.jobs[job_id]
            for report in self._reports.values()
            if report.kind == kind and job_id in report.jobs
        ]
        return max(found, key=lambda progress: progress.t1) if found else None

    def _lag_s(
        self, totals: Totals, tokenizing: Progress | None, live: Event | None
    ) -> float | None:
        """live: the newest event of a live source that is connected."""
        if tokenizing is None:
            return None
        lag_s = tokenizing.t1 - totals.t1
        if live is not None and live.wall1 is not None:
            lag_s = max(lag_s, self._clock.now() - datetime.fromisoformat(live.wall1).timestamp())
        return round(max(0.0, lag_s), 3)


def is_live(
    job: Job, record: Mapping[str, str], last: Event | None, decoding: Progress | None
) -> bool | None:
    """Whether a job's source goes on unread; None while nobody knows.

    record: in which a tokenizer that has found out notes it. last: the job's newest event;
    decoding: of the worker that reads its source.
    """
    if job.settings.source.live is not None:
        return job.settings.source.live
    if record.get("live") or scheme_of(job.url) in STREAMS or (last and last.wall1):
        return True
    if decoding is not None:
        return decoding.source is not None
    return None if last is None else False


def _carriers(placement: Placement | None) -> Carriers:
    if placement is None:
        return Carriers()
    return Carriers(decode=placement.decode, tokenize=placement.tokenize, caption=placement.caption)


def _time(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)
