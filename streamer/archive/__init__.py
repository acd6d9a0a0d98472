"""What has left Redis, in files that any tool reads: docs/wire.md describes them."""

from streamer.archive.archive import Archive

__all__ = ["Archive"]
