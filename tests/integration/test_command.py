"""The command as people run it: real Redis, real Ray, and nothing left behind."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.processes import MARK, left_behind, running

pytestmark = pytest.mark.timeout(300)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_a_url_becomes_one_json_line_a_chunk(demo_file: Path) -> None:
    mark = uuid.uuid4().hex
    with (
        served(demo_file.parent) as base,
        running(mark, "caption", f"{base}/{demo_file.name}", "--json") as run,
    ):
        out, err = run.communicate(timeout=240)
    assert run.returncode == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["id"] for event in events] == [f"{n}-0" for n in range(1, 18)]
    assert {event["event"] for event in events} == {"caption"}
    assert all(event["text"] for event in events)
    assert (events[0]["t0"], events[-1]["t1"]) == (0.0, 33.0)
    assert "Traceback" not in err
    assert left_behind(mark) == []


def test_ctrl_c_ends_everything(demo_file: Path) -> None:
    mark = uuid.uuid4().hex
    slowly = ("--fps", "10", "--pipeline", "[]")  # so that the job is not over before the signal
    with running(mark, "caption", str(demo_file), "--json", *slowly) as run:
        assert run.stdout is not None
        first = run.stdout.readline()
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
    assert json.loads(first)["chunk"] == 1
    assert run.returncode == 130, err
    assert "Traceback" not in err
    assert left_behind(mark) == []


def test_killed_outright_it_still_leaves_nothing(demo_file: Path) -> None:
    mark = uuid.uuid4().hex
    with running(mark, "caption", str(demo_file), "--json") as run:
        assert run.stdout is not None
        run.stdout.readline()
    assert left_behind(mark, within_s=60.0) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no-such-file.mp4"], "no-such-file.mp4"),
        (["{demo}", "--pipeline", "[{name: rtl}]"], "Did you mean 'rlt'?"),
        (["{demo}", "--model", "./no-such-model"], "no-such-model"),
    ],
)
def test_a_mistake_is_one_sentence(demo_file: Path, arguments: list[str], sentence: str) -> None:
    mark = uuid.uuid4().hex
    given = [argument.replace("{demo}", str(demo_file)) for argument in arguments]
    with running(mark, "caption", *given, "--json") as run:
        out, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert out == ""
    assert err.startswith("streamer: ")
    assert sentence in err
    assert err.count("\n") == 1


def test_a_taken_port_is_one_sentence(demo_file: Path) -> None:
    mark = uuid.uuid4().hex
    with served(demo_file.parent) as base:
        port = base.rsplit(":", 1)[1]
        with running(mark, "caption", str(demo_file), "--json", "--redis-port", port) as run:
            out, err = run.communicate(timeout=60)
    assert (run.returncode, out) == (1, "")
    assert port in err
    assert err.count("\n") == 1


def test_the_demo_on_a_terminal() -> None:
    """What a person sees: a live line, captions beside the truth, no noise at the end."""
    mark = uuid.uuid4().hex
    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "streamer", "demo"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, MARK: mark, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the other end is closed when the command is over
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert run.wait(timeout=30) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    captions = [line for line in lines if re.match(r"[\d.]+ – +[\d.]+ s  ", line)]
    assert len(captions) == 17
    assert lines.count("= truth") >= 12
    assert any("loading the model" in line for line in lines)
    assert any("lag" in line and "tokens" in line for line in lines)
    assert "Traceback" not in text
    assert "17 events for 33 s of video" in lines[-2]
    assert left_behind(mark) == []
