"""Metrics for Prometheus: jobs and workers as they stand in Redis at the scrape."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from streamer.api.auth import EVERYBODY, Known
from streamer.api.http_metrics import buckets
from streamer.api.job_views import JobViews
from streamer.api.problems import documented
from streamer.api.room import occupancy, room
from streamer.api.service import Service
from streamer.api.signs import Sign
from streamer.api.tail import standing
from streamer.errors import QueueError
from streamer.views import JobView
from streamer.workers import KINDS, LATENCY_BUCKETS_S, kind_of

JOB_STATES = ("queued", "running", "paused", "ended", "failed")
WORKER_STATES = ("starting", "ready", "silent")
_COUNTS = {
    "unchanged": "Answers that were as the ones before.",
    "asked": "Answers that the LLM was asked for.",
    "reconnects": "Times that a live source had no pictures for a while.",
    "gaps": "Spans without pictures.",
    "skipped": "Spans left out because a job was behind.",
    "levels": "Changes of how far a job that is behind is thinned out.",
}
"""Counts of a job by their name in its view."""
_RETENTION = {
    "trimmed": ("streamer_entries_trimmed", "Entries of streams that left Redis."),
    "archived": ("streamer_entries_archived", "Of these, entries that are in the archive."),
    "lost": ("streamer_entries_lost", "Of these, entries that the archive did not take in time."),
    "archived_bytes": ("streamer_archive_bytes", "Written into the archive."),
    "archive_failures": ("streamer_archive_failures", "Files that had to be written again."),
    "deleted": ("streamer_jobs_expired", "Jobs deleted because their time was up."),
}
"""What the janitor counts since it was started, by its names."""

router = APIRouter(tags=["service"])


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses=documented(
        *(401, 403),
        answers={
            200: {
                "description": "Prometheus' text format. `streamer_redis_up` is 0, and what lies "
                "in Redis is missing, while Redis is away.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        },
    ),
)
def read_metrics(request: Request, caller: Known) -> Response:
    """Series of single jobs are there for unfinished jobs only."""
    registry: CollectorRegistry = request.app.state.metrics
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    """What Redis says at a scrape."""

    states: Counter[str]
    jobs: list[JobView]
    """The unfinished ones."""
    signs: Mapping[str, Sign]
    fits: int
    retention: Mapping[str, int]
    """What the janitor has done; empty before it has done anything."""


class ServiceCollector(Collector):
    """Reads Redis when it is asked."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("streamer_redis_up", "Whether Redis answered this scrape.")
        followers = GaugeMetricFamily(
            "streamer_event_subscribers", "Event streams open in this process."
        )
        followers.add_metric([], self._service.tail.followers)
        yield followers
        try:
            seen = self._look()
        except QueueError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _job_metrics(seen)
        yield from _worker_metrics(seen.signs)
        for name, (metric, text) in _RETENTION.items():
            done = _counter(metric, text)
            done.add_metric([], seen.retention.get(name, 0))
            yield done

    def _look(self) -> _Snapshot:
        here = self._service
        active = here.queue.active()
        records = here.queue.records(here.queue.jobs())
        reports = here.roster.reports()
        unfinished = {job: record for job, record in records.items() if job in active}
        now = occupancy(room(here.settings, here.roster, EVERYBODY), active, EVERYBODY.tenant)
        return _Snapshot(
            states=Counter(standing(record).state for record in records.values()),
            jobs=JobViews(here.queue, here.roster, here.clock).views(unfinished),
            signs=here.signs.look(reports),
            fits=now.fits,
            retention=json.loads(here.roster.published("retention") or "{}"),
        )


def _job_metrics(seen: _Snapshot) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("streamer_jobs", "Jobs by state.", labels=["state"])
    for state in JOB_STATES:
        jobs.add_metric([state], seen.states[state])
    fit = GaugeMetricFamily("streamer_jobs_fit", "How many more jobs fit.")
    fit.add_metric([], seen.fits)
    lag = GaugeMetricFamily(
        "streamer_stream_lag_seconds",
        "How far captions are behind: a live job behind the present, a file behind its tokens.",
        labels=["job"],
    )
    connected = GaugeMetricFamily(
        "streamer_source_connected", "Whether pictures of a live source come.", labels=["job"]
    )
    level = GaugeMetricFamily(
        "streamer_level", "How far a job that is behind is thinned out, 0 to 3.", labels=["job"]
    )
    patches = _counter("streamer_patches", "Patches of all pictures.", "job")
    patches_kept = _counter(
        "streamer_patches_kept", "Patches left after the operators of a stage.", "job", "stage"
    )
    tokens = _counter(
        "streamer_tokens", "Visual tokens of all pictures, without any reduction.", "job"
    )
    tokens_kept = _counter(
        "streamer_tokens_kept", "Visual tokens left after the operators of a stage.", "job", "stage"
    )
    captions = _counter("streamer_captions", "Captions written.", "job")
    chunks = _counter("streamer_chunks", "Chunks whose events are written.", "job")
    counts = {name: _counter(f"streamer_{name}", text, "job") for name, text in _COUNTS.items()}
    for job in seen.jobs:
        if job.lag_s is not None:
            lag.add_metric([job.id], job.lag_s)
        if job.connected is not None:
            connected.add_metric([job.id], job.connected)
        level.add_metric([job.id], job.level)
        for name, count in counts.items():
            count.add_metric([job.id], getattr(job, name))
        patches.add_metric([job.id], job.patches.total)
        patches_kept.add_metric([job.id, "pixel"], job.patches.kept)
        tokens.add_metric([job.id], job.tokens.dense)
        tokens_kept.add_metric([job.id, "token"], job.tokens.kept)
        captions.add_metric([job.id], job.captions)
        chunks.add_metric([job.id], job.chunks)
    yield from (jobs, fit, lag, connected, level)
    yield from (patches, patches_kept, tokens, tokens_kept, captions, chunks, *counts.values())


def _worker_metrics(signs: Mapping[str, Sign]) -> Iterator[Metric]:
    workers = GaugeMetricFamily(
        "streamer_workers", "Workers by kind and state.", labels=["kind", "state"]
    )
    count = Counter((str(kind_of(name)), str(sign.state)) for name, sign in signs.items())
    for kind in KINDS:
        for state in WORKER_STATES:
            workers.add_metric([kind, state], count[kind, state])
    busy = _counter("streamer_worker_busy_seconds", "Time in work.", "worker", "kind")
    backlog = GaugeMetricFamily(
        "streamer_worker_backlog",
        "Jobs whose next chunk waits for its turn.",
        labels=["worker", "kind"],
    )
    resident = GaugeMetricFamily(
        "streamer_worker_resident_bytes", "Memory of the process.", labels=["worker", "kind"]
    )
    batch = GaugeMetricFamily(
        "streamer_caption_batch",
        "Mean number of jobs that a captioner answered at once; 0 before the first.",
        labels=["worker"],
    )
    decoder = GaugeMetricFamily(
        "streamer_source_resident_bytes",
        "Memory of the process that decodes a live source.",
        labels=["job"],
    )
    for job_id, rss_bytes in _decoding(signs).items():
        decoder.add_metric([job_id], rss_bytes)
    latency = HistogramMetricFamily(
        "streamer_chunk_latency_seconds",
        "Time of a chunk at a stage; through all stages for captions.",
        labels=["worker", "kind"],
    )
    for name, sign in sorted(signs.items()):
        report = sign.report
        labels = [name, report.kind]
        resident.add_metric(labels, report.rss_bytes)
        if kind_of(name) is None:
            continue  # the controller, which has no chunks
        if report.kind == "caption":
            batch.add_metric([name], report.batch)
        busy.add_metric(labels, report.busy_s)
        backlog.add_metric(labels, report.backlog)
        if len(report.latencies) == len(LATENCY_BUCKETS_S) + 1:  # else it is of another version
            times = buckets(LATENCY_BUCKETS_S, report.latencies)
            latency.add_metric(labels, times, report.latency_s)
    yield from (workers, busy, backlog, resident, batch, decoder, latency)


def _decoding(signs: Mapping[str, Sign]) -> dict[str, int]:
    """Memory of the processes that decode live sources, by job; the newest one of each."""
    ordered = sorted(signs.values(), key=lambda sign: -sign.age_s)
    return {
        job_id: progress.source.rss_bytes
        for sign in ordered
        for job_id, progress in sign.report.jobs.items()
        if progress.source is not None and progress.source.pid
    }


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=labels)
