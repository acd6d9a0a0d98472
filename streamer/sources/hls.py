"""HLS: the segments of a playlist as one file that is read in order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from streamer.errors import SourceError
from streamer.sources.fetch import Fetcher, HttpFile
from streamer.sources.pieces import PiecesFile
from streamer.sources.playlist import (
    MARK,
    Part,
    Playlist,
    Variant,
    as_recording,
    parse_playlist,
)
from streamer.sources.url import redact

_PIECE = 1 << 16
_KEY_BYTES = 16
_MOST_KEYS = 64  # that are remembered: a live source names new ones for ever


def is_playlist(file: HttpFile) -> bool:
    """Whether an unread file is a playlist. Raises: SourceError when it cannot be read."""
    return file.peek(len(MARK)) == MARK


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """A playlist of segments, and where it was found."""

    playlist: Playlist
    url: httpx.URL
    """What is to be asked for its next version, if it is live."""
    shown: str


def find_playlist(file: HttpFile, url: httpx.URL, fetcher: Fetcher, *, shown: str) -> Found:
    """The segments that the playlist at a URL names, perhaps through a playlist of variants.

    Raises: SourceError.
    """
    found = _parse(file, fetcher, shown)
    if isinstance(found, Variant):
        url, shown = found.url, redact(str(found.url))
        found = _parse(HttpFile(url, fetcher, shown=shown), fetcher, shown)
    if isinstance(found, Variant):
        raise SourceError(f"{shown}: is a playlist of playlists of playlists; give one of them")
    return Found(playlist=found, url=url, shown=shown)


def read_playlist(file: HttpFile, fetcher: Fetcher, *, shown: str) -> Playlist:
    """The recording that a playlist names, perhaps through a playlist of variants.

    Raises: SourceError.
    """
    found = find_playlist(file, file.url, fetcher, shown=shown)
    return as_recording(found.playlist, found.shown)


def _parse(file: HttpFile, fetcher: Fetcher, shown: str) -> Playlist | Variant:
    try:
        if not is_playlist(file):
            raise SourceError(f"{shown}: is not a playlist, though another one says so; check it")
        text = file.read_all(fetcher.limits.max_playlist_bytes).decode(errors="replace")
        return parse_playlist(text, file.url, shown, fetcher.limits)
    finally:
        file.close()


class HlsFile(PiecesFile):
    """The media of a playlist from one segment on: headers, segments, decrypted, in order."""

    def __init__(self, playlist: Playlist, fetcher: Fetcher, *, start: int = 0) -> None:
        super().__init__(self._read_on(start))
        self._playlist = playlist
        self._parts = PartReader(fetcher)

    def close(self) -> None:
        super().close()
        self._parts.close()

    def _read_on(self, start: int) -> Iterator[bytes]:
        init: Part | None = None
        for segment in self._playlist.segments[start:]:
            if segment.init is not None and segment.init != init:
                init = segment.init
                yield from self._parts.read(init)
            yield from self._parts.read(segment.part)


class PartReader:
    """The bytes of parts as they come, decrypted."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._file: HttpFile | None = None
        self._file_url: httpx.URL | None = None
        self._keys: dict[httpx.URL, bytes] = {}

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self, part: Part) -> Iterator[bytes]:
        """Pieces of a part. Raises: SourceError."""
        if part.key is None:
            yield from self._fetch(part)
            return
        # takes long to import, and few need it
        from cryptography.hazmat.primitives.ciphers import Cipher
        from cryptography.hazmat.primitives.ciphers.algorithms import AES
        from cryptography.hazmat.primitives.ciphers.modes import CBC
        from cryptography.hazmat.primitives.padding import PKCS7

        opener = Cipher(AES(self._key(part.key.url)), CBC(part.key.iv)).decryptor()
        padding = PKCS7(128).unpadder()
        try:
            for piece in self._fetch(part):
                yield padding.update(opener.update(piece))
            yield padding.update(opener.finalize()) + padding.finalize()
        except ValueError as exc:
            raise SourceError(
                f"{redact(str(part.url))}: cannot be decrypted with the key that its playlist "
                f"names; check both"
            ) from exc

    def _key(self, url: httpx.URL) -> bytes:
        if url not in self._keys:
            shown = redact(str(url))
            file = HttpFile(url, self._fetcher, shown=shown)
            try:
                key = file.read_all(_KEY_BYTES)
            finally:
                file.close()
            if len(key) != _KEY_BYTES:
                raise SourceError(f"{shown}: is no key of {_KEY_BYTES} bytes; check the playlist")
            while len(self._keys) >= _MOST_KEYS:
                del self._keys[next(iter(self._keys))]
            self._keys[url] = key
        return self._keys[url]

    def _fetch(self, part: Part) -> Iterator[bytes]:
        shown = redact(str(part.url))
        file = self._at(part, shown)
        left = part.length
        while left is None or left > 0:
            piece = file.read(_PIECE if left is None else min(_PIECE, left))
            if not piece:
                break
            if left is not None:
                left -= len(piece)
            yield piece
        if file.failure is not None:
            raise file.failure
        if left:
            raise SourceError(f"{shown}: ends {left} bytes too early; check the playlist")

    def _at(self, part: Part, shown: str) -> HttpFile:
        """The resource of a part, to be read from the part's first byte on.

        One that holds many parts stays open from part to part.
        """
        file = self._file
        if file is None or self._file_url != part.url or not file.seekable():
            self.close()
            self._file = file = HttpFile(part.url, self._fetcher, shown=shown, first=part.first)
            self._file_url = part.url
        elif file.tell() != part.first:
            file.seek(part.first)
        return file


def segment_at(playlist: Playlist, t: float) -> int:
    """The segment that plays at a time, by the playlist."""
    starts = [segment.start_s for segment in playlist.segments]
    return max(0, bisect_right(starts, t) - 1)
