"""Sources: what a URL opens to, read as pictures sampled at even media times."""

from streamer.sources.fetch import redact
from streamer.sources.info import Limits, StreamInfo
from streamer.sources.source import Source, open_source

__all__ = ["Limits", "Source", "StreamInfo", "open_source", "redact"]
