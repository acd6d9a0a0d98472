"""Source: a video behind a URL, read as pictures at k/fps by decord or PyAV."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import httpx
import numpy as np
import structlog
from numpy.typing import NDArray

from streamer.errors import SourceError
from streamer.sources.decord_reader import DecordReader, DecordRefused, Index, check, scan
from streamer.sources.fetch import Fetcher, HttpFile, MediaFile
from streamer.sources.files import LocalFile
from streamer.sources.guard import TRUSTING, FetchPolicy, local_path
from streamer.sources.hls import HlsFile, is_playlist, read_playlist, segment_at
from streamer.sources.info import Limits, StreamInfo
from streamer.sources.playlist import Playlist
from streamer.sources.times import Sampler, mend
from streamer.sources.transport import GuardedTransport
from streamer.sources.url import http_url, redact
from streamer.types import Frame

if TYPE_CHECKING:
    from streamer.sources.pyav_reader import Opened

_LARGEST_SCAN = 4 << 30
_DRIFT_S = 5.0  # that times of a playlist may be off the pictures'

log = structlog.get_logger(__name__)


def open_source(
    url: str,
    *,
    fps: float = 2.0,
    decoder: Literal["pyav", "decord"] = "pyav",
    limits: Limits | None = None,
    policy: FetchPolicy = TRUSTING,
    transport: httpx.BaseTransport | None = None,
) -> Source:
    """Opens a file path, file:, http: or https: URL and decodes its first picture.

    decoder: `decord` reads local files that it can be trusted with; where not, PyAV does, which is
    logged and said in `Source.info`. `policy` says which files and addresses may be read; a
    `transport` that is given makes all requests, and then has to see to the addresses itself.

    Raises: SourceError with a sentence for a person; ValueError for an fps that is not above 0.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}; it must be a finite number above 0, e.g. 2")
    return Source(
        url,
        fps=fps,
        decoder=decoder,
        limits=limits or Limits(),
        policy=policy,
        transport=transport,
    )


class Source:
    """An open video. `frames` can be asked for again and again, from any time."""

    _playlist: Playlist | None = None
    """What the URL turned out to be, unless it is a file."""

    def __init__(
        self,
        url: str,
        *,
        fps: float,
        decoder: Literal["pyav", "decord"],
        limits: Limits,
        policy: FetchPolicy,
        transport: httpx.BaseTransport | None,
    ) -> None:
        """Called by `open_source`."""
        self.fps = fps
        self.damaged_packets = 0
        """Packets of the latest `frames` that could not be decoded."""
        self.missing: tuple[float, float] | None = None
        """After `frames` is exhausted: the span that the file announces but does not hold."""
        self._url = url
        self._shown = redact(url)
        self._limits = limits
        self._policy = policy
        self._opened: set[Opened] = set()
        self._transport = transport
        self._own_transport: GuardedTransport | None = None
        self._closed = False
        self._decord: DecordReader | None = None
        self._index: Index | None = None
        self._path: Path | None = local_path(url, policy)
        try:
            if self._path is None and transport is None:
                self._transport = self._own_transport = GuardedTransport(policy)
            opened = self._open()
            self._fresh: Opened | None = opened
            self._view = opened.begin()
            self._origin = opened.origin
            self._own_declared_s = opened.video_declared_s
            self._declared_s = opened.declared_s
            if self._playlist is not None:
                self._declared_s = self._playlist.duration_s
            self._nominal_s = opened.nominal_s
            self._may_seek = opened.seekable
            reason = self._scan(opened)
            if decoder == "pyav":
                reason = None
            else:
                try:
                    self._decord = self._open_decord(opened, reason)
                except DecordRefused as exc:
                    reason = str(exc)
                    self._fell_back(reason)
            width, height = self._view.size
            self.info = StreamInfo(
                width=width,
                height=height,
                codec=opened.codec,
                duration_s=self._declared_s,
                decoder="pyav" if self._decord is None else "decord",
                fallback_reason=reason,
                seekable=opened.seekable or self._playlist is not None,
            )
            if self._decord is not None:
                self._drop(opened)
                self._fresh = None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of files, connections and decoders. Frames handed out stay valid."""
        self._closed = True
        self._decord = None
        for opened in list(self._opened):
            self._drop(opened)
        if self._own_transport is not None:
            self._own_transport.close()

    def frames(self, start_s: float = 0.0) -> Iterator[Frame]:
        """The pictures on screen at k/fps, for k/fps from `start_s` to the end of the last picture.

        From any start these are the pictures that `frames()` gives for the same times (for a
        damaged file on a server, up to what its decoder makes of the damage). Pull-based: nothing
        is decoded unless asked for, but a batch when decord reads. A slot is left out only where
        damage leaves more than `max_hold_s` without a picture.

        Raises: SourceError when the bytes end too early for a reason other than the file's own end.
        """
        if not (math.isfinite(start_s) and start_s >= 0):
            raise ValueError(
                f"start_s is {start_s}; it must be a finite number of seconds from 0 on"
            )
        self._check_open()
        self.damaged_packets, self.missing = 0, None
        next_slot = 0
        if self._decord is not None and self._index is not None:
            try:
                for slot, image in self._from_decord(self._decord, self._index, start_s):
                    next_slot = slot + 1
                    yield Frame(pts=slot / self.fps, image=image)
                    self._check_open()
                return
            except DecordRefused as exc:
                self._decord = None
                self.info = dataclasses.replace(self.info, decoder="pyav", fallback_reason=str(exc))
                self._fell_back(str(exc))
                start_s = max(start_s, next_slot / self.fps)
        for slot, image in self._from_pyav(start_s):
            yield Frame(pts=slot / self.fps, image=image)
            self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise SourceError(f"{self._shown}: was closed; open it again")

    def _sampler(self, start_s: float) -> Sampler[Any]:
        return Sampler(
            fps=self.fps,
            start_s=start_s,
            nominal_s=self._nominal_s,
            declared_s=self._declared_s,
            max_hold_s=self._limits.max_hold_s,
        )

    def _from_decord(
        self, reader: DecordReader, index: Index, start_s: float
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        sampler = self._sampler(start_s)
        yield from reader.read(sampler.sample(index.pictures))
        self._look_for_end(sampler.end_s, index.file_end_s)

    def _from_pyav(self, start_s: float) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        opened = self._enter(start_s)
        sampler = self._sampler(start_s)
        mended = mend(
            opened.pictures(),
            nominal_s=self._nominal_s,
            declared_s=self._declared_s,
            max_hold_s=self._limits.max_hold_s,
        )
        drawn: tuple[Any, NDArray[np.uint8]] | None = None
        try:
            for slot, picture in sampler.sample(mended):
                if drawn is None or drawn[0] is not picture:
                    drawn = picture, self._view.draw(picture)
                self.damaged_packets = opened.damaged_packets
                yield slot, drawn[1]
            self.damaged_packets = opened.damaged_packets
            self._look_for_end(sampler.end_s, opened.file_end_s - self._origin)
        finally:
            self._drop(opened)

    def _look_for_end(self, end_s: float, file_end_s: float) -> None:
        """Sets `missing` when the file announces more than it holds."""
        last = math.ceil(end_s * self.fps - 1e-6) / self.fps
        if self._playlist is not None:
            return  # its segments are all there, or reading them has failed
        own, bound = self._own_declared_s, max(1.0, 2 / self.fps)
        if own is not None:
            short = own - end_s > bound
        else:
            # the file's duration may be the sound's: missing only if that ends early too
            short = (
                self._declared_s is not None and self._declared_s - max(end_s, file_end_s) > bound
            )
        if short and self._declared_s is not None:
            self.missing = (last, self._declared_s)

    def _open(self, segment: int = 0) -> Opened:
        from streamer.sources.pyav_reader import Opened  # only who decodes needs PyAV

        opened = Opened(self._file(segment), self._shown, self._limits)
        self._opened.add(opened)
        return opened

    def _file(self, segment: int) -> MediaFile:
        if self._path is not None:
            return LocalFile(self._path, self._shown, self._policy)
        assert self._transport is not None
        fetcher = Fetcher(self._limits, self._transport)
        if self._playlist is None:
            file = HttpFile(http_url(self._url), fetcher, shown=self._shown)
            try:
                if not is_playlist(file):
                    return file
                self._playlist = read_playlist(file, fetcher, shown=self._shown)
            except BaseException:
                file.close()
                raise
        return HlsFile(self._playlist, fetcher, start=segment)

    def _enter(self, start_s: float) -> Opened:
        """The file opened no later than the picture on screen at `start_s`."""
        opened, self._fresh = self._fresh, None
        known = self._declared_s is not None and start_s <= self._declared_s
        if start_s > 0 and known and self._playlist is not None:
            entered = self._enter_playlist(self._playlist, start_s)
            if entered is not None:
                if opened is not None:
                    self._drop(opened)
                return entered
        opened = opened or self._begin()
        if start_s > 0 and self._may_seek and known and not opened.enter(start_s, self._origin):
            self._drop(opened)
            opened = self._begin()
        return opened

    def _enter_playlist(self, playlist: Playlist, start_s: float) -> Opened | None:
        """The playlist opened at a segment; None where its times are not those of the pictures."""
        wanted = segment_at(playlist, start_s)
        for number in range(wanted, max(0, wanted - 3), -1):
            opened = self._open(number)
            begins_s = playlist.segments[number].start_s
            if opened.enter_here(start_s, self._origin, begins_s - _DRIFT_S):
                return opened
            self._drop(opened)
        return None

    def _begin(self) -> Opened:
        opened = self._open()
        opened.begin()
        return opened

    def _drop(self, opened: Opened) -> None:
        opened.close()
        self._opened.discard(opened)

    def _scan(self, opened: Opened) -> str | None:
        """Reads a local file's packets once; says why it cannot be trusted to be whole, if so."""
        if self._path is None:
            return "decord reads local files only"
        if not opened.seekable:
            return f"container '{opened.format}' keeps no dependable picture times"
        if self._path.stat().st_size > _LARGEST_SCAN:
            return "the file is too large to be checked beforehand"
        whole = self._open()
        try:
            self._index = scan(whole, opened.origin, self._limits)
        except DecordRefused as exc:
            self._may_seek = False
            return str(exc)
        finally:
            self._drop(whole)
        return None

    def _open_decord(self, opened: Opened, unsound: str | None) -> DecordReader:
        """decord for a scanned file. Raises: DecordRefused when it should not read the file."""
        if unsound is not None or self._path is None or self._index is None:
            raise DecordRefused(unsound or "the file was not scanned")
        check(opened, self._view, self._index)
        first = self._view.draw(opened.first)
        with closing(LocalFile(self._path, self._shown, self._policy)) as file:
            # what decord opens is what was checked, even if the name leads elsewhere by now
            return DecordReader(file.path, self._index, first, self._limits.threads)

    def _fell_back(self, reason: str) -> None:
        log.warning("decoder_fell_back", source=self._shown, to="pyav", reason=reason)
