"""Live sources: what goes on unread, for ever."""

from __future__ import annotations

from contextlib import closing

from streamer.sources.fetch import Fetcher
from streamer.sources.guard import FetchPolicy, local_path
from streamer.sources.info import Limits
from streamer.sources.live import http
from streamer.sources.live.source import LiveOptions, LiveSource
from streamer.sources.transport import GuardedTransport
from streamer.sources.url import STREAMS, scheme_of

__all__ = ["LiveOptions", "LiveSource", "is_live"]


def is_live(url: str, wanted: bool | None, *, limits: Limits, policy: FetchPolicy) -> bool:
    """Whether a source goes on unread: as `wanted`, or as its URL and its server tell.

    Raises: SourceError when the server cannot be asked.
    """
    if scheme_of(url) in STREAMS:
        return True
    if wanted is not None:
        return wanted
    if local_path(url, policy) is not None:
        return False
    with closing(GuardedTransport(policy)) as transport:
        return http.is_live(url, Fetcher(limits, transport))
