"""What has left Redis, in files that any tool reads: docs/wire.md describes them."""

from streamer.archive.archive import Archive, archived_as

__all__ = ["Archive", "archived_as"]
