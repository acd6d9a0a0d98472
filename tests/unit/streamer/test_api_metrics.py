"""What Prometheus reads."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from streamer.config import Settings
from streamer.workers import CONTROLLER, LATENCY_BUCKETS_S, Progress, SourceState, WorkerReport
from tests.unit.streamer.api_jobs import Api, api, finish, make_job, write
from tests.unit.streamer.test_api_problems import AWAY

REPORT = WorkerReport(
    name="caption-1",
    kind="caption",
    boot="a",
    beat=1,
    rss_bytes=1000,
    backlog=2,
    busy_s=10.0,
    step_s=0.5,
    latency_s=3.0,
    latencies=(1, 0, 2, *[0] * (len(LATENCY_BUCKETS_S) - 3), 4),
    batch=2.5,
    jobs={"cam": Progress(chunk=2, t1=4.0)},
)


def scrape(here: Api) -> dict[str, float]:
    """The samples by name and labels, as they are written."""
    text = here.client.get("/metrics").text
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{name}={sample.labels[name]}" for name in sorted(sample.labels))
            name = f"{sample.name}{{{labels}}}"
            assert name not in samples, name  # Prometheus would refuse all of it
            samples[name] = sample.value
    return samples


def test_jobs_and_workers_are_as_they_stand() -> None:
    here = api()
    make_job(here.queue)
    write(here.queue, "cam", 1, 2)
    here.queue.update_job("cam", {"state": "running"})
    make_job(here.queue, "old")
    write(here.queue, "old", 1)
    finish(here.queue, "old")
    here.roster.report(REPORT)
    here.roster.report(replace(REPORT, name="tokenize-3", kind="tokenize", state="starting"))
    source = SourceState(connected=False, pid=7, rss_bytes=900, reason="away")
    live = {"cam": Progress(chunk=0, t1=4.0, source=source)}
    for n in (1, 2):  # the job has just moved, and both still tell of it
        here.roster.report(replace(REPORT, name=f"decode-{n}", kind="decode", jobs=live))
    here.roster.report(replace(REPORT, name=CONTROLLER, kind=CONTROLLER))
    here.roster.publish("retention", json.dumps({"trimmed": 7, "deleted": 2}))
    seen = scrape(here)
    expected = {
        "streamer_redis_up{}": 1,
        "streamer_jobs{state=running}": 1,
        "streamer_jobs{state=ended}": 1,
        "streamer_jobs{state=failed}": 0,
        "streamer_jobs_fit{}": 15,
        "streamer_stream_lag_seconds{job=cam}": 0,
        "streamer_patches_total{job=cam}": 960,
        "streamer_patches_kept_total{job=cam,stage=pixel}": 240,
        "streamer_tokens_total{job=cam}": 240,
        "streamer_tokens_kept_total{job=cam,stage=token}": 60,
        "streamer_captions_total{job=cam}": 2,
        "streamer_chunks_total{job=cam}": 2,
        "streamer_workers{kind=caption,state=ready}": 1,
        "streamer_workers{kind=tokenize,state=starting}": 1,
        "streamer_workers{kind=decode,state=ready}": 2,
        "streamer_source_connected{job=cam}": 0,
        "streamer_source_resident_bytes{job=cam}": 900,
        "streamer_level{job=cam}": 0,
        "streamer_unchanged_total{job=cam}": 0,
        "streamer_asked_total{job=cam}": 0,
        "streamer_reconnects_total{job=cam}": 0,
        "streamer_gaps_total{job=cam}": 0,
        "streamer_skipped_total{job=cam}": 0,
        "streamer_levels_total{job=cam}": 0,
        "streamer_caption_batch{worker=caption-1}": 2.5,
        "streamer_worker_busy_seconds_total{kind=caption,worker=caption-1}": 10,
        "streamer_worker_backlog{kind=caption,worker=caption-1}": 2,
        "streamer_worker_resident_bytes{kind=controller,worker=controller}": 1000,
        "streamer_chunk_latency_seconds_bucket{kind=caption,le=0.05,worker=caption-1}": 1,
        "streamer_chunk_latency_seconds_bucket{kind=caption,le=0.2,worker=caption-1}": 3,
        "streamer_chunk_latency_seconds_bucket{kind=caption,le=60.0,worker=caption-1}": 3,
        "streamer_chunk_latency_seconds_bucket{kind=caption,le=+Inf,worker=caption-1}": 7,
        "streamer_chunk_latency_seconds_sum{kind=caption,worker=caption-1}": 3,
        "streamer_event_subscribers{}": 0,
        "streamer_entries_trimmed_total{}": 7,
        "streamer_entries_archived_total{}": 0,
        "streamer_entries_lost_total{}": 0,
        "streamer_archive_bytes_total{}": 0,
        "streamer_archive_failures_total{}": 0,
        "streamer_jobs_expired_total{}": 2,
    }
    assert {name: seen.get(name) for name in expected} == expected
    assert not any("job=old" in name for name in seen)  # series end with their job


def test_requests_are_counted_by_route() -> None:
    here = api()
    make_job(here.queue)
    for path in ("/v1/jobs/cam", "/v1/jobs/none", "/v1/jobs/other", "/made/up", "/?x=1"):
        here.client.get(path)
    here.client.request("BREW", "/v1/jobs")
    seen = {k: v for k, v in scrape(here).items() if k.startswith("streamer_http_requests_total")}
    assert {k.partition("{")[2]: v for k, v in seen.items()} == {
        "method=GET,route=/v1/jobs/{job},status=200}": 1,
        "method=GET,route=/v1/jobs/{job},status=404}": 2,
        "method=GET,route=none,status=404}": 1,
        "method=GET,route=/,status=200}": 1,
        "method=other,route=/v1/jobs,status=405}": 1,
    }
    times = "streamer_http_request_seconds_{}{{{}method=GET,route=/v1/jobs/{{job}}}}"
    assert scrape(here)[times.format("count", "")] == 3
    assert scrape(here)[times.format("bucket", "le=+Inf,")] == 3


def test_while_redis_is_away_the_rest_is_told() -> None:
    seen = scrape(Api(Settings(), AWAY))
    assert seen["streamer_redis_up{}"] == 0
    assert not any(name.startswith("streamer_jobs") for name in seen)


def test_scrapes_may_meet() -> None:
    here = api()
    scrapers = [threading.Thread(target=scrape, args=(here,)) for _ in range(4)]
    for scraper in scrapers:
        scraper.start()
    for scraper in scrapers:
        scraper.join(10)
    assert scrape(here)["streamer_redis_up{}"] == 1
