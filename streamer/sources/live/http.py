"""Live sources over HTTP: playlists that change, answers without an end, files that grow."""

from __future__ import annotations

import io
from collections.abc import Iterator

import httpx

from streamer.adapters.clock import SYSTEM_CLOCK, Clock
from streamer.errors import SourceError
from streamer.sources.fetch import Fetcher, HttpFile, MediaFile, StatusRefused
from streamer.sources.hls import find_playlist, is_playlist
from streamer.sources.live.hls import HlsFeed, open_feed
from streamer.sources.live.pictures import MotionPictures
from streamer.sources.live.stretch import Stretch
from streamer.sources.url import SCHEME, http_url, redact

__all__ = ["HttpFeed", "Stretch", "is_live"]

_PICTURES = "multipart/x-mixed-replace"
_ENDLESS = {"video/mp2t", "video/x-flv", _PICTURES}
_EMPTY = 416
_AGAIN_S = 1.0
_PACKET = 188  # bytes of an MPEG transport stream, which can be entered at any packet
_BACK = 512 << 10  # how far it is gone back for pictures that can be decoded


def is_live(url: str, fetcher: Fetcher) -> bool:
    """Whether a server offers a source that goes on unread: a playlist that has not ended, or an
    answer without a length and of a kind that cameras and radios send.

    Raises: SourceError when that cannot be found out.
    """
    scheme = SCHEME.match(url)
    if scheme is None or scheme[1].lower() not in {"http", "https"}:
        return False
    asked, shown = http_url(url), redact(url)
    file = HttpFile(asked, fetcher, shown=shown)
    try:
        if is_playlist(file):
            return not find_playlist(file, asked, fetcher, shown=shown).playlist.ended
        return file.size is None and _sends_for_ever(file.headers)
    finally:
        file.close()


def _sends_for_ever(headers: httpx.Headers) -> bool:
    return _kind(headers) in _ENDLESS or any(name.startswith("icy-") for name in headers)


def _kind(headers: httpx.Headers) -> str:
    kind: str = headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower()


class HttpFeed:
    """What a live source over HTTP sends, in stretches. Holds its connections.

    `resume` is the `place` of an earlier feed: reading goes on right behind it, where the server
    still has that. What the earlier feed had read beyond its place comes again, with the same times
    by the media's own clock.
    """

    def __init__(
        self,
        url: str,
        fetcher: Fetcher,
        *,
        resume: str | None = None,
        again: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """again: the source was read before, be it that nobody knows up to where."""
        self._url = url
        self._fetcher = fetcher
        self._resume = resume
        self._again = again
        self._clock = clock
        self._reading: HlsFeed | _GrowingFile | None = None

    @property
    def place(self) -> str | None:
        """Behind what has surely been decoded; None where the source cannot be entered."""
        match self._reading:
            case HlsFeed(place=place):
                return self._resume if place is None else place.token()
            case _GrowingFile():
                return self._reading.token()
        return self._resume

    def stretches(self) -> Iterator[Stretch]:
        """Each is to be read to its end before the next; ends when the source says it is over.

        Raises: SourceError for trouble with the server, after which the source is to be opened
        again.
        """
        url, shown = http_url(self._url), redact(self._url)
        self._fetcher.renew()
        first = _GrowingFile.first(self._resume)
        if first:
            growing = _GrowingFile(url, self._fetcher, self._clock, shown=shown, first=first)
            yield from self._grow(growing, continuous=True)
            return
        file = HttpFile(url, self._fetcher, shown=shown)
        try:
            if is_playlist(file):
                self._reading = feed = open_feed(
                    file,
                    url,
                    self._fetcher,
                    self._clock,
                    shown=shown,
                    resume=self._resume,
                    again=self._again,
                )
                yield from feed.stretches()
            elif file.size is None:
                self._resume = None
                endless = _EndlessFile(file, _Window(self._fetcher, self._clock), shown)
                media: MediaFile = endless
                if _kind(file.headers) == _PICTURES:
                    media = MotionPictures(endless, self._clock, shown=shown)
                yield Stretch(file=media, missed_s=0.0, continuous=False)
                raise media.failure or endless.left()
            else:
                growing = _GrowingFile(url, self._fetcher, self._clock, shown=shown, file=file)
                yield from self._grow(growing, continuous=False)
        finally:
            file.close()

    def _grow(self, file: _GrowingFile, *, continuous: bool) -> Iterator[Stretch]:
        self._reading = file
        try:
            yield Stretch(file=file, missed_s=0.0, continuous=continuous)
            raise file.failure or file.left()
        finally:
            file.close()


class _Window:
    """Bounds of a fetcher that hold for a time, not for ever."""

    def __init__(self, fetcher: Fetcher, clock: Clock) -> None:
        self._fetcher = fetcher
        self._clock = clock
        self._until = -1.0

    def turn(self) -> None:
        now = self._clock.monotonic()
        if now >= self._until:
            self._fetcher.renew()
            self._until = now + self._fetcher.limits.read_s


class _Ordered:
    """A file that is read in order, on and on."""

    hint = ""
    failure: SourceError | None

    def __init__(self, shown: str) -> None:
        self.failure = None
        self._shown = shown
        self._position = 0

    def left(self) -> SourceError:
        """Why there is no next stretch, when this one was not read to its end."""
        return SourceError(f"{self._shown}: is one stretch, which was left; open it again")

    def seek(self, offset: int, whence: int = 0) -> int:
        raise io.UnsupportedOperation("live media is read in order")

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return False


class _EndlessFile(_Ordered):
    """An answer without an end; that it ends is trouble."""

    def __init__(self, file: HttpFile, window: _Window, shown: str) -> None:
        super().__init__(shown)
        self._file = file
        self._window = window

    def read(self, size: int = -1) -> bytes:
        if self.failure is not None:
            return b""
        self._window.turn()
        piece = self._file.read(size)
        self._position += len(piece)
        if not piece and size:
            self.failure = self._file.failure or SourceError(
                f"{self._shown}: the server ended the stream; open it again"
            )
        return piece

    def close(self) -> None:
        self._file.close()


class _GrowingFile(_Ordered):
    """A file that someone still writes to: at its end, more is waited for."""

    def __init__(
        self,
        url: httpx.URL,
        fetcher: Fetcher,
        clock: Clock,
        *,
        shown: str,
        first: int = 0,
        file: HttpFile | None = None,
    ) -> None:
        super().__init__(shown)
        self._url = url
        self._fetcher = fetcher
        self._clock = clock
        self._window = _Window(fetcher, clock)
        self._first = first
        self._file = file
        self._may_enter = first > 0
        if file is not None:
            start = file.peek(_PACKET + 1)
            self._may_enter = len(start) > _PACKET and start[0] == start[_PACKET] == 0x47

    @staticmethod
    def first(token: str | None) -> int:
        """The byte that a token leads to; 0 for one of something else."""
        kind, _, number = (token or "").partition(" ")
        return int(number) if kind == "bytes" and number.isdecimal() else 0

    def token(self) -> str | None:
        if not self._may_enter:
            return None
        at = max(0, self._first + self._position - _BACK)
        return f"bytes {at - at % _PACKET}"

    def read(self, size: int = -1) -> bytes:
        while size and self.failure is None:
            self._window.turn()
            try:
                piece = self._read(size)
            except SourceError as exc:
                self.failure = exc
                break
            if piece:
                self._position += len(piece)
                return piece
            self.close()
            self._clock.sleep(_AGAIN_S)
        return b""

    def _read(self, size: int) -> bytes:
        """What is there; nothing at the end of the file as it is now."""
        if self._file is None:
            at = self._first + self._position
            try:
                self._file = HttpFile(self._url, self._fetcher, shown=self._shown, first=at)
            except StatusRefused as exc:
                if exc.status == _EMPTY:
                    return b""
                raise
        piece = self._file.read(size)
        if self._file.failure is not None:
            raise self._file.failure
        return piece

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
