"""HLS playlists (RFC 8216): their text to what has to be fetched, of recordings and live ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import httpx

from streamer.errors import SourceError
from streamer.sources.info import Limits
from streamer.sources.url import follow

MARK = b"#EXTM3U"
"""How a playlist begins."""

_ENOUGH_LINES = 480
_SOUND = re.compile(r"(mp4a|ac-3|ec-3|opus|flac|vorbis)\b", re.IGNORECASE)
_ATTRIBUTE = re.compile(r'\s*([A-Z0-9-]+)=("[^"]*"|[^,]*)(?:,|$)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """How a part is encrypted: AES-128 in CBC mode."""

    url: httpx.URL
    iv: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes to be fetched: of one resource, all or `length` of them from `first` on."""

    url: httpx.URL
    first: int = 0
    length: int | None = None
    key: Key | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A piece of the media, and the header it is read with if it has none of its own."""

    part: Part
    init: Part | None
    start_s: float
    """When it begins, by the playlist: from the first segment on."""
    duration_s: float
    number: int
    """Its media sequence number: the same in every version of a live playlist."""
    recording: int
    """Its discontinuity sequence number: segments with the same one share their clock."""
    breaks: bool
    """Whether it begins a recording: its clock or coding are not those of the one before."""
    gap: bool
    """Whether it is announced as missing (EXT-X-GAP)."""
    time_s: float | None
    """Unix time of its first picture, as the playlist dates it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Playlist:
    """Segments in order: all of a recording, or those that a live source offers at the moment."""

    segments: tuple[Segment, ...]
    duration_s: float
    first: int
    """The number of the first segment, or of the one that is to be the first."""
    target_s: float
    """The longest a segment is said to be."""
    ended: bool
    """Whether no segments will be added: always so for a recording."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One of several playlists of the same recording."""

    url: httpx.URL
    height: int
    """Lines of its pictures; 0 when they are not told."""
    bandwidth: int


def parse_playlist(text: str, base: httpx.URL, shown: str, limits: Limits) -> Playlist | Variant:
    """What a playlist at `base` holds; of a playlist of variants, the one to read.

    Raises: SourceError when it is damaged, or of a kind that is not supported.
    """
    return _Parser(base, shown, limits).parse(text)


def as_recording(playlist: Playlist, shown: str) -> Playlist:
    """The playlist without announced gaps, as one file that is read in order.

    Raises: SourceError when it is live, empty, or made of several recordings.
    """
    there = tuple(segment for segment in playlist.segments if not segment.gap)
    if len({segment.init for segment in there if segment.init is not None}) > 1:
        raise _several(shown, "under several headers (EXT-X-MAP)")
    if len({segment.recording for segment in there}) > 1:
        raise _several(shown, "from several recordings (EXT-X-DISCONTINUITY)")
    if not playlist.ended:
        raise SourceError(f"{shown}: is a live playlist, not a recording; read it as a live source")
    if not there:
        raise SourceError(f"{shown}: is a playlist without segments; check how it was written")
    return replace(playlist, segments=there)


def _several(shown: str, how: str) -> SourceError:
    return SourceError(
        f"{shown}: its pictures come {how}, which a recording may not; read it as a live source"
    )


def choose(variants: Sequence[Variant]) -> Variant:
    """The smallest with at least 480 lines, else the largest: more lines are thrown away later."""
    enough = [variant for variant in variants if variant.height >= _ENOUGH_LINES]
    if enough:
        return min(enough, key=lambda variant: (variant.height, variant.bandwidth))
    return max(variants, key=lambda variant: (variant.height, variant.bandwidth))


class _Parser:
    """Walks the lines of one playlist, once."""

    def __init__(self, base: httpx.URL, shown: str, limits: Limits) -> None:
        self._base = base
        self._shown = shown
        self._limits = limits
        self._line = ""
        self._variants: list[Variant] = []
        self._segments: list[Segment] = []
        self._at_s = 0.0
        # what tags say of the next URI
        self._stream: dict[str, str] | None = None
        self._duration_s: float | None = None
        self._range: tuple[int, int | None] | None = None
        self._gap = False
        self._breaks = False
        # what tags say from there on
        self._sequence = 0
        self._recording = 0
        self._time_s: float | None = None
        self._target_s = 0.0
        self._key_url: httpx.URL | None = None
        self._key_iv: bytes | None = None
        self._init: Part | None = None
        self._last: Part | None = None
        self._names_variants = False
        self._ended = False
        self._named = 0

    def parse(self, text: str) -> Playlist | Variant:
        for line in text.split("\n"):
            self._line = line.strip()
            if self._line.startswith("#EXT"):
                name, _, value = self._line.partition(":")
                self._tag(name, value)
            elif self._line and not self._line.startswith("#"):
                self._uri(self._line)
        if self._variants:
            return choose(self._variants)
        if self._names_variants:
            raise self._refusal("is a playlist of sound without video; give a URL with pictures")
        longest_s = max((segment.duration_s for segment in self._segments), default=0.0)
        return Playlist(
            segments=tuple(self._segments),
            duration_s=self._at_s,
            first=self._sequence - len(self._segments),
            target_s=self._target_s or longest_s or 1.0,
            ended=self._ended,
        )

    def _tag(self, name: str, value: str) -> None:
        match name:
            case "#EXT-X-STREAM-INF":
                self._stream, self._names_variants = self._attributes(value), True
            case "#EXTINF":
                self._duration_s = self._seconds(value.partition(",")[0])
            case "#EXT-X-BYTERANGE":
                self._range = self._bytes(value)
            case "#EXT-X-GAP":
                self._gap = True
            case "#EXT-X-KEY":
                self._lock(self._attributes(value))
            case "#EXT-X-MAP":
                self._init = self._header(self._attributes(value))
            case "#EXT-X-MEDIA-SEQUENCE":
                self._sequence = self._opening_number(value)
            case "#EXT-X-DISCONTINUITY-SEQUENCE":
                self._recording = self._opening_number(value)
            case "#EXT-X-TARGETDURATION":
                self._target_s = self._seconds(value)
            case "#EXT-X-PROGRAM-DATE-TIME":
                self._time_s = _unix(value)
            case "#EXT-X-ENDLIST":
                self._ended = True
            case "#EXT-X-DISCONTINUITY":
                self._recording += 1
                self._breaks, self._time_s = True, None

    def _uri(self, uri: str) -> None:
        if self._stream is not None:
            self._variant(uri, self._stream)
            self._stream = None
        elif self._duration_s is not None:
            self._segment(uri, self._duration_s)
            self._duration_s, self._range, self._gap, self._breaks = None, None, False, False

    def _variant(self, uri: str, told: dict[str, str]) -> None:
        codecs = [codec.strip() for codec in told.get("CODECS", "").split(",") if codec.strip()]
        if codecs and all(_SOUND.match(codec) for codec in codecs):
            return
        height = told.get("RESOLUTION", "").lower().partition("x")[2]
        self._variants.append(
            Variant(
                url=self._url(uri),
                height=self._number(height or "0"),
                bandwidth=self._number(told.get("BANDWIDTH", "0")),
            )
        )

    def _segment(self, uri: str, duration_s: float) -> None:
        part = self._part(uri, self._range, self._sequence.to_bytes(16, "big"))
        self._last = part
        self._segments.append(
            Segment(
                part=part,
                init=self._init,
                start_s=self._at_s,
                duration_s=duration_s,
                number=self._sequence,
                recording=self._recording,
                breaks=self._breaks,
                gap=self._gap,
                time_s=self._time_s,
            )
        )
        self._at_s += duration_s
        self._sequence += 1
        if self._time_s is not None:
            self._time_s += duration_s

    def _part(self, uri: str, span: tuple[int, int | None] | None, iv: bytes | None) -> Part:
        url = self._url(uri)
        length, first = span or (None, 0)
        if first is None:
            last = self._last
            if last is None or last.url != url or last.length is None:
                raise self._damaged()
            first = last.first + last.length
        key = None
        if self._key_url is not None:
            iv = self._key_iv or iv
            if iv is None:
                raise self._damaged()
            key = Key(url=self._key_url, iv=iv)
        return Part(url=url, first=first, length=length, key=key)

    def _header(self, told: dict[str, str]) -> Part:
        span = self._bytes(told["BYTERANGE"]) if "BYTERANGE" in told else None
        if span is not None:
            span = span[0], span[1] or 0
        return self._part(self._needed(told, "URI"), span, None)

    def _lock(self, told: dict[str, str]) -> None:
        self._key_url = self._key_iv = None
        method = self._needed(told, "METHOD")
        if method == "NONE":
            return
        managed = told.get("KEYFORMAT", "identity") != "identity"
        if method != "AES-128" or managed:
            if not re.fullmatch(r"[A-Z0-9-]{1,40}", method):
                raise self._damaged()
            raise self._refusal(
                f"is encrypted with {method}{' and managed keys' if managed else ''}, "
                f"which cannot be read; only AES-128 with a plain key can"
            )
        self._key_url = self._url(self._needed(told, "URI"))
        if iv := told.get("IV"):
            if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,32}", iv):
                raise self._damaged()
            self._key_iv = int(iv, 16).to_bytes(16, "big")

    def _attributes(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        at = 0
        while at < len(text):
            item = _ATTRIBUTE.match(text, at)
            if item is None:
                raise self._damaged()
            found[item[1]] = item[2].strip().strip('"')
            at = item.end()
        return found

    def _needed(self, told: dict[str, str], name: str) -> str:
        if not told.get(name):
            raise self._damaged()
        return told[name]

    def _bytes(self, text: str) -> tuple[int, int | None]:
        length, mark, first = text.strip().partition("@")
        return self._number(length), self._number(first) if mark else None

    def _number(self, text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text.strip()):
            raise self._damaged()
        return int(text)

    def _opening_number(self, text: str) -> int:
        """A number that the first segment has: later it would renumber those before."""
        if self._segments:
            raise self._damaged()
        return self._number(text)

    def _seconds(self, text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{0,18})?", text.strip()):
            raise self._damaged()
        return float(text)

    def _url(self, reference: str) -> httpx.URL:
        self._named += 1
        if self._named > self._limits.max_segments:
            raise self._refusal(
                f"names more than {self._limits.max_segments} segments and keys; "
                f"raise max_segments or take a shorter one"
            )
        return follow(self._base, reference)

    def _damaged(self) -> SourceError:
        tag = self._line.partition(":")[0][:40] if self._line.startswith("#") else "a URI"
        return self._refusal(f"the playlist is damaged at {tag}; check how it was written")

    def _refusal(self, what: str) -> SourceError:
        return SourceError(f"{self._shown}: {what}")


def _unix(text: str) -> float | None:
    """Unix time of an ISO 8601 date; None when it is none. Without a zone it is UTC."""
    try:
        date = datetime.fromisoformat(text.strip())
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
