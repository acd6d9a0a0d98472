"""Ray itself: a cluster of this process's own, or one that runs already."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sysconfig
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import ray

from streamer.adapters.child import Child
from streamer.errors import StreamerError

NAMESPACE = "streamer"
LONGEST_FOLDER = 32


def start_ray(folder: str, *, log_to_driver: bool = False) -> None:
    """A local Ray of this process's own, without a dashboard, its files in `folder`.

    log_to_driver: what the workers log comes out of this process too.
    """
    _init(
        address="local",
        # its sockets lie there, and a socket's path holds 107 bytes at most
        _temp_dir=folder if len(folder) <= LONGEST_FOLDER else None,
        include_dashboard=False,
        log_to_driver=log_to_driver,
    )


def join_ray(address: str) -> Child | None:
    """Joins the running cluster at `address`: host:port, or auto for that of this machine's node.

    Where this machine has no node of that cluster yet, one is started; it is returned, and ends
    with this process. Raises StreamerError when the cluster cannot be reached.
    """
    here = address if address == "auto" else _node_here(address)
    node = None if here else _start_node(address)
    try:
        _init(address=here or address)
    except (ConnectionError, RuntimeError, ValueError) as exc:
        if node is not None:
            node.kill()
        raise StreamerError(f"ray.address: {address}: {_cause(exc)}") from exc
    return node


def _node_here(address: str) -> str | None:
    """The cluster's address in the words of its node on this machine, if there is one."""
    wanted, port = _resolved(address), address.rpartition(":")[2]
    local = any(ip_address(ip.partition("%")[0]).is_loopback for ip, _ in wanted)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile, or is none of ours
            continue
        if command[0].endswith(b"raylet"):
            told = [part for part in command if part.startswith(b"--gcs-address=")]
            head = told[0].partition(b"=")[2].decode() if told else ""
            if told and (_resolved(head) & wanted or (local and head.endswith(f":{port}"))):
                return head
    return None


def _resolved(address: str) -> set[tuple[str, str]]:
    """Every (IP, port) that host:port stands for."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise StreamerError(f"ray.address: {address}: its host is not known: {exc}") from exc
    return {(str(place[4][0]), port) for place in found}


def _start_node(address: str) -> Child:
    command = Path(sysconfig.get_path("scripts"), "ray")
    try:
        return Child(
            [str(command), "start", f"--address={address}", "--block", "--disable-usage-stats"], {}
        )
    except OSError as exc:
        raise StreamerError(f"no Ray node can be started here: {exc}") from exc


def stop_ray() -> None:
    """Ends the local Ray and its processes, or leaves the cluster."""
    ray.shutdown()


def _init(**options: Any) -> None:
    """Connects, and leaves it to this process what a signal means."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    ray.init(namespace=NAMESPACE, logging_level=logging.ERROR, **options)
    for number, handler in before.items():
        signal.signal(number, handler)


def _cause(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__
