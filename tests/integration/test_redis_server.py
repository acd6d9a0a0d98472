"""The embedded server: found, started, private, and gone when its parent is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from streamer.adapters import redis_server
from streamer.adapters.redis_client import connect
from streamer.adapters.redis_server import EmbeddedRedis, find_server
from streamer.errors import QueueError

ROOT = Path(__file__).parents[2]


def eventually(condition: Callable[[], bool], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_it_answers_its_password_only_and_ends(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "with space, \"quotes\", ü and 'more'") as server:
        assert server.running
        with connect(server.url) as client:
            assert client.ping()
            config = client.config_get("*")
            assert config["appendonly"] == "yes"
            assert config["appendfsync"] == "always"
            assert config["save"] == ""
            assert config["maxmemory-policy"] == "noeviction"
            assert config["bind"] == "127.0.0.1"
        stranger = connect(f"redis://127.0.0.1:{server.port}")
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        assert {p.name for p in server.folder.iterdir()} >= {"redis.log", "redis.lock"}
        password = server.url.split("@")[0].removeprefix("redis://:")
        command = Path(f"/proc/{server.pid}/cmdline")
        assert not command.exists() or password.encode() not in command.read_bytes()
        assert not any(password.encode() in p.read_bytes() for p in server.folder.iterdir())
        port = server.port
    assert refuses(port)
    with pytest.raises(QueueError, match="was not started"):
        EmbeddedRedis(tmp_path).pid  # noqa: B018 # the property raises


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM])
def test_a_restart_keeps_the_data(tmp_path: Path, blow: signal.Signals) -> None:
    with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
        url, pid = server.url, server.pid
        client.set("a", "1")
        client.xadd("empty", {"a": "1"}, id="7-0")
        client.xdel("empty", "7-0")
        os.kill(pid, blow)
        assert eventually(lambda: not server.running)
        server.restart()
        assert server.url == url
        assert server.pid != pid
        assert connect(url).get("a") == b"1"
        assert connect(url).xinfo_stream("empty")["last-generated-id"] == b"7-0"


def test_a_rewritten_log_keeps_empty_streams(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
        client.xadd("empty", {"a": "1"}, id="7-0")
        client.xdel("empty", "7-0")
        client.bgrewriteaof()
        assert eventually(
            lambda: (
                not client.info("persistence")["aof_rewrite_in_progress"]
                and not client.info("persistence")["aof_rewrite_scheduled"]
            )
        )
        server.restart()
        assert connect(server.url).xinfo_stream("empty")["last-generated-id"] == b"7-0"


PARENT = """
import sys, threading
from streamer.adapters.redis_server import EmbeddedRedis
server = EmbeddedRedis(sys.argv[1])
thread = threading.Thread(target=server.start)  # its end must not end the server
thread.start()
thread.join()
print(server.pid, server.port, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        _, port = map(int, parent.stdout.readline().split())
        assert not refuses(port)
        parent.kill()
        parent.wait(10)
    assert eventually(lambda: refuses(port), 5.0)
    with EmbeddedRedis(tmp_path) as server:  # the folder is free again
        assert server.running


def test_it_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        assert not eventually(lambda: not server.running, within_s=0.2)
    finally:
        server.close()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(QueueError, match=f"port {port} on 127.0.0.1 is taken"):
            EmbeddedRedis(tmp_path, port=port).start()
    with EmbeddedRedis(tmp_path, port=port) as server:
        assert server.port == port


def test_a_folder_has_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "_LOCK_WAIT_S", 0.05)
    with EmbeddedRedis(tmp_path) as first:
        with pytest.raises(QueueError, match="in use by another embedded Redis"):
            EmbeddedRedis(tmp_path).start()
        assert connect(first.url).ping()


def test_an_unusable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(QueueError, match=r"cannot use .*file/below"):
        EmbeddedRedis(tmp_path / "file" / "below").start()


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_server_that_ends_or_hangs_is_reported(tmp_path: Path) -> None:
    ends = program(tmp_path / "ends", '[ "$1" = - ] && echo "no luck" && exit 1; echo v=7.0.0')
    with pytest.raises(QueueError, match=r"ended while starting: 'no luck'; .*redis\.log"):
        EmbeddedRedis(tmp_path / "a", server=ends).start()
    hangs = program(tmp_path / "hangs", '[ "$1" = - ] && exec sleep 60; echo v=7.0.0')
    server = EmbeddedRedis(tmp_path / "b", server=hangs, ready_s=0.1)
    with pytest.raises(QueueError, match=r"did not answer within 0\.1 s"):
        server.start()
    assert not server.running


def test_the_server_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = "echo Redis server v=7.2.4 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=0"
    old = "echo Redis server v=5.0.14 sha=00000000:0 malloc=jemalloc-5.1.0 bits=64 build=0"
    beside = program(tmp_path / "env" / redis_server.BESIDE, new)
    in_path = program(tmp_path / "path" / "redis-server", new)
    named = program(tmp_path / "named", new)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setenv("PATH", str(in_path.parent))
    assert find_server(named) == named
    assert find_server() == in_path
    program(in_path, old)
    assert find_server() == beside
    with pytest.raises(QueueError, match=r"queue\.server: .*redis-server is 5\.0"):
        find_server(in_path)
    program(named, "exit 1")
    with pytest.raises(QueueError, match=r"queue\.server: .*named is no Redis"):
        find_server(named)
    with pytest.raises(QueueError, match=r"queue\.server: .* not an executable file"):
        find_server(tmp_path / "absent")
    beside.unlink()
    with pytest.raises(QueueError, match=r"no redis-server 6\.2 or newer was found .*is 5\.0"):
        find_server()
    in_path.unlink()
    with pytest.raises(QueueError, match=r"\(none in PATH\): install Redis"):
        find_server()


def test_what_a_dead_server_left_half_written_is_removed(tmp_path: Path) -> None:
    # Given a log, and what two servers were writing when they died
    with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
        client.set("a", "1")
    left = [tmp_path / name for name in ("temp-rewriteaof-7.aof", "temp-rewriteaof-bg-7.aof")]
    for path in left:
        path.write_text("half")
    (tmp_path / "temp-notes.txt").write_text("somebody's")
    # When a server starts, then it is gone, and nothing else
    with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
        assert client.get("a") == b"1"
        assert not any(path.exists() for path in left)
        assert (tmp_path / "temp-notes.txt").exists()


def test_a_log_that_ends_in_the_middle_of_a_write_is_read_up_to_there(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
        client.set("a", "1")
        client.set("b", "2")
        os.kill(server.pid, signal.SIGKILL)
        assert eventually(lambda: not server.running)
        log = max(tmp_path.rglob("*.aof"), key=lambda path: path.stat().st_size)
        os.truncate(log, log.stat().st_size - 3)
        server.restart()
        assert connect(server.url).mget("a", "b") == [b"1", None]


def test_a_log_of_the_past_is_rewritten_at_the_start(tmp_path: Path) -> None:
    def log_bytes() -> int:
        return sum(path.stat().st_size for path in tmp_path.rglob("*.aof"))

    # Given a log of much that is no more, of a server that ended before it came to rewrite it
    with EmbeddedRedis(tmp_path) as server, connect(server.url) as client:
        client.config_set("auto-aof-rewrite-percentage", 0)
        client.set("kept", "1")
        for _ in range(9):
            client.set("a", bytes(10 << 20))
        client.delete("a")
        os.kill(server.pid, signal.SIGKILL)
        assert eventually(lambda: not server.running)
        assert log_bytes() > 90 << 20
        # When it is started again, then the log is of what there is
        server.restart()
        assert eventually(lambda: log_bytes() < 1 << 20)
        assert connect(server.url).get("kept") == b"1"
