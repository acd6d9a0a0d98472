"""Looped clips as live HLS over HTTP, cut up by ffmpeg, or by PyAV where there is no ffmpeg."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import av
from av.video.frame import PictureType

from streamer.adapters.child import launch

_FLAGS = "delete_segments+temp_file+program_date_time+independent_segments+omit_endlist"
_MORE = "+append_list+discont_start"
_READY_S = 30.0
_KEYS = 64  # files that are kept


class Encoder(Protocol):
    """What writes segments and their playlist, in real time, until it is ended."""

    def end(self) -> None: ...


class FfmpegEncoder:
    """ffmpeg, which copies the clip's packets."""

    def __init__(self, ffmpeg: str, clip: Path, playlist: Path, options: Mapping[str, str]) -> None:
        command = [ffmpeg, "-nostdin", "-v", "error", "-re", "-stream_loop", "-1", "-i", str(clip)]
        command += ["-an", "-c", "copy", "-f", "hls"]
        for name, value in options.items():
            command += [f"-{name}", value]
        self._process = launch(
            [*command, str(playlist)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> None:
        """Writes what is left as a shorter segment."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class PyavEncoder:
    """The same by a thread of ours."""

    def __init__(self, clip: Path, playlist: Path, options: Mapping[str, str]) -> None:
        self._ending = threading.Event()
        self._thread = threading.Thread(
            target=self._write, args=(clip, playlist, dict(options)), daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        self._ending.set()
        self._thread.join()

    def _write(self, clip: Path, playlist: Path, options: dict[str, str]) -> None:
        with av.open(str(playlist), "w", format="hls", options=options) as out:
            stream: Any = None
            began, shift = time.monotonic(), 0
            while not self._ending.is_set():
                with av.open(str(clip)) as source:
                    video = source.streams.video[0]
                    base = video.time_base or Fraction(1, 1000)
                    stream = stream or out.add_stream_from_template(video)
                    end = 0
                    for packet in source.demux(video):
                        if packet.dts is None or packet.pts is None:
                            continue
                        end = packet.dts + (packet.duration or 0)
                        packet.dts, packet.pts = packet.dts + shift, packet.pts + shift
                        due = began + float(packet.dts * base)
                        if self._ending.wait(max(0.0, due - time.monotonic())):
                            break
                        packet.stream = stream
                        out.mux(packet)
                    shift += end


@dataclass(slots=True, eq=False)
class _Channel:
    folder: Path
    clip: Path
    locked: bool
    encoder: Encoder | None = None
    keys: list[Path] = field(default_factory=list)

    @property
    def playlist(self) -> Path:
        return self.folder / "live.m3u8"

    @property
    def key_info(self) -> Path:
        return self.folder.with_suffix(".keyinfo")


class HlsServer:
    """A context manager: each clip, again and again, as a live playlist of its own.

    The playlists name the last `size` segments. Those of `locked` clips are encrypted, with a new
    key every `rekey_s`.
    """

    def __init__(
        self,
        folder: Path,
        clips: Mapping[str, Path],
        *,
        segment_s: float = 1.0,
        size: int = 6,
        locked: Collection[str] = (),
        rekey_s: float = 2.0,
        ffmpeg: str | None = shutil.which("ffmpeg"),
    ) -> None:
        self._clips = folder / "clips"
        self._root = folder / "served"
        self._segment_s, self._size, self._rekey_s = segment_s, size, rekey_s
        self._ffmpeg = ffmpeg
        self._named = dict(clips)
        self._locked = set(locked)
        self._channels: dict[str, _Channel] = {}
        self._fitted: dict[Path, Path] = {}
        self._closing = threading.Event()
        self._rekeying = threading.Thread(target=self._rekey, daemon=True)
        self._web: _Web | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self._clips.mkdir(parents=True, exist_ok=True)
        for name, clip in self._named.items():
            folder = self._root / name
            folder.mkdir(parents=True)
            channel = _Channel(folder=folder, clip=self._fit(clip), locked=name in self._locked)
            self._channels[name] = channel
        try:
            for channel in self._channels.values():
                if channel.locked:
                    self._new_key(channel)
                self._encode(channel)
            self._rekeying.start()
            self.start()
            for channel in self._channels.values():
                _await(channel.playlist.exists, f"no playlist at {channel.playlist}")
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._port}/{name}/live.m3u8"

    def stop(self) -> None:
        """Cuts all connections and takes no more; the encoders go on."""
        web, self._web = self._web, None
        if web is not None:
            web.end()

    def start(self) -> None:
        """Takes connections again, at the same address."""
        if self._web is None:
            self._web = _Web(self._root, self._port)
            self._port = self._web.server_address[1]

    def discontinue(self, name: str, clip: Path | None = None) -> None:
        """Begins the clip anew, or another one, perhaps of another size, behind a discontinuity."""
        channel = self._channels[name]
        if clip is not None:
            channel.clip = self._fit(clip)
        self._end_encoder(channel)
        self._encode(channel, more=True)

    def finish(self, name: str) -> None:
        """Ends the stream, and says so."""
        channel = self._channels[name]
        self._end_encoder(channel)
        with channel.playlist.open("a") as file:
            file.write("#EXT-X-ENDLIST\n")

    def pids(self) -> list[int]:
        """The encoders that are processes."""
        encoders = [channel.encoder for channel in self._channels.values()]
        return [encoder.pid for encoder in encoders if isinstance(encoder, FfmpegEncoder)]

    def _fit(self, clip: Path) -> Path:
        if clip not in self._fitted:
            path = self._clips / f"{len(self._fitted)}.mp4"
            self._fitted[clip] = fit(clip, path, every_s=self._segment_s)
        return self._fitted[clip]

    def _encode(self, channel: _Channel, *, more: bool = False) -> None:
        flags = _FLAGS + (_MORE if more else "") + ("+periodic_rekey" if channel.locked else "")
        options = {
            "hls_time": f"{self._segment_s:g}",
            "hls_list_size": str(self._size),
            "hls_delete_threshold": "4",
            "hls_flags": flags,
            "hls_segment_filename": str(channel.folder / "s%d.ts"),
        }
        if channel.locked:
            options["hls_key_info_file"] = str(channel.key_info)
        if self._ffmpeg:
            channel.encoder = FfmpegEncoder(self._ffmpeg, channel.clip, channel.playlist, options)
        else:
            channel.encoder = PyavEncoder(channel.clip, channel.playlist, options)

    def _end_encoder(self, channel: _Channel) -> None:
        encoder, channel.encoder = channel.encoder, None
        if encoder is not None:
            encoder.end()

    def _rekey(self) -> None:
        while not self._closing.wait(self._rekey_s):
            for channel in self._channels.values():
                if channel.locked:
                    self._new_key(channel)

    def _new_key(self, channel: _Channel) -> None:
        number = int(channel.keys[-1].name[1:]) + 1 if channel.keys else 0
        key = channel.folder / f"k{number}"
        key.write_bytes(secrets.token_bytes(16))
        channel.keys.append(key)
        fresh = channel.key_info.with_suffix(".fresh")
        fresh.write_text(f"{key.name}\n{key}\n")
        os.replace(fresh, channel.key_info)
        while len(channel.keys) > _KEYS:
            channel.keys.pop(0).unlink()

    def _close(self) -> None:
        self._closing.set()
        self.stop()
        for channel in self._channels.values():
            self._end_encoder(channel)
        if self._rekeying.is_alive():
            self._rekeying.join()


def fit(clip: Path, fitted: Path, *, every_s: float) -> Path:
    """The clip if its packets can be looped as they are; else one that can, written once.

    They can if they are H.264 without reordering, with a keyframe every `every_s`.
    """
    if _fits(clip, every_s):
        return clip
    _convert(clip, fitted, every_s)
    return fitted


def _fits(clip: Path, every_s: float) -> bool:
    with av.open(str(clip)) as source:
        video = source.streams.video[0]
        if video.codec_context.name != "h264" or video.time_base is None:
            return False
        last_s, key_s = -1.0, 0.0
        for packet in source.demux(video):
            if packet.dts is None:
                continue
            if packet.pts != packet.dts:
                return False
            last_s = float(packet.dts * video.time_base)
            if packet.is_keyframe:
                key_s = last_s
            if last_s - key_s > 1.05 * every_s:
                return False
        return last_s >= 0


def _convert(clip: Path, fitted: Path, every_s: float) -> None:
    part = fitted.with_suffix(".part")
    with av.open(str(clip)) as source, av.open(str(part), "w", format="mp4") as out:
        video = source.streams.video[0]
        stream: Any = None
        next_key_s, first_s, after_s = 0.0, None, 0.0
        for frame in source.decode(video):
            if frame.time is None:
                continue
            if stream is None:
                options = {"preset": "veryfast", "crf": "26", "bf": "0", "g": "600"}
                stream = out.add_stream("libx264", rate=video.average_rate or 25, options=options)
                stream.width, stream.height = frame.width // 2 * 2, frame.height // 2 * 2
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = Fraction(1, 90000)
                stream.codec_context.thread_count = 1
                first_s = frame.time
            at_s = max(after_s, frame.time - (first_s or 0.0))  # AVI's times may stand still
            after_s = at_s + 0.001
            image = frame.reformat(width=stream.width, height=stream.height, format="yuv420p")
            image.pts, image.time_base = round(at_s * 90000), Fraction(1, 90000)
            image.pict_type = PictureType.NONE
            if at_s >= next_key_s - 1e-6:
                image.pict_type, next_key_s = PictureType.I, next_key_s + every_s
            out.mux(stream.encode(image))
        if stream is None:
            raise ValueError(f"{clip}: no pictures")
        out.mux(stream.encode(None))
    part.rename(fitted)


class _Web(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, root: Path, port: int) -> None:
        super().__init__(("127.0.0.1", port), partial(_Handler, directory=str(root)))
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        with self._lock:
            for one in self._sockets:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def get_request(self) -> tuple[Any, Any]:
        one, address = super().get_request()
        with self._lock:
            self._sockets.add(one)
        return one, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave."""


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _await(condition: Callable[[], bool], failure: str) -> None:
    until = time.monotonic() + _READY_S
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(failure)
        time.sleep(0.05)
