"""The supervisor on real processes: killed, stopped, stubborn; and nothing outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from streamer.adapters.child import Child, launch
from streamer.errors import StreamerError
from streamer.supervisor import Supervisor, Watched

pytestmark = pytest.mark.timeout(120)

# What a process under test runs. Each writes its pid, so that the test finds it.
WAITS = """
import os, pathlib, sys, time
with pathlib.Path(sys.argv[1]).open("a") as file:
    file.write(f"{os.getpid()}\\n")
while True:
    time.sleep(60)
"""
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAITS
WITH_A_CHILD = (
    "import subprocess, sys\n"
    f"subprocess.Popen([sys.executable, '-c', {WAITS!r}, sys.argv[1] + '.child'])\n" + WAITS
)
MISTAKEN = "import sys\nprint('what else it printed')\nsys.exit('streamer: port 70000 is too high')"


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def eventually(condition: Callable[[], bool], within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def python(code: str, path: Path) -> Callable[[], Child]:
    return lambda: Child([sys.executable, "-c", code, str(path)], {})


@contextmanager
def supervised(*watched: Watched) -> Iterator[Supervisor]:
    supervisor = Supervisor(watched)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()
        thread.join(40)
        assert not thread.is_alive()


def test_a_killed_process_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    with supervised(Watched(name="worker", start=python(WITH_A_CHILD, file))):
        assert eventually(lambda: len(pids(file)) == 1 and len(pids(Path(f"{file}.child"))) == 1)
        [first], [child] = pids(file), pids(Path(f"{file}.child"))
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: len(pids(file)) == 2)
        assert eventually(lambda: gone(child))  # its group went with it
        second = pids(file)[1]
        assert not gone(second)
    assert eventually(lambda: all(gone(pid) for pid in pids(file) + pids(Path(f"{file}.child"))))


def test_a_stopped_process_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP: it lives, its port is open, and it answers nothing."""
    monkeypatch.setattr("streamer.supervisor.SILENT_S", 2.0)
    file = tmp_path / "pids"

    def answers() -> bool:
        known = pids(file)
        return bool(known) and psutil.Process(known[-1]).status() != psutil.STATUS_STOPPED

    with supervised(Watched(name="api", start=python(WAITS, file), answers=answers)):
        assert eventually(lambda: len(pids(file)) == 1)
        time.sleep(1.5)  # so that it has answered
        [first] = pids(file)
        os.kill(first, signal.SIGSTOP)
        assert eventually(lambda: len(pids(file)) == 2)
        assert eventually(lambda: gone(first))


def test_a_stubborn_process_is_killed_in_the_end(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    with supervised(Watched(name="worker", start=python(STUBBORN, file), end_s=1.0)):
        assert eventually(lambda: len(pids(file)) == 1)
        time.sleep(0.2)
    assert gone(pids(file)[0])


def test_a_mistake_ends_with_the_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    supervisor = Supervisor([Watched(name="api", start=python(MISTAKEN, Path("x")))])
    with pytest.raises(StreamerError, match=r"^port 70000 is too high$"):
        supervisor.run()
    shown = capsys.readouterr().err
    assert shown.count("what else it printed") == 3
    assert "streamer: port" not in shown


SUPERVISOR = f"""
import signal, sys
from streamer.adapters.child import Child
from streamer.supervisor import Supervisor, Watched
from streamer.config import LogSettings
from streamer.log import configure
configure(LogSettings())
def start(name, code):
    return lambda: Child([sys.executable, "-c", code, sys.argv[1] + name], {{}})
supervisor = Supervisor([
    Watched(name="worker", start=start("worker", {WITH_A_CHILD!r})),
    Watched(name="api", start=start("api", {WAITS!r})),
])
signal.signal(signal.SIGTERM, lambda *_: supervisor.stop())
supervisor.run()
"""


@contextmanager
def supervising(base: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(base)], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            started = (*files(base), Path(f"{base}worker.child"))
            assert eventually(lambda: all(len(pids(f)) == 1 for f in started))
            yield process
        finally:
            process.kill()


def files(base: Path) -> list[Path]:
    return [Path(f"{base}{name}") for name in ("worker", "api")]


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    base = tmp_path / "p"
    with supervising(base) as process:
        children = [pids(file)[0] for file in (*files(base), Path(f"{base}worker.child"))]
        assert not any(gone(pid) for pid in children)
        process.kill()
        assert eventually(lambda: all(gone(pid) for pid in children), 5.0)


def test_a_polite_end_is_in_order(tmp_path: Path) -> None:
    base = tmp_path / "p"
    with supervising(base) as process:
        children = [pids(file)[0] for file in files(base)]
        process.terminate()
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert all(gone(pid) for pid in children)
    ended = [line for line in err.splitlines() if "child_ended" in line]
    assert ["api" in line for line in ended] == [True, False]
    assert "worker" in ended[1]


def test_a_command_that_is_not_there_says_so() -> None:
    child = Child(["/no/such/command"], {})
    assert eventually(lambda: child.poll() is not None)
    assert child.poll() == 1
    child.kill()


def test_the_environment_reaches_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import os, sys; print(os.environ['STREAMER__X'], file=sys.stderr)"
    child = Child([sys.executable, "-c", code], {"STREAMER__X": "passed on"})
    assert eventually(lambda: child.poll() is not None)
    child.kill()
    assert child.said() is None
    assert capsys.readouterr().err == "passed on\n"


def test_a_process_outlives_the_thread_that_started_it() -> None:
    started: list[subprocess.Popen[bytes]] = []
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    null = subprocess.DEVNULL
    thread = threading.Thread(
        target=lambda: started.append(launch(command, stdin=null, stdout=null))
    )
    thread.start()
    thread.join()
    [process] = started
    try:
        assert not eventually(lambda: process.poll() is not None, within_s=0.5)
    finally:
        process.kill()
        process.wait(10)
