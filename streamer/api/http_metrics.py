"""Requests, counted in this process."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamer.adapters.clock import Clock

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
NO_ROUTE = "none"
BUCKETS_S = (0.005, 0.02, 0.1, 0.5, 2.0, 5.0)


class HttpCounts(Collector):
    """Answers by route, never by path: paths hold ids, and strangers make them up."""

    def __init__(self) -> None:
        self._answers: Counter[tuple[str, str, str]] = Counter()
        self._seconds: dict[tuple[str, str], float] = {}
        self._buckets: dict[tuple[str, str], list[int]] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answer, whose first byte took so long."""
        known = method if method in METHODS else "other"
        self._answers[known, route, str(status)] += 1
        self._seconds[known, route] = self._seconds.get((known, route), 0.0) + seconds
        buckets = self._buckets.setdefault((known, route), [0] * (len(BUCKETS_S) + 1))
        buckets[bisect_left(BUCKETS_S, seconds)] += 1

    def collect(self) -> Iterator[Metric]:
        answers = CounterMetricFamily(
            "streamer_http_requests", "Requests answered.", labels=["method", "route", "status"]
        )
        for labels, count in list(self._answers.items()):
            answers.add_metric(labels, count)
        times = HistogramMetricFamily(
            "streamer_http_request_seconds",
            "Time until an answer began; event streams last on.",
            labels=["method", "route"],
        )
        for route, counts in list(self._buckets.items()):
            times.add_metric(route, buckets(BUCKETS_S, counts), self._seconds[route])
        yield from (answers, times)


class HttpMetrics:
    """Counts every answer."""

    def __init__(self, app: ASGIApp, counts: HttpCounts, clock: Clock) -> None:
        self.app = app
        self.counts = counts
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = self.clock.monotonic()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", NO_ROUTE)
                seconds = self.clock.monotonic() - started
                self.counts.count(scope["method"], route, message["status"], seconds)
            await send(message)

        await self.app(scope, receive, counted)


def buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Prometheus' buckets, each with all below it, from counts of each and beyond."""
    names = [*(str(bound) for bound in bounds), "+Inf"]
    return list(zip(names, map(float, accumulate(counts)), strict=True))
