"""What a server for tests needs: without it a test is skipped, unless REQUIRE names it."""

from __future__ import annotations

import os
import socket

import pytest


def needed(name: str, there: bool, reason: str) -> None:
    """Skips a test, or fails it where REQUIRE says so."""
    if there:
        return
    if name in os.environ.get("REQUIRE", "").split(","):
        pytest.fail(f"REQUIRE={name}, and {reason}")
    pytest.skip(reason)


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
