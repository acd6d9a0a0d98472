"""A way to a server that breaks again and again, in the middle of whatever it carries."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

QUIET_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A span in which nothing came, in Unix seconds."""

    from_s: float
    to_s: float


class CuttingProxy:
    """Forwards TCP to `target`; cuts event streams after so many bytes; a context manager.

    Connections can also be cut at any moment, or held: open, and nothing passes.
    """

    def __init__(self, target: str, *, cut_after: int | None = None) -> None:
        parts = urlsplit(target)
        self.target = (str(parts.hostname), int(parts.port or 80))
        self.cut_after = cut_after
        self.cuts = 0
        self.carried_at = 0.0
        """When the server's last bytes were passed on, by time.time."""
        self.silences: list[Silence] = []
        """When nothing of the server's passed for a second and more."""
        self._clients: set[socket.socket] = set()
        self._flowing = threading.Event()
        self._flowing.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.listener.close()
        self.flow()
        self.cut()

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def cut(self) -> int:
        """Breaks every connection; how many there were."""
        clients = list(self._clients)
        for client in clients:
            with suppress(OSError):
                _reset(client)
                client.shutdown(socket.SHUT_RDWR)
        self.cuts += len(clients)
        return len(clients)

    def hold(self) -> None:
        """From now on nothing passes; connections stay, and new ones are accepted."""
        self._flowing.clear()

    def flow(self) -> None:
        """What was held back passes."""
        self._flowing.set()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._clients.add(client)
        try:
            with client, suppress(OSError), socket.create_connection(self.target) as server:
                back = threading.Thread(target=self._answer, args=(server, client), daemon=True)
                back.start()
                while request := client.recv(65536):
                    self._flowing.wait()
                    server.sendall(request)
        finally:
            self._clients.discard(client)

    def _carried(self) -> None:
        before, self.carried_at = self.carried_at, time.time()
        if before and self.carried_at - before > QUIET_S:
            self.silences.append(Silence(from_s=before, to_s=self.carried_at))

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        streamed: int | None = None
        with suppress(OSError):
            while received := server.recv(512 if self.cut_after is not None else 65536):
                self._flowing.wait()
                if streamed is None and b"text/event-stream" in received:
                    streamed = 0
                if streamed is not None and self.cut_after is not None:
                    streamed += len(received)
                    if streamed > self.cut_after:
                        client.sendall(received[: len(received) // 2])
                        self.cuts += 1
                        _reset(client)
                        break
                client.sendall(received)
                self._carried()
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def _reset(client: socket.socket) -> None:
    """Its end will be no goodbye."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
