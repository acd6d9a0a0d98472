"""The command as a process, and whatever it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import psutil

MARK = "STREAMER_TEST_RUN"
"""A variable that a run and all it starts have in their environment."""


@contextmanager
def running(
    mark: str, *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """The command; killed at the end of the context if it still lives."""
    with subprocess.Popen(
        [sys.executable, "-m", "streamer", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {}), MARK: mark},
        # a shell's background jobs ignore Ctrl-C, and their children would too
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    ) as run:
        try:
            yield run
        finally:
            run.kill()


def processes(mark: str) -> list[psutil.Process]:
    """Those of a run that live."""
    return [process for process in psutil.process_iter() if _marked(process, mark)]


def left_behind(mark: str, *, within_s: float = 20.0) -> list[str]:
    """What still lives of a run after a while."""
    eventually(lambda: not processes(mark), within_s=within_s)
    return [_shown(process) for process in processes(mark)]


def eventually(condition: Callable[[], bool], *, within_s: float) -> bool:
    """Whether it becomes true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get(MARK) == mark
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False


def _shown(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:200]
    except psutil.NoSuchProcess:
        return "gone meanwhile"
