"""PyAV reader: one video stream of one file object, as upright RGB pictures with their times."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from streamer.errors import SourceError
from streamer.sources.fetch import MediaFile
from streamer.sources.info import Limits
from streamer.sources.times import Timed

# Demuxers that read one file and nothing that it names: no playlists, image lists, descriptions.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,apng,mpegts,mpeg,mpegvideo,flv,ogg,"
    "asf,ivf,obu,av1,h264,hevc,vvc,m4v,mjpeg,h263,vc1,dv,nut,mxf,yuv4mpegpipe,wtv,rm,swf,"
    # named so that the message can say "no video in it"
    "mp3,aac,wav,flac,ac3,eac3,amr,aiff,au,caf"
)
_INDEXED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
_PLAUSIBLE_S = 48 * 3600.0
_HOPELESS = 2000  # packets in a row without a picture


@dataclass(frozen=True, slots=True)
class View:
    """How stored pictures become upright ones with square pixels."""

    width: int
    height: int
    """Size after square pixels, before turning."""
    transpose: bool
    flip_x: bool
    flip_y: bool

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of what is handed out."""
        return (self.height, self.width) if self.transpose else (self.width, self.height)

    def draw(self, frame: Any, reformatter: Any = None) -> NDArray[np.uint8]:
        """(H, W, 3) contiguous uint8 RGB. An `av.video.reformatter.VideoReformatter` that is kept
        from picture to picture saves its setting up."""
        reformatter = reformatter or VideoReformatter()
        rgb = reformatter.reformat(frame, width=self.width, height=self.height, format="rgb24")
        image: NDArray[np.uint8] = rgb.to_ndarray()
        if self.transpose:
            image = image.transpose(1, 0, 2)
        if self.flip_x:
            image = image[:, ::-1]
        if self.flip_y:
            image = image[::-1]
        return np.ascontiguousarray(image)


class NoVideo(SourceError):
    """There is nothing to look at in it."""


class Connection(Protocol):
    """What a container that is not a file comes through."""

    failure: SourceError | None

    @property
    def hint(self) -> str: ...
    def seekable(self) -> bool: ...
    def close(self) -> None: ...


class Opened:
    """An open file, to be read once. Holds the file and the decoder.

    `begin`, then perhaps `enter`, then `pictures`; or only `packets`.
    """

    def __init__(
        self,
        file: MediaFile | Connection,
        shown: str,
        limits: Limits,
        *,
        connect: Callable[[], Any] | None = None,
    ) -> None:
        """connect: opens a container that does not read from `file`, but fails with it."""
        self.damaged_packets = 0
        self.file_end_s = -math.inf
        """End of what was read of any stream, in the file's own time."""
        self._file = file
        self._shown = shown
        self._limits = limits
        self._container: Any = None
        try:
            self._container = self._opened(connect or self._read_file)
            self._stream = self._choose()
        except BaseException:
            self.close()
            raise
        self.origin = 0.0
        """The first picture's time, as the file counts."""
        self._pictures: Iterator[Timed[Any]] = iter(())
        self._first: Timed[Any] | None = None

    def begin(self) -> View:
        """Decodes the first picture. Raises: SourceError when there is none."""
        self._pictures = self._decode()
        self._first = next(self._pictures, None)
        if self._first is None:
            raise self._no_picture()
        self.origin = self._first.time or 0.0
        return self._look(self._first.picture)

    def close(self) -> None:
        """Lets go of the decoder and the file."""
        if self._container is not None:
            self._container.close()
            self._container = None
        self._file.close()

    @property
    def first(self) -> Any:
        """The first picture, before `pictures` is called."""
        assert self._first is not None
        return self._first.picture

    @property
    def format(self) -> str:
        return str(self._container.format.name)

    @property
    def codec(self) -> str:
        return str(self._stream.codec_context.codec.canonical_name)

    @property
    def stream(self) -> Any:
        return self._stream

    @property
    def nominal_s(self) -> float:
        """Seconds between two pictures, by the file's average rate."""
        rate = self._stream.average_rate or self._stream.guessed_rate or 0
        return float(1 / rate) if Fraction(1, 10) <= rate <= 240 else 0.04

    @property
    def seekable(self) -> bool:
        """Whether the container can be entered in the middle without changing pictures or times."""
        return self._file.seekable() and self.format in _INDEXED

    @property
    def video_declared_s(self) -> float | None:
        """How long the video lasts from its first picture, by its own header."""
        stream = self._stream
        base, rate = stream.time_base or Fraction(0), stream.average_rate or 0
        found = []
        if stream.duration:
            end = ((stream.start_time or 0) + stream.duration) * base
            found.append(float(end) - self.origin)
        if stream.frames and rate and self.format not in _INDEXED:
            found.append(float(stream.frames / rate))
        return max((x for x in found if 0 < x < _PLAUSIBLE_S), default=None)

    @property
    def file_declared_s(self) -> float | None:
        """How long the whole file lasts from the video's first picture, by its header."""
        container = self._container
        if not container.duration:
            return None
        end = ((container.start_time or 0) + container.duration) / 1e6 - self.origin
        return end if 0 < end < _PLAUSIBLE_S else None

    @property
    def declared_s(self) -> float | None:
        return self.video_declared_s or self.file_declared_s

    def views(self) -> Iterator[tuple[Timed[Any], View]]:
        """Pictures with times as the source counts them, whose size may change, and how each is
        drawn. Not to be mixed with `pictures`.

        Raises: SourceError when reading fails.
        """
        known: tuple[object, View] | None = None
        for item in self._decode():
            frame = item.picture
            kind = frame.width, frame.height, self._stream.sample_aspect_ratio
            if known is None or known[0] != kind:
                known = kind, self._look(frame)
            yield item, known[1]

    def pictures(self) -> Iterator[Timed[Any]]:
        """Pictures (`av.VideoFrame`) in display order, times from the source's first picture.

        Packets that cannot be decoded are left out and counted.

        Raises: SourceError when reading fails.
        """
        origin = self.origin
        first, self._first = self._first, None
        if first is not None:
            yield _moved(first, origin)
        for item in self._pictures:
            yield _moved(item, origin)

    def enter(self, t: float, origin: float) -> bool:
        """Moves to the last keyframe that appears no later than `t`; False if there is none."""
        base = self._stream.time_base
        for back_s in (0.0, 2.0, 10.0, 60.0):
            if t - back_s <= 0:
                return False
            try:
                self._container.seek(int((t - back_s + origin) / base), stream=self._stream)
            except av.error.FFmpegError:
                return False
            if self.enter_here(t, origin):
                return True
        return False

    def enter_here(self, t: float, origin: float, after_s: float = -math.inf) -> bool:
        """Goes on from the next keyframe; False if it appears later than `t`, or before another."""
        self._pictures = self._decode()
        # pictures before the first keyframe may lean on others that were not read
        found = next((item for item in self._pictures if item.picture.key_frame), None)
        if found is None or found.time is None or not after_s <= found.time - origin <= t:
            return False
        self.origin, self._first = origin, found
        return True

    def packets(self) -> Iterator[Any]:
        """Packets of all streams that are read, undecoded.

        Raises: SourceError when reading fails.
        """
        try:
            for packet in self._container.demux():
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    self.file_end_s = max(self.file_end_s, end)
                if packet.stream_index == self._stream.index:
                    yield packet
        except av.error.FFmpegError:
            self.damaged_packets += 1
        if self._file.failure is not None:
            raise self._file.failure

    def _read_file(self) -> Any:
        options = {
            "format_whitelist": _FORMATS,
            "protocol_whitelist": "none",
            "max_pixels": str(self._limits.max_pixels),
        }
        return av.open(
            self._file,
            mode="r",
            options=options,
            metadata_errors="replace",
            buffer_size=1 << 16,
        )

    def _opened(self, connect: Callable[[], Any]) -> Any:
        try:
            return connect()
        except (av.error.FFmpegError, OSError, ValueError) as exc:
            if self._file.failure is not None:
                raise self._file.failure from exc
            if isinstance(exc, av.error.ArgumentError):  # not in the list of formats
                raise SourceError(
                    f"{self._shown}: is a playlist or another format that is not read; "
                    f"give the URL of a video file (MP4, MKV, WebM, AVI, GIF, …)"
                ) from exc
            raise SourceError(
                f"{self._shown}: no readable video header found; "
                f"check that it is a video file and complete{self._file.hint}"
            ) from exc

    def _choose(self) -> Any:
        streams = self._container.streams
        videos = [
            s for s in streams.video if not s.disposition & av.stream.Disposition.attached_pic
        ]
        if not videos:
            kinds = ", ".join(sorted({s.type for s in streams})) or "nothing"
            raise NoVideo(f"{self._shown}: holds {kinds} but no video; give a URL with pictures")
        best = streams.best("video")
        stream = best if best in videos else videos[0]
        context = stream.codec_context
        if context is None:
            raise SourceError(
                f"{self._shown}: no decoder for its video codec is built in; "
                f"convert it, e.g. to H.264"
            )
        if context.width * context.height > self._limits.max_pixels:
            raise SourceError(
                f"{self._shown}: {context.width}×{context.height} is more than "
                f"{self._limits.max_pixels} pixels; raise max_pixels or take a smaller video"
            )
        context.thread_count = self._limits.threads
        context.thread_type = "SLICE" if self._limits.threads == 1 else "AUTO"
        for other in streams:
            # without a duration of the video's own, the other streams tell where the file ends
            if other.index != stream.index and stream.duration:
                other.discard = av.stream.Discard.all
        return stream

    def _decode(self) -> Iterator[Timed[Any]]:
        """Pictures with times as the file counts them."""
        context, fruitless, damaged = self._stream.codec_context, 0, False
        for packet in self.packets():
            before = self.damaged_packets
            try:
                frames = packet.decode()
            except av.error.EOFError:
                frames = []
            except av.error.FFmpegError:
                self.damaged_packets += 1
                frames = []
            self.damaged_packets += bool(packet.size and packet.is_corrupt)
            damaged |= self.damaged_packets > before
            fruitless = 0 if frames else fruitless + 1
            for frame in frames:
                yield self._timed(frame, damaged)
                damaged = False
            if fruitless > _HOPELESS:
                break
        with suppress(
            av.error.FFmpegError
        ):  # EOFError when the last packet has flushed the decoder
            for frame in context.decode(None):
                yield self._timed(frame, damaged)

    def _timed(self, frame: Any, damaged: bool) -> Timed[Any]:
        # AVI stores no display times; what ffmpeg makes up is in decoding order
        stamp = frame.dts if self.format == "avi" else frame.pts
        base = self._stream.time_base or Fraction(1, 90000)
        return Timed(
            time=None if stamp is None else float(stamp * base),
            duration=float((frame.duration or 0) * base),
            picture=frame,
            after_damage=damaged,
        )

    def _look(self, frame: Any) -> View:
        """Size and turn, from the first picture; later ones are brought to the same."""
        width, height = frame.width, frame.height
        sar = self._stream.sample_aspect_ratio or Fraction(1)
        if Fraction(1, 8) <= sar <= 8:
            width = max(1, round(width * sar))
        if width * height > self._limits.max_pixels:
            raise SourceError(
                f"{self._shown}: {width}×{height} is more than {self._limits.max_pixels} pixels; "
                f"raise max_pixels or take a smaller video"
            )
        turn = frame.side_data.get("DISPLAYMATRIX")
        a, b, c, d = 1, 0, 0, 1
        if turn is not None and len(bytes(turn)) >= 36:
            matrix = np.frombuffer(bytes(turn), dtype=np.int32)
            a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
        # a point (x, y) is shown at (a x + c y, b x + d y)
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return View(width, height, transpose=False, flip_x=a < 0, flip_y=d < 0)
        return View(width, height, transpose=True, flip_x=c < 0, flip_y=b < 0)

    def _no_picture(self) -> SourceError:
        name = self._stream.codec_context.codec.canonical_name
        if self.damaged_packets:
            found = f"none of its {self.damaged_packets} {name} pictures can be decoded"
        else:
            found = f"its header announces {name} video, but there is no picture data"
        return SourceError(
            f"{self._shown}: {found}; "
            f"the file is damaged or incomplete, get it again{self._file.hint}"
        )


def _moved(item: Timed[Any], origin: float) -> Timed[Any]:
    return Timed(
        time=None if item.time is None else item.time - origin,
        duration=item.duration,
        picture=item.picture,
        after_damage=item.after_damage,
    )
