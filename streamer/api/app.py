"""The application: routes, and what stands before all of them."""

from __future__ import annotations

from anyio import CapacityLimiter
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from streamer import __version__
from streamer.adapters.asks import Asks
from streamer.adapters.clock import SYSTEM_CLOCK, Clock
from streamer.adapters.queue import Queue
from streamer.adapters.roster import Roster
from streamer.adapters.uploads import Uploads
from streamer.api import asks as asking
from streamer.api import captions, chat, events, health, jobs, metrics, questions, workers
from streamer.api.bodies import Bodies
from streamer.api.http_metrics import HttpCounts, HttpMetrics
from streamer.api.local_only import LocalOnly
from streamer.api.openapi import DESCRIPTION, TAGS, describe
from streamer.api.page import watch_page
from streamer.api.problems import handle_errors
from streamer.api.service import PastEvents, Service
from streamer.api.signs import Signs
from streamer.api.tail import Tail
from streamer.config import Settings
from streamer.sources.guard import FetchPolicy

READERS = 8


def create_app(
    settings: Settings,
    queue: Queue,
    roster: Roster,
    *,
    asks: Asks,
    uploads: Uploads,
    archive: PastEvents | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> FastAPI:
    """The API over a queue and a roster; `app.state.service` is what its routes share."""
    fetch = settings.fetch
    service = Service(
        settings=settings,
        queue=queue,
        roster=roster,
        clock=clock,
        tail=Tail(queue, clock),
        signs=Signs(clock, silent_s=settings.workers.silent_s),
        policy=FetchPolicy(
            networks=fetch.allow_networks, paths=tuple(str(path) for path in fetch.allow_paths)
        ),
        readers=CapacityLimiter(READERS),
        asks=asks,
        uploads=uploads,
        archive=archive,
    )
    app = FastAPI(
        title="Streamer",
        summary="A video URL becomes a stream of captions, at the price of change.",
        description=DESCRIPTION,
        version=__version__,
        openapi_tags=TAGS,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = service
    app.state.metrics = CollectorRegistry()
    app.state.metrics.register(metrics.ServiceCollector(service))
    counts = HttpCounts()
    app.state.metrics.register(counts)
    for routes in (jobs, questions, asking, events, captions, chat, workers, health, metrics):
        app.include_router(routes.router)
    app.include_router(watch_page())
    handle_errors(app)
    describe(app)
    limits = settings.api
    app.add_middleware(Bodies, max_upload_bytes=limits.max_upload_bytes, tokens=limits.tokens)
    if not limits.tokens:
        app.add_middleware(LocalOnly, host=limits.host)
    app.add_middleware(HttpMetrics, counts=counts, clock=clock)
    return app
