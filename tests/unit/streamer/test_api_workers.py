"""Workers over HTTP: who lives, who is busy, how many there shall be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streamer.adapters.clock import ManualClock
from streamer.api.signs import Signs
from streamer.config import Settings
from streamer.views import Status, reader
from streamer.workers import CONTROLLER, Progress, Size, WorkerReport
from tests.unit.streamer.api_jobs import Api, api

REPORT = WorkerReport(
    name="tokenize-2",
    kind="tokenize",
    boot="a",
    beat=1,
    node="10.0.0.5",
    pid=4711,
    rss_bytes=1 << 30,
    backlog=3,
    chunks=12,
    jobs={"cam": Progress(chunk=12, t1=24.0), "bar": Progress(chunk=1, t1=2.0)},
)


def test_workers_are_shown_by_pool() -> None:
    here = api(pools={"tokenize": {"min": 1, "max": 4}})
    here.roster.report(REPORT)
    here.roster.report(replace(REPORT, name="tokenize-10", jobs={}))
    here.roster.report(replace(REPORT, name="tokenize-1", state="starting", error="no model"))
    here.roster.report(replace(REPORT, name=CONTROLLER, kind=CONTROLLER))
    status = reader(Status)(here.client.get("/v1/workers").text)
    assert list(status.pools) == ["decode", "tokenize", "caption"]
    pool = status.pools["tokenize"]
    assert (pool.min, pool.max) == (1, 4)
    assert [worker.name for worker in pool.workers] == ["tokenize-1", "tokenize-2", "tokenize-10"]
    assert (pool.workers[0].state, pool.workers[0].error) == ("starting", "no model")
    worker = pool.workers[1]
    assert (worker.state, worker.node, worker.pid) == ("ready", "10.0.0.5", 4711)
    assert (worker.backlog, worker.chunks, worker.rss_bytes) == (3, 12, 1 << 30)
    assert worker.jobs == ("bar", "cam")


def test_pools_are_scaled_one_by_one() -> None:
    here = api()
    answer = here.client.patch("/v1/pools", json={"tokenize": 2, "decode": {"min": 0, "max": 3}})
    assert answer.json() == {
        "decode": {"min": 0, "max": 3},
        "tokenize": {"min": 2, "max": 2},
        "caption": {"min": 1, "max": 1},
    }
    assert here.roster.sizes() == {"decode": Size(min=0, max=3), "tokenize": Size(min=2, max=2)}
    here.client.patch("/v1/pools", json={"caption": 5})
    pools = here.client.get("/v1/workers").json()["pools"]
    assert [(pools[kind]["min"], pools[kind]["max"]) for kind in pools] == [(0, 3), (2, 2), (5, 5)]


@pytest.mark.parametrize(
    ("size", "field"),
    [
        (0, "decode.max"),
        (1001, "decode.min"),
        (-1, "decode.min"),
        (1.5, "decode"),
        ("2", "decode"),
        (True, "decode.min"),
        ({"min": 2, "max": 1}, "decode"),
        ({"min": 1}, "decode.max"),
        ({"min": 0, "max": 0}, "decode.max"),
        ({"min": 1, "max": 1, "x": 1}, "decode.x"),
    ],
)
def test_a_size_that_cannot_be_is_refused(size: Any, field: str) -> None:
    here = api()
    answer = here.client.patch("/v1/pools", json={"decode": size})
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert here.roster.sizes() == {}


def test_readiness_tells_of_the_controller_and_the_workers() -> None:
    clock = ManualClock()
    here = Api(Settings(), clock=clock)
    workers = {"decode": 0, "tokenize": 0, "caption": 0}
    assert here.client.get("/readyz").json() == {
        "redis": "ready",
        "controller": "absent",
        "workers": workers,
    }
    here.roster.report(REPORT)
    here.roster.report(replace(REPORT, name="decode-1", kind="decode", state="starting"))
    here.roster.report(replace(REPORT, name=CONTROLLER, kind=CONTROLLER))
    ready = here.client.get("/readyz").json()
    assert (ready["controller"], ready["workers"]) == ("ready", workers | {"tokenize": 1})
    clock.advance(11)
    ready = here.client.get("/readyz").json()
    assert (ready["controller"], ready["workers"]) == ("silent", workers)


def test_a_worker_is_silent_when_its_reports_do_not_change() -> None:
    clock = ManualClock()
    signs = Signs(clock, silent_s=10)

    def look(beat: int, boot: str = "a") -> tuple[str, float]:
        sign = signs.look({"w": replace(REPORT, name="w", beat=beat, boot=boot)})["w"]
        return sign.state, sign.age_s

    assert look(7) == ("ready", 0)
    clock.advance(8)
    assert look(7) == ("ready", 8)
    clock.advance(8)
    assert look(7) == ("silent", 16)
    assert look(8) == ("ready", 0)
    clock.advance(30)
    assert look(8) == ("silent", 30)
    assert look(8, boot="b") == ("ready", 0)


def test_how_busy_a_worker_is_comes_from_two_looks() -> None:
    clock = ManualClock()
    signs = Signs(clock, silent_s=10)

    def busy(busy_s: float, step_s: float) -> float:
        report = replace(REPORT, name="w", busy_s=busy_s, step_s=step_s)
        return signs.look({"w": report})["w"].busy

    assert busy(100, 0) == 0
    clock.advance(4)
    assert busy(101, 0) == 0.25
    clock.advance(1)
    assert busy(102, 0) == 0.25  # too soon for a new share
    clock.advance(3)
    assert busy(102, 3) == 1  # in a long piece of work
    clock.advance(4)
    assert busy(105, 0) == 0
    assert signs.look({}) == {}
    assert busy(105, 1) == 1  # seen for the first time, at work
