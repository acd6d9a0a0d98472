"""A way to a server that breaks again and again, in the middle of whatever it carries."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class CuttingProxy:
    """Forwards TCP to `target`; cuts event streams after so many bytes; a context manager."""

    def __init__(self, target: str, *, cut_after: int | None = None) -> None:
        parts = urlsplit(target)
        self.target = (str(parts.hostname), int(parts.port or 80))
        self.cut_after = cut_after
        self.cuts = 0
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

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self.target) as server:
            back = threading.Thread(target=self._answer, args=(server, client), daemon=True)
            back.start()
            while request := client.recv(65536):
                server.sendall(request)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        streamed: int | None = None
        with suppress(OSError):
            while received := server.recv(512):
                if streamed is None and b"text/event-stream" in received:
                    streamed = 0
                if streamed is not None and self.cut_after is not None:
                    streamed += len(received)
                    if streamed > self.cut_after:
                        client.sendall(received[: len(received) // 2])
                        self.cuts += 1
                        client.setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                        )
                        break
                client.sendall(received)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
