"""Live HLS (RFC 8216, section 6.3): segments of a playlist that changes, as they are added."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from streamer.adapters.clock import Clock
from streamer.errors import SourceError
from streamer.sources.fetch import Fetcher, HttpFile, StatusRefused
from streamer.sources.hls import Found, PartReader, find_playlist
from streamer.sources.live.stretch import Stretch
from streamer.sources.pieces import PiecesFile
from streamer.sources.playlist import Part, Playlist, Segment

_EDGE = 3  # target durations between where reading begins and the newest segment's end
_STALE = 3  # target durations after which a playlist without change is given up
_SHORTEST_S = 0.5
_LONGEST_S = 60.0
_MOST_GONE = 3
_DATE_S = 10.0  # by which dates of one segment may differ
_GONE = {404, 410}
_TOKEN = re.compile(r"hls (\d+) (\d+) (\d+\.\d+) (\d+\.\d+)(?: (-?\d+\.\d+))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What tells a segment from another one with its number, after a server began anew."""

    number: int
    recording: int
    duration_s: float
    time_s: float | None

    @classmethod
    def of(cls, segment: Segment) -> Mark:
        return cls(
            number=segment.number,
            recording=segment.recording,
            duration_s=segment.duration_s,
            time_s=segment.time_s,
        )

    def fits(self, other: Mark) -> bool:
        """Whether both may be of the same segment."""
        if abs(self.duration_s - other.duration_s) > 0.01:
            return False
        dated = self.time_s is not None and other.time_s is not None
        return not dated or abs((self.time_s or 0.0) - (other.time_s or 0.0)) < _DATE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Right behind a segment."""

    mark: Mark
    seen_at: float
    """Unix time when the playlist was last asked for."""

    def token(self) -> str:
        mark = self.mark
        time = "" if mark.time_s is None else f"{mark.time_s:.3f}"
        return (
            f"hls {mark.number} {mark.recording} {mark.duration_s:.6f} {self.seen_at:.3f} {time}"
        ).strip()

    @classmethod
    def read(cls, token: str) -> Place | None:
        """None for a token of something else."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        number, recording, duration_s, seen_at, time_s = found.groups()
        mark = Mark(
            number=int(number),
            recording=int(recording),
            duration_s=float(duration_s),
            time_s=None if time_s is None else float(time_s),
        )
        return cls(mark=mark, seen_at=float(seen_at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A segment whose turn it is."""

    segment: Segment
    missed_s: float
    """Media time known to be lost just before it."""
    continuous: bool
    """Whether it follows the one before; of the first one behind a place: whether its clock is that
    of the one before."""
    behind_s: float
    """How much media the playlist has from its start on."""


class LivePlaylist:
    """Which segment comes next, by a playlist that is asked for again and again."""

    def __init__(
        self,
        found: Found,
        fetcher: Fetcher,
        clock: Clock,
        *,
        after: Place | None = None,
        again: bool = False,
    ) -> None:
        """after: where reading goes on. again: somebody has read before, who knows how far."""
        self._fetcher = fetcher
        self._clock = clock
        self._url, self._shown = found.url, found.shown
        self._playlist = found.playlist
        self._asked_at = self._changed_at = clock.monotonic()
        self._seen_at = clock.now()
        self._changed = True
        self._number = 0
        self._missed_s = 0.0
        self._continuous = False
        self._again = again
        self._after = after
        if after is None:
            self._join()
        else:
            self._number, self._continuous = after.mark.number + 1, True
            self._enter({after.mark.number: after.mark}, self._seen_at - after.seen_at)

    def place_behind(self, segment: Segment) -> Place:
        return Place(mark=Mark.of(segment), seen_at=self._seen_at)

    def next(self) -> Due | None:
        """Waits for the next segment; None when the source has ended. Raises: SourceError."""
        while True:
            segment = self._upcoming()
            if segment is None:
                if self._playlist.ended:
                    return None
                self._ask_again()
                continue
            self._number += 1
            if segment.gap:
                self._missed_s += segment.duration_s
                continue
            missed_s, self._missed_s = self._missed_s, 0.0
            follows = not missed_s
            if self._after is not None:
                known = self._after.mark.recording == segment.recording
                follows, self._after = not segment.breaks and (follows or known), None
            continuous, self._continuous = self._continuous and follows, True
            playlist = self._playlist
            behind_s = 0.0 if playlist.ended else playlist.duration_s - segment.start_s
            return Due(segment=segment, missed_s=missed_s, continuous=continuous, behind_s=behind_s)

    def skip(self, due: Due) -> None:
        """Counts a segment that cannot be had as missed."""
        self._continuous = due.continuous
        self._missed_s += due.missed_s + due.segment.duration_s

    def interrupt(self) -> None:
        """From here on what comes does not follow what came."""
        self._continuous = False

    @property
    def _target_s(self) -> float:
        return min(max(self._playlist.target_s, _SHORTEST_S), _LONGEST_S)

    def _upcoming(self) -> Segment | None:
        at = self._number - self._playlist.first
        return self._playlist.segments[at] if at < len(self._playlist.segments) else None

    def _ask_again(self) -> None:
        pause_s = self._target_s if self._changed else self._target_s / 2
        self._clock.sleep(max(0.0, self._asked_at + pause_s - self._clock.monotonic()))
        self._fetcher.renew()
        self._asked_at, asked = self._clock.monotonic(), self._clock.now()
        try:
            found = self._find()
        except StatusRefused:
            raise
        except SourceError:
            found = self._find()  # the server may have closed a connection that was kept
        self._url, self._shown = found.url, found.shown
        old, new = self._playlist, found.playlist
        known = {segment.number: Mark.of(segment) for segment in old.segments}
        self._changed = (_end(new), new.ended) != (_end(old), old.ended)
        if not self._changed or self._is_older(old, new):
            self._changed = False
            silent_s = self._asked_at - self._changed_at
            if silent_s > _STALE * self._target_s:
                raise SourceError(
                    f"{self._shown}: the playlist has not changed for {silent_s:.1f} s; "
                    f"check the source's encoder"
                )
            if _fits(known, new):
                return
        self._changed_at, self._playlist = self._asked_at, new
        elapsed_s, self._seen_at = asked - self._seen_at, asked
        self._enter(known, elapsed_s)

    def _find(self) -> Found:
        file = HttpFile(self._url, self._fetcher, shown=self._shown)
        return find_playlist(file, self._url, self._fetcher, shown=self._shown)

    def _is_older(self, old: Playlist, new: Playlist) -> bool:
        """Whether a cache has given a version from before."""
        urls = {segment.number: segment.part.url for segment in old.segments}
        return _end(new) < _end(old) and any(
            urls.get(segment.number) == segment.part.url for segment in new.segments
        )

    def _enter(self, known: dict[int, Mark], elapsed_s: float) -> None:
        """Finds the next segment in a playlist that is new."""
        new = self._playlist
        if self._number > _end(new) or not _fits(known, new):
            self._join()
            return
        lost = range(self._number, new.first)
        if not lost:
            return
        mean_s = new.duration_s / len(new.segments) if new.segments else new.target_s
        told = [known[number].duration_s for number in known if number in lost]
        lost_s = sum(told) + (len(lost) - len(told)) * mean_s
        if lost_s > 1.5 * max(0.0, elapsed_s) + new.duration_s + _EDGE * self._target_s:
            self._join()  # no server makes so many in so short a time: it counts anew
            return
        self._missed_s += lost_s
        self._number = new.first

    def _join(self) -> None:
        """Goes on near the newest segment; at the first one of what has ended, once."""
        playlist = self._playlist
        self._number, self._missed_s, self._continuous = playlist.first, 0.0, False
        if not playlist.ended:
            latest_s = playlist.duration_s - _EDGE * self._target_s
            early = [s.number for s in playlist.segments if s.start_s <= latest_s + 1e-3]
            self._number = max(early, default=playlist.first)
        elif self._again:
            self._number = _end(playlist)


def _end(playlist: Playlist) -> int:
    """The number of the segment to be added next."""
    return playlist.first + len(playlist.segments)


def _fits(known: dict[int, Mark], playlist: Playlist) -> bool:
    """Whether a playlist goes on counting as the known segments were counted."""
    return all(
        known[segment.number].fits(Mark.of(segment))
        for segment in playlist.segments
        if segment.number in known
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Begun:
    """A segment that is there."""

    due: Due
    pieces: Iterator[bytes]


class HlsFeed:
    """The stretches of a live playlist."""

    def __init__(self, playlist: LivePlaylist, fetcher: Fetcher) -> None:
        self._playlist = playlist
        self._fetcher = fetcher
        self._segments = PartReader(fetcher)
        self._headers = PartReader(fetcher)
        self._gone = 0
        self._next: _Begun | None = None
        self._place: Place | None = None
        self._behind: Place | None = None

    @property
    def place(self) -> Place | None:
        """Behind the last segment of which no picture is still on its way to be decoded."""
        return self._place

    def close(self) -> None:
        """Lets go of the connections."""
        self._segments.close()
        self._headers.close()

    def stretches(self) -> Iterator[Stretch]:
        """Raises: SourceError."""
        try:
            begun = self._begin()
            while begun is not None:
                self._settle()
                file = _StretchFile(self, begun)
                due = begun.due
                yield Stretch(
                    file=file,
                    missed_s=due.missed_s,
                    continuous=due.continuous,
                    behind_s=due.behind_s,
                )
                if file.failure is not None:
                    raise file.failure
                if file.ended:
                    begun, self._next = self._next, None
                else:  # left in the middle
                    file.close()
                    self._playlist.interrupt()
                    begun = self._begin()
        finally:
            self.close()

    def _read(self, begun: _Begun) -> Iterator[bytes]:
        """The pieces of a stretch that begins with a segment."""
        init = begun.due.segment.init
        if init is not None:
            yield from self._header(init)
        while True:
            yield from begun.pieces
            # a decoder holds pictures of it back until it has seen some of the next one
            self._settle()
            self._behind = self._playlist.place_behind(begun.due.segment)
            following = self._begin()
            if following is None:
                return
            due = following.due
            if due.segment.breaks or not due.continuous or due.segment.init != init:
                self._next = following
                return
            begun = following

    def _settle(self) -> None:
        self._place, self._behind = self._behind or self._place, None

    def _header(self, init: Part) -> Iterator[bytes]:
        yield from self._headers.read(init)
        self._headers.close()

    def _begin(self) -> _Begun | None:
        """The next segment that is there; None when the source has ended."""
        while (due := self._playlist.next()) is not None:
            self._fetcher.renew()
            # a resource that grows is to be asked for anew
            self._segments.close()
            pieces = self._segments.read(due.segment.part)
            try:
                first = next(pieces, b"")
            except StatusRefused as exc:
                self._gone += 1
                if exc.status not in _GONE or self._gone > _MOST_GONE:
                    raise
                self._playlist.skip(due)
                continue
            self._gone = 0
            return _Begun(due=due, pieces=_after(first, pieces))
        return None


def _after(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


class _StretchFile(PiecesFile):
    """Segments of one stretch, in order, as they come."""

    def __init__(self, feed: HlsFeed, begun: _Begun) -> None:
        super().__init__(feed._read(begun))


def open_feed(
    file: HttpFile,
    url: httpx.URL,
    fetcher: Fetcher,
    clock: Clock,
    *,
    shown: str,
    resume: str | None,
    again: bool = False,
) -> HlsFeed:
    """The feed of the playlist at a URL, of which `file` is unread. Raises: SourceError."""
    found = find_playlist(file, url, fetcher, shown=shown)
    after = Place.read(resume) if resume else None
    return HlsFeed(LivePlaylist(found, fetcher, clock, after=after, again=again), fetcher)
