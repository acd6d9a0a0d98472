"""A service whose Redis and Ray side are started again when they end, as `streamer serve` does."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamer import service
from streamer.adapters.redis_server import EmbeddedRedis
from streamer.supervisor import Supervisor, Watched
from tests.service import Service


class _Keeper:
    """As `Process` wants it."""

    def __init__(self, running: Service) -> None:
        running.start_keeper()
        assert running.keeper is not None
        self.process: subprocess.Popen[bytes] = running.keeper
        self.pid = self.process.pid

    def poll(self) -> int | None:
        return self.process.poll()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()

    def said(self) -> str | None:
        return None


@contextmanager
def kept_service(redis_folder: Path, **environment: str) -> Iterator[Service]:
    """Runs until the block ends. environment: settings, e.g. WORKERS__SILENT_S="4"."""
    given = {f"STREAMER__{name}": value for name, value in environment.items()}
    server = EmbeddedRedis(redis_folder)
    server.start()
    running = Service(server, given)
    supervisor = Supervisor(
        [
            service._redis(server),
            Watched(name="worker", start=lambda: _Keeper(running), end_s=30.0),
        ]
    )
    thread = threading.Thread(target=supervisor.run, name="supervisor")
    thread.start()
    try:
        yield running
    finally:
        supervisor.stop()
        thread.join()
        server.close()


@contextmanager
def small_disk(size_mb: int) -> Iterator[Path | None]:
    """A folder on a tmpfs of its own; None where this machine lets nobody mount one."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", folder]
        try:
            mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            mounted = False
        if not mounted:
            yield None
            return
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def resize_disk(folder: Path, size_kb: int) -> bool:
    """Gives the small disk another size; False where it holds more than that."""
    command = ["mount", "-o", f"remount,size={size_kb}k", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
