"""A real RTSP server for tests: GStreamer's, which loops clips without encoding them."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.servers.need import free_port, needed

SYSTEM_PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).with_name("rtsp_script.py")


class RtspServer:
    """Serves clips as rtsp://127.0.0.1:port/<name>, each looped for as long as someone looks."""

    def __init__(
        self, clips: dict[str, Path], folder: Path, *, user: str = "", password: str = ""
    ) -> None:
        self.port = free_port()
        self._files = {name: as_h264(clip, folder) for name, clip in clips.items()}
        self._folder = folder
        self._account = f"{user}:{password}" if user else ""
        self._process: subprocess.Popen[str] | None = None

    def url(self, name: str, account: str = "") -> str:
        """account: user:password, to be put into the URL."""
        return f"rtsp://{account}{'@' if account else ''}127.0.0.1:{self.port}/{name}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Serves on the same port as before."""
        account = [self._account] if self._account else []
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, str(SCRIPT), str(self.port), *account],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for name, file in self._files.items():
            self._tell(name, file)

    def stop(self) -> None:
        """Cuts every connection, until it is started again."""
        if self._process is not None:
            self._process.kill()
            with suppress(BrokenPipeError):
                self._process.communicate()
            self._process = None

    def freeze(self) -> None:
        """Sends nothing any more, and keeps its connections."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def resize(self, name: str, width: int, height: int) -> None:
        """Sends a stream in another size from its next picture on, in the same session."""
        self._files[name] = as_h264(self._files[name], self._folder, size=(width, height))
        self._tell(name, self._files[name])

    def _tell(self, name: str, file: Path) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{shlex.quote(name)} {shlex.quote(str(file))}\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if answer != "ready\n":
            raise RuntimeError(f"{SCRIPT.name} said {answer!r} and not 'ready'")


@contextmanager
def rtsp_server(
    clips: dict[str, Path], *, user: str = "", password: str = ""
) -> Iterator[RtspServer]:
    """A server that runs; its clips are copied where they are H.264, else converted once."""
    needed("rtsp", has_rtsp_server(), "GStreamer's RTSP server or ffmpeg is not installed")
    folder = Path(tempfile.mkdtemp(prefix="rtsp-"))
    server = RtspServer(clips, folder, user=user, password=password)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def has_rtsp_server() -> bool:
    code = "import gi; gi.require_version('GstRtspServer', '1.0')"
    found = [shutil.which("ffmpeg"), shutil.which(SYSTEM_PYTHON)]
    if not all(found):
        return False
    return (
        subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True, check=False).returncode
        == 0
    )


def as_h264(clip: Path, folder: Path, *, size: tuple[int, int] | None = None) -> Path:
    """The clip in H.264 with a keyframe every second or as it comes."""
    probe = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries"]
    codec = subprocess.run(
        [*probe, "stream=codec_name", "-of", "csv=p=0", str(clip)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    name = clip.stem if size is None else f"{clip.stem}-{size[0]}x{size[1]}"
    path = folder / f"{name}.mp4"
    if codec == "h264" and size is None:
        shutil.copyfile(clip, path)
        return path
    scale = [] if size is None else ["-vf", f"scale={size[0]}:{size[1]}"]
    encode = [
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-tune",
        "zerolatency",
        "-pix_fmt",
        "yuv420p",
    ]
    keys = ["-force_key_frames", "expr:gte(t,n_forced)"]
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-y",
        "-i",
        str(clip),
        *scale,
        *encode,
        *keys,
        "-an",
        str(path),
    ]
    subprocess.run(command, check=True)
    return path


def moving_picture(
    path: Path, *, size: tuple[int, int] = (320, 240), fps: int = 10, s: int = 5
) -> Path:
    """A clip that changes all the time, without reordered pictures, with a keyframe a second."""
    needed("ffmpeg", shutil.which("ffmpeg") is not None, "ffmpeg is not installed")
    source = f"testsrc2=size={size[0]}x{size[1]}:rate={fps}:duration={s}"
    encode = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", str(fps)]
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, *encode]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(path)], check=True)
    return path
