"""Jobs as their owners see them, put together from queue and roster."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import structlog

from streamer.adapters.queue import Queue
from streamer.adapters.roster import Roster
from streamer.errors import StreamGone, WireError
from streamer.events import Totals, decode_totals
from streamer.jobs import read_job, read_status
from streamer.sources.url import redact
from streamer.views import Carriers, JobView, Patches, Tokens
from streamer.workers import Placement, WorkerReport

log = structlog.get_logger(__name__)


class JobViews:
    """The roster at a moment, from which many jobs are seen."""

    def __init__(self, queue: Queue, roster: Roster) -> None:
        self._queue = queue
        self._reports = roster.reports()
        self._placements = roster.placements()

    def view(self, job_id: str, record: Mapping[str, str]) -> JobView:
        """Raises WireError for a malformed record, StreamGone for a job deleted meanwhile."""
        job, status = read_job(job_id, record), read_status(record)
        newest = self._queue.read_back(job_id, "events", count=1)
        totals = decode_totals(newest[0]) if newest else Totals()
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
            lag_s=lag_s(self._reports, job_id, totals),
            chunks=totals.chunks,
            captions=totals.captions,
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


def lag_s(reports: Mapping[str, WorkerReport], job_id: str, totals: Totals) -> float | None:
    """Media seconds that are tokenized and not yet captioned; None when nobody tokenizes it."""
    at = [
        report.jobs[job_id].t1
        for report in reports.values()
        if report.kind == "tokenize" and job_id in report.jobs
    ]
    return round(max(0.0, max(at) - totals.t1), 3) if at else None


def _carriers(placement: Placement | None) -> Carriers:
    if placement is None:
        return Carriers()
    return Carriers(decode=placement.decode, tokenize=placement.tokenize, caption=placement.caption)


def _time(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)
