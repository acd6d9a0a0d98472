"""Decoding process: one connection of a live source, watched from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO
from urllib.parse import unquote

import httpx
import structlog

from streamer.adapters.child import launch
from streamer.adapters.clock import Clock
from streamer.sources.live.messages import Garbled, Message, read
from streamer.sources.live.task import Task
from streamer.sources.url import redact

_COMMAND = (sys.executable, "-m", "streamer.sources.live.child")
# pictures go back to the system at once, so that what it holds says what it needs
_MEMORY = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(256 << 10)}
_LONGEST_LINE = 1 << 14
_JOIN_S = 2.0

log = structlog.get_logger(__name__)


class DecodingProcess:
    """A process that sends messages until its connection ends; `kill` it in the end.

    `take` is called with each message, by a thread of the process's own, and with None once, when
    no more can come.
    """

    def __init__(
        self,
        task: Task,
        clock: Clock,
        take: Callable[[DecodingProcess, Message | None], None],
        *,
        command: Sequence[str] = _COMMAND,
    ) -> None:
        """command: what reads the task and writes messages. Raises: OSError."""
        self.started_at = clock.monotonic()
        self.began_at: float | None = None
        """When the first picture came, by the clock's `monotonic`."""
        self.seen_at: float | None = None
        """When the last one came."""
        self.end: str | None = None
        """Why no more can come."""
        self._task = task
        self._clock = clock
        self._take = take
        reading, writing = os.pipe()
        try:
            self._process = launch(
                [*command, str(writing)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                keep=[writing],
                environment={**os.environ, **_MEMORY},
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._messages = os.fdopen(reading, "rb", buffering=1 << 16)
        self._threads = [
            threading.Thread(target=work, name=f"live {name}", daemon=True)
            for name, work in (("pictures", self._receive), ("output", self._forward))
        ]
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(OSError), stdin:  # it has ended already, which is seen elsewhere
            stdin.write(task.to_json())
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def rss_bytes(self) -> int:
        """0 where that cannot be told."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGESIZE")

    def kill(self) -> None:
        """Ends it now; nothing comes from it afterwards but what is on the way."""
        self._process.kill()

    def close(self) -> None:
        """Kills it and waits until its threads have ended."""
        self.kill()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_JOIN_S)

    def _receive(self) -> None:
        with self._messages as stream:
            try:
                while message := read(stream, max_pixels=self._task.limits.max_pixels):
                    if message.kind in {"picture", "alive"}:
                        self.seen_at = self._clock.monotonic()
                        self.began_at = self.began_at or self.seen_at
                    else:
                        self.end = message.reason
                    self._take(self, message)
            except Garbled as exc:
                self.end = f"{redact(self._task.url)}: its decoding process sent {exc}"
                self._process.kill()
            except Exception as exc:  # its source must know, and begins another
                self.end = f"{redact(self._task.url)}: its pictures were lost ({exc!r})"
                log.exception("live_pictures_lost", source=redact(self._task.url))
                self._process.kill()
        if self.end is None:
            self.end = f"{redact(self._task.url)}: its decoding process ended ({self._code()})"
        self._take(self, None)

    def _code(self) -> str:
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(_JOIN_S)
            return f"exit code {code}" if code >= 0 else f"signal {-code}"
        return "it cannot be killed"

    def _forward(self) -> None:
        output: IO[bytes] | None = self._process.stdout
        assert output is not None
        with output:
            for line in iter(lambda: output.readline(_LONGEST_LINE), b""):
                text = scrubbed(line.decode(errors="replace").rstrip(), self._task.url)
                log.debug("decoder_printed", source=redact(self._task.url), text=text)


def scrubbed(text: str, url: str) -> str:
    """Text without the secrets of a URL."""
    text = text.replace(url, redact(url))
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return text
    user, _, password = parts.userinfo.decode(errors="replace").partition(":")
    query = parts.query.decode(errors="replace")
    for secret in (parts.userinfo.decode(errors="replace"), password, user, query):
        for form in {secret, unquote(secret)} - {""}:
            text = text.replace(form, "…")
    return text
