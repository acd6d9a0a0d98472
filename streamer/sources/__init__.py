"""Sources: what a URL opens to, read as pictures sampled at even media times."""

from streamer.sources.guard import TRUSTING, FetchPolicy, check_url
from streamer.sources.info import Limits, StreamInfo
from streamer.sources.source import Source, open_source
from streamer.sources.url import absolute, redact

__all__ = [
    "TRUSTING",
    "FetchPolicy",
    "Limits",
    "Source",
    "StreamInfo",
    "absolute",
    "check_url",
    "open_source",
    "redact",
]
