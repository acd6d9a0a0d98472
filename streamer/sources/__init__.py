"""Sources: what a URL opens to, read as pictures sampled at even media times."""

from streamer.sources.fetch import absolute, redact
from streamer.sources.info import Limits, StreamInfo
from streamer.sources.source import Source, open_source

__all__ = ["Limits", "Source", "StreamInfo", "absolute", "open_source", "redact"]
