"""A cluster of three nodes on this machine: one is lost, and every job finishes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster

from tests.service import Service, check_complete, service

pytestmark = pytest.mark.timeout(400)

POOL = '{"min": 2, "max": 2, "cpus": 1}'
WORKERS = [f"{kind}-{n}" for kind in ("decode", "tokenize", "caption") for n in (1, 2)]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that has no room for workers, since it is not to be lost, and two nodes that do."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=len(WORKERS))
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def running(cluster: Cluster, tmp_path: Path, demo_file: Path) -> Iterator[Service]:
    with service(
        tmp_path / "redis",
        demo_file.parent,
        RAY__ADDRESS=cluster.address,
        WORKERS__SILENT_S="5",
        POOLS__DECODE=POOL,
        POOLS__TOKENIZE=POOL,
        POOLS__CAPTION=POOL,
    ) as running:
        yield running


def node_of(pid: int) -> int:
    """The raylet that a worker belongs to."""
    return psutil.Process(pid).ppid()


def test_a_lost_node_loses_nothing(cluster: Cluster, running: Service, demo_file: Path) -> None:
    # Given workers on several nodes, and jobs of two tenants spread over them
    running.wait_ready(WORKERS)
    homes = {name: node_of(report.pid) for name, report in running.workers().items()}
    assert len({homes[name] for name in WORKERS}) >= 2
    slowly: dict[str, Any] = {"source": {"fps": 2, "chunk_s": 0.5, "ahead": 4}}
    jobs = [running.submit(demo_file, tenant=f"tenant{n % 2}", **slowly) for n in range(4)]
    running.wait(lambda: running.said(jobs[0]) >= 5, "the fifth caption")
    placed = running.roster.placements()
    assert {placed[job].tokenize for job in jobs} == {"tokenize-1", "tokenize-2"}
    # When the node with the first tokenizer is lost
    victim = next(n for n in cluster.list_all_nodes() if raylet_of(n) == homes["tokenize-1"])
    lost = [name for name in WORKERS if homes[name] == homes["tokenize-1"]]
    in_flight = sum(running.in_flight(job) for job in jobs)
    cluster.remove_node(victim, allow_graceful=False)
    # Then every job finishes, each chunk once
    running.wait_finished(jobs)
    for job in jobs:
        status = running.status(job)
        assert (status.state, status.error) == ("ended", None)
        check_complete(running.events(job), status.last_chunk)
    print(f"lost {lost} with {in_flight} chunks in flight")  # noqa: T201  # shown with -rP
    # And the lost workers come back elsewhere
    for name in lost:
        running.wait(partial(alive, running, name), f"that {name} is back")
        assert node_of(running.workers()[name].pid) != homes["tokenize-1"]


def alive(running: Service, name: str) -> bool:
    report = running.workers().get(name)
    return report is not None and report.state == "ready" and psutil.pid_exists(report.pid)


def raylet_of(node: object) -> int:
    """The process of a node's raylet."""
    processes = node.all_processes["raylet"]  # type: ignore[attr-defined]  # Ray is untyped
    return int(processes[0].process.pid)
