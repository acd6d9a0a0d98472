"""A real RTMP server for tests: nginx with its module, and ffmpeg that pushes a clip to it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.need import free_port, needed
from tests.servers.rtsp import as_h264

MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")

CONFIG = """
load_module {module};
daemon off;
master_process off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
rtmp {{ server {{ listen 127.0.0.1:{port}; application live {{ live on; }} }} }}
"""


class RtmpServer:
    """Serves a clip, looped, as rtmp://127.0.0.1:port/live/<name>."""

    def __init__(self, clips: dict[str, Path], folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._files = {name: as_h264(clip, folder) for name, clip in clips.items()}
        self._nginx: subprocess.Popen[bytes] | None = None
        self._pushers: list[subprocess.Popen[bytes]] = []

    def url(self, name: str) -> str:
        return f"rtmp://127.0.0.1:{self.port}/live/{name}"

    def start(self) -> None:
        """Serves on the same port as before."""
        config = self._folder / "nginx.conf"
        config.write_text(CONFIG.format(module=MODULE, folder=self._folder, port=self.port))
        self._nginx = subprocess.Popen(
            [_nginx(), "-p", str(self._folder), "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _wait_for(self.port)
        for name, file in self._files.items():
            push = ["ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", str(file)]
            push += ["-c", "copy", "-an", "-f", "flv", self.url(name)]
            self._pushers.append(
                subprocess.Popen(push, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )

    def stop(self) -> None:
        """Cuts every connection, until it is started again."""
        for process in (*self._pushers, self._nginx):
            if process is not None:
                process.kill()
                process.wait()
        self._pushers, self._nginx = [], None


@contextmanager
def rtmp_server(clips: dict[str, Path]) -> Iterator[RtmpServer]:
    """A server that runs."""
    there = MODULE.exists() and Path(_nginx()).exists() and shutil.which("ffmpeg") is not None
    needed("rtmp", there, "nginx, its RTMP module or ffmpeg is not installed")
    folder = Path(tempfile.mkdtemp(prefix="rtmp-"))
    server = RtmpServer(clips, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _nginx() -> str:
    return shutil.which("nginx") or "/usr/sbin/nginx"


def _wait_for(port: int) -> None:
    import socket

    until = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
