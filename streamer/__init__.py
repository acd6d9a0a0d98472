"""Streamer: a video URL becomes a stream of captions, at the price of change."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamer.client import Client
    from streamer.errors import ServiceError, StreamerError
    from streamer.events import Event
    from streamer.jobs import Question
    from streamer.views import Answer, JobView, PoolView, Status, WorkerView

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Client",
    "Event",
    "JobView",
    "PoolView",
    "Question",
    "ServiceError",
    "Status",
    "StreamerError",
    "WorkerView",
]

_HOMES = {
    "Answer": "views",
    "Client": "client",
    "Event": "events",
    "JobView": "views",
    "PoolView": "views",
    "Question": "jobs",
    "ServiceError": "errors",
    "Status": "views",
    "StreamerError": "errors",
    "WorkerView": "views",
}


def __getattr__(name: str) -> object:
    """A public name, from its module when it is first asked for: to import this costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
