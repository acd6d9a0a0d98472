"""`streamer serve`: one command, all of a service; what dies comes back, and all ends in order."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from streamer import Client, ServiceError, Status
from tests.processes import eventually, left_behind, running

pytestmark = pytest.mark.timeout(300)

NO_MODEL = {
    "STREAMER__LOG__FORMAT": "json",
    **{f"STREAMER__POOLS__{pool}__MIN": "0" for pool in ("TOKENIZE", "CAPTION")},
}
"""Workers that load a model take half a minute; these tests are of what is around them."""


class Run:
    """A service that runs, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[str], mark: str) -> None:
        self.process = process
        self.mark = mark
        self.said: list[str] = []
        self.reading = threading.Thread(target=self._read)
        self.reading.start()
        assert process.stdout is not None
        self.url = process.stdout.readline().strip()
        self.client = Client(self.url, timeout_s=5.0)

    def child(self, command: str) -> psutil.Process | None:
        """A process that the service has started, by a word of its command."""
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if f"{command} " in " ".join([*child.cmdline()[:5], ""]):
                    return child
        return None

    def replaced(self, old: psutil.Process, command: str) -> bool:
        """Whether there is another one."""
        return self.child(command) not in (None, old)

    def answers(self) -> Status | None:
        try:
            return self.client.status()
        except ServiceError:
            return None

    def works(self) -> bool:
        """Whether Ray is there with a worker."""
        status = self.answers()
        return status is not None and any(
            worker.state == "ready" for worker in status.pools["decode"].workers
        )

    def logged(self, event: str) -> list[str]:
        """The children of an event of the supervisor."""
        found = [json.loads(line) for line in self.said if f'"{event}"' in line]
        return [line["child"] for line in found if line["event"] == event]

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(iter(self.process.stderr.readline, ""))


@contextmanager
def serving(data: Path) -> Iterator[Run]:
    mark = uuid.uuid4().hex
    with running(
        mark, "serve", "--port", "0", "--data", str(data), environment=NO_MODEL
    ) as process:
        run = Run(process, mark)
        try:
            assert run.url.startswith("http://127.0.0.1:"), run.said
            yield run
        finally:
            process.kill()
            run.reading.join(30)
            run.client.close()


def test_what_dies_comes_back_and_all_ends_in_order(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as run:
        run.client.scale(decode=(1, 2))
        assert eventually(run.works, within_s=90), run.said
        for command, blow, within_s in (
            ("api", signal.SIGKILL, 30.0),
            ("redis-server", signal.SIGKILL, 30.0),
            ("worker", signal.SIGKILL, 30.0),
            ("api", signal.SIGSTOP, 60.0),
        ):
            child = run.child(command)
            assert child is not None
            child.send_signal(blow)
            assert eventually(partial(run.replaced, child, command), within_s=within_s), run.said
            assert eventually(lambda: run.answers() is not None, within_s=30)
        assert eventually(run.works, within_s=90), run.said
        status = run.client.status()
        assert (status.pools["decode"].min, status.pools["decode"].max) == (1, 2)  # it was kept
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(60) == 0
        run.reading.join(30)
        assert run.logged("child_started") == ["redis", "worker", "api"]
        assert run.logged("child_restarted") == ["api", "redis", "worker", "api"]
        assert run.logged("child_silent") == ["api"]
        assert run.logged("child_ended")[-3:] == ["api", "worker", "redis"]
        assert left_behind(run.mark) == []


def test_killed_outright_it_leaves_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as run:
        assert eventually(run.works, within_s=90), run.said
        children = psutil.Process(run.process.pid).children(recursive=True)
        assert len(children) > 5
        run.process.kill()
        run.process.wait(10)
        psutil.wait_procs(children, timeout=20)
        assert [child for child in children if child.is_running()] == []
        assert left_behind(run.mark) == []


def test_a_mistake_of_one_side_ends_all_with_its_sentence(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    with running(
        *(mark, "serve", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path / "data")),
        environment=NO_MODEL,
    ) as process:
        out, err = process.communicate(timeout=180)
    assert (process.returncode, out) == (1, "")
    assert err.splitlines()[-1].startswith("streamer: api.host: 0.0.0.0 is reached from other")
    assert "Traceback" not in err
    assert left_behind(mark) == []
