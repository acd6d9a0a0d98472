"""The keeper: makes sure of the controller, which looks after everything else on Ray."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import structlog

from streamer import __version__
from streamer.actors.controller import Fleet
from streamer.adapters.clock import SYSTEM_CLOCK, Clock
from streamer.adapters.roster import Roster
from streamer.archive import Archive
from streamer.config import Settings
from streamer.errors import ConfigError, QueueError
from streamer.workers import CONTROLLER

STEP_S = 1.0
LATE_S = 3.0
"""A step so long after the one before waited for Redis, and so did the controller's report."""

log = structlog.get_logger(__name__)


class Keeper:
    """Starts the controller, and starts it again when it is gone or gives no sign of life."""

    def __init__(self, settings: Settings, roster: Roster, fleet: Fleet, clock: Clock) -> None:
        self.limits = settings.workers
        self.fingerprint = _fingerprint(settings)
        self.roster = roster
        self.fleet = fleet
        self.clock = clock
        self.since = self.looked_at = clock.monotonic()
        self.last: tuple[str, int] | None = None
        self.heard = False

    def begin(self) -> None:
        """Takes over: what runs with other settings is stopped, to be started with ours."""
        if self.roster.published("settings") != self.fingerprint:
            # the controller first: it would start the others again, with its own settings
            for name in sorted(self.fleet.names(), key=lambda name: (name != CONTROLLER, name)):
                log.info("worker_stopped", worker=name)
                self.fleet.stop(name)
            self.roster.publish("settings", self.fingerprint)
        report = self.roster.reports().get(CONTROLLER)
        self.last = (report.boot, report.beat) if report else None
        self.step()

    def step(self) -> None:
        """Looks after the controller once."""
        report = self.roster.reports().get(CONTROLLER)
        now = self.clock.monotonic()
        late_s, self.looked_at = now - self.looked_at, now
        if late_s > LATE_S:
            self.since += late_s
        if CONTROLLER not in self.fleet.names():
            log.info("worker_started", worker=CONTROLLER)
            self.fleet.start(CONTROLLER)
            self.since, self.heard = now, False
        if report and (report.boot, report.beat) != self.last:
            self.last = (report.boot, report.beat)
            self.since, self.heard = now, True
        silent_s = now - self.since
        if silent_s > (self.limits.silent_s if self.heard else self.limits.starting_s):
            log.warning("worker_hung", worker=CONTROLLER, silent_s=silent_s)
            self.fleet.restart(CONTROLLER)
            self.since, self.heard = now, False


def keep(settings: Settings) -> None:
    """Starts Ray here, or joins the cluster of `ray.address`, and keeps the service going on it.

    Ends only by an exception: StreamerError, or what stops the process. A Ray started here ends
    with it; workers in a cluster that was joined go on.
    """
    if settings.retention.archive is not None:
        Archive(settings.retention.archive)  # what is wrong with it is told here, not by a worker
    # its default of 60 s is how long a lost head would go unnoticed
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "20")
    if settings.ray.address is not None:
        _bring_token()
    from streamer.actors.deploy import RayFleet
    from streamer.actors.ray_cluster import join_ray, start_ray, stop_ray
    from streamer.adapters.redis_client import connect
    from streamer.adapters.redis_roster import RedisRoster
    from streamer.sources.guard import FetchPolicy

    if settings.queue.url is None:
        raise ConfigError(
            "queue.url: the workers need the URL of a Redis, e.g. redis://host:6379/0"
        )
    policy = FetchPolicy(
        networks=settings.fetch.allow_networks,
        paths=tuple(str(path) for path in settings.fetch.allow_paths),
    )
    roster = RedisRoster(connect(settings.queue.url))
    with ExitStack() as cleanup:
        if settings.ray.address is None:
            folder = cleanup.enter_context(
                tempfile.TemporaryDirectory(prefix="streamer-", ignore_cleanup_errors=True)
            )
            cleanup.callback(stop_ray)
            start_ray(folder, log_to_driver=True)
        else:
            if node := join_ray(settings.ray.address):
                cleanup.callback(node.kill)
            cleanup.callback(stop_ray)
        keeper = Keeper(settings, roster, RayFleet(settings, policy), SYSTEM_CLOCK)
        keeper.begin()
        while True:
            SYSTEM_CLOCK.sleep(STEP_S)
            try:
                keeper.step()
            except QueueError as exc:
                log.warning("queue_lost", worker="keeper", reason=str(exc))


def _bring_token() -> None:
    """A head that finds a token asks for it; Ray sends its own only if told so when imported."""
    if Path.home().joinpath(".ray", "auth_token").exists() or "RAY_AUTH_TOKEN" in os.environ:
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _fingerprint(settings: Settings) -> str:
    """Of all that the workers are started with."""
    told = settings.model_dump_json(exclude={"api", "ray", "log"})
    return hashlib.sha256(f"{__version__} {told}".encode()).hexdigest()[:16]
