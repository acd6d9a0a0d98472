"""The client and its commands over real sockets, against a service that hangs up in mid-word."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from streamer import Client, Event, ServiceError
from streamer.events import parse_event_id

CHUNKS = 60


def events_after(cursor: str | None) -> bytes:
    """What a service sends from there on."""
    seen = (0, 0) if cursor is None else parse_event_id(cursor)
    out = ["retry: 10\n: hello\n\n"]
    for chunk in range(1, CHUNKS + 1):
        for n in range(2):
            if (chunk, n) > seen:
                event = Event(
                    id=f"{chunk}-{n}",
                    event="caption",
                    job="cam",
                    chunk=chunk,
                    t0=2.0 * chunk - 2,
                    t1=2.0 * chunk,
                    question=f"q{n}",
                    text="Ein rotes Ding fährt 😀.",
                    input_tokens=10,
                    dense_tokens=40,
                )
                out.append(f"id: {event.id}\nevent: caption\ndata: {event.to_json_line()}\n\n")
    out.append('event: end\ndata: {"job":"cam","state":"ended","error":null}\n\n')
    return "".join(out).encode()


class Rude(BaseHTTPRequestHandler):
    """One job, `cam`. Its event streams break after some bytes, by a reset or in good order."""

    protocol_version = "HTTP/1.1"
    server: RudeServer

    def do_GET(self) -> None:
        if self.path.startswith("/v1/jobs/cam/events"):
            return self._events()
        if self.path == "/v1/jobs/cam":
            return self._json(200, job("cam"))
        if self.path.startswith("/v1/jobs?"):
            return self._json(200, {"jobs": [job("cam"), job("door")], "next": None})
        return self._json(404, {"title": "Not Found", "detail": f"nothing at {self.path}"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        made = self.server.made.setdefault(key, job(f"job-{len(self.server.made)}"))
        if self.server.lose_answers:
            self.server.lose_answers -= 1
            return self._reset()
        return self._json(201, made | {"url": body["source"]["url"]})

    def _json(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _events(self) -> None:
        random_ = self.server.random
        self.server.cursors.append(self.headers["Last-Event-ID"])
        body = events_after(self.headers["Last-Event-ID"])
        ends = random_.randint(0, 9000)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        at = 0
        while at < min(ends, len(body)):
            size = min(random_.randint(1, 700), ends - at)
            part = body[at : at + size]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            at += size
        if at >= len(body) or random_.random() < 0.3:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self._reset()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
        self.rfile.close()
        self.wfile = open(os.devnull, "wb")  # noqa: SIM115 # the handler closes it

    def log_message(self, format: str, *args: object) -> None:
        pass


class RudeServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Rude)
        self.random = random.Random(7)
        self.made: dict[str, dict[str, Any]] = {}
        self.lose_answers = 0
        self.cursors: list[str | None] = []

    def handle_error(self, request: object, client_address: object) -> None:
        pass

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


def job(job_id: str) -> dict[str, Any]:
    return {
        "id": job_id,
        "state": "ended",
        "url": "http://example.com/a.mp4",
        "fps": 2.0,
        "questions": [{"id": "q0", "prompt": "What?"}, {"id": "q1", "prompt": "Who?"}],
        "tokens": {"dense": 40, "kept": 10},
    }


@contextmanager
def serving(port: int = 0) -> Iterator[RudeServer]:
    with RudeServer(port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def expected() -> list[str]:
    return [f"{chunk}-{n}" for chunk in range(1, CHUNKS + 1) for n in range(2)]


def test_events_survive_a_service_that_hangs_up_in_mid_word() -> None:
    with serving() as server, Client(server.url) as client:
        assert [event.id for event in client.events("cam")] == expected()
        assert len(server.cursors) > 3
        assert [event.id for event in client.events("cam", after="59-1")] == ["60-0", "60-1"]


def test_a_service_that_is_started_again_is_found_again() -> None:
    done = threading.Event()
    with serving() as server:
        port = server.server_port
        client = Client(server.url)
        events = client.events("cam")
        seen = [next(events).id for _ in range(3)]

    def later() -> None:
        time.sleep(0.5)  # nobody listens there for so long
        with serving(port):
            done.wait(60)

    again = threading.Thread(target=later)
    again.start()
    seen += [event.id for event in events]
    done.set()
    again.join()
    client.close()
    assert seen == expected()


def test_a_silent_connection_is_given_up() -> None:
    """A service that was stopped answers nothing: neither an end nor a reset."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with Client(f"http://127.0.0.1:{port}", timeout_s=0.2) as client:
            started = time.monotonic()
            with pytest.raises(ServiceError, match="did not answer in time"):
                client.job("cam")
            with pytest.raises(ServiceError, match="did not answer in time"):
                next(client.events("cam"))
            assert time.monotonic() - started < 10


def test_a_submission_whose_answer_is_lost_makes_one_job() -> None:
    with serving() as server, Client(server.url) as client:
        server.lose_answers = 2
        assert client.submit("http://example.com/a.mp4").id == "job-0"
        assert client.submit("http://example.com/a.mp4").id == "job-1"
        assert len(server.made) == 2


def command(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streamer", *arguments],
        env={**os.environ, "STREAMER_URL": url, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_commands_for_scripts() -> None:
    with serving() as server:
        made = command("submit", "http://example.com/a.mp4", url=server.url)
        assert (made.returncode, made.stdout, made.stderr) == (0, "job-0\n", "")
        watched = command("watch", "cam", "--json", url=server.url)
        assert (watched.returncode, watched.stderr) == (0, "")
        assert [json.loads(line)["id"] for line in watched.stdout.splitlines()] == expected()
        listed = command("jobs", "--json", url=server.url)
        assert [json.loads(line)["id"] for line in listed.stdout.splitlines()] == ["cam", "door"]
        unknown = command("watch", "gone", url=server.url)
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert unknown.stderr == "streamer: nothing at /v1/jobs/gone\n"
    away = command("jobs", url=server.url)
    assert (away.returncode, away.stdout) == (1, "")
    assert away.stderr.startswith(f"streamer: the service at {server.url} cannot be reached")
    assert away.stderr.count("\n") == 1


def test_help_of_a_client_command_comes_quickly() -> None:
    started = time.monotonic()
    assert command("jobs", "--help", url="").returncode == 0
    assert time.monotonic() - started < 5.0  # 0.7 s alone on the machine
