"""A real API on a real socket, and a client of its event streams that can be as rude as curl -9."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from streamer.api.serve import ApiServer, listening
from streamer.config import Settings
from streamer.sse import Message, MessageParser

WAIT_S = 20.0
"""Longer than anything here takes, on a busy machine too."""
TOLD = ("caption", "unchanged", "gap", "skipped", "error")


def settings_for(redis_url: str, **api: Any) -> Settings:
    """Of an API on a free port."""
    return Settings(queue={"url": redis_url}, api={"port": 0} | api)


@contextmanager
def running(settings: Settings) -> Iterator[ApiServer]:
    """An API in a thread of its own."""
    with listening(settings) as server:
        thread = threading.Thread(target=server.run, name="api")
        thread.start()
        try:
            until(lambda: server.started)
            yield server
        finally:
            server.should_exit = True
            thread.join(WAIT_S)
            assert not thread.is_alive()


def until(met: Callable[[], object], *, within_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + within_s
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Stream:
    """One connection to a job's events; a context manager."""

    def __init__(self, url: str, job_id: str, *, last: str = "", buffer: int | None = None) -> None:
        """last: the Last-Event-ID; buffer: bytes that the kernel may hold."""
        parts = urlsplit(url)
        self.socket = socket.socket()
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(WAIT_S)
        self.socket.connect((parts.hostname, parts.port))
        resumed = f"Last-Event-ID: {last}\r\n" if last else ""
        request = f"GET /v1/jobs/{job_id}/events HTTP/1.0\r\nHost: {parts.netloc}\r\n"
        self.socket.sendall(f"{request}{resumed}\r\n".encode())
        head, self._rest = b"", b""
        while b"\r\n\r\n" not in head:
            received = self.socket.recv(4096)
            assert received, head
            head += received
        head, _, self._rest = head.partition(b"\r\n\r\n")
        self.status = int(head.split()[1])
        self.raw = self._rest
        self.last = last
        self._parser = MessageParser(last_id=last)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def __iter__(self) -> Iterator[Message]:
        """Messages, until the server closes the connection."""
        received, self._rest = self._rest, b""
        while True:
            for message in self._parser.feed(received):
                self.last = message.id
                yield message
            received = self.socket.recv(65536)
            self.raw += received
            if not received:
                return

    def kill(self) -> None:
        """Goes without a word: the other side gets a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
