"""Values about a source: what it is, and how much of it may be taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """What a source turned out to be."""

    width: int
    height: int
    """Size of the pictures as they are handed out: upright, with square pixels."""
    codec: str
    duration_s: float | None
    """What the file says, from the first picture; None when it says nothing plausible."""
    decoder: Literal["decord", "pyav"]
    fallback_reason: str | None
    """Why decord does not read this source; None when it does, or when PyAV was asked for."""
    seekable: bool
    """Whether the container can be entered at a time; otherwise a later start reads from 0 on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what one source may cost."""

    connect_s: float = 5.0
    read_s: float = 10.0
    """Longest silence of a server; less than 1 KiB/s for three times as long fails too."""
    max_redirects: int = 5
    max_bytes: int = 4 << 30
    """Bytes taken from servers by one reading of the source, repeated ranges included."""
    max_playlist_bytes: int = 8 << 20
    max_segments: int = 20_000
    """Segments, headers and keys that a playlist names."""
    max_pixels: int = 8192 * 4320
    """Width times height of a picture."""
    max_hold_s: float = 10.0
    """Longest time a picture stands for, unless the declared duration covers the next one."""
    threads: int = 1
    """Threads of the decoder."""
