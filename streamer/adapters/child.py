"""Processes of our own, which end when this one does, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import IO

SAYS = b"streamer: "
"""What a sentence for people begins with."""

_DRAIN_S = 1.0
_LONGEST_LINE = 1 << 16

# Run by a bare Python that then becomes the process: the kernel kills it when the thread that made
# it ends, however it ends (PR_SET_PDEATHSIG = 1).
_LAUNCH = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit("the parent ended before the child began")
os.execv(command[0], command)
"""

# Run beside a process, to outlive us for a moment: the kernel kills that process alone, not what it
# has started. Its stdin ends when we do.
_GUARD = """
import os, signal, sys
sys.stdin.read()
os.killpg(int(sys.argv[1]), signal.SIGKILL)
"""


def launch(
    command: Sequence[str],
    *,
    stdin: int,
    stdout: int | IO[bytes],
    keep: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a command, given by its absolute path; stderr goes where stdout goes.

    On Linux the kernel kills it when this process ends. It is made and awaited by a thread of its
    own, because PR_SET_PDEATHSIG looks at the thread. Its session is its own too: Ctrl-C is for us,
    and we end it when the time has come. keep: file descriptors that it inherits.

    Raises OSError when there can be no process.
    """
    started: Future[subprocess.Popen[bytes]] = Future()

    def hold() -> None:
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid())]
        try:
            process = subprocess.Popen(
                [*launcher, *command],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                pass_fds=keep,
                env=environment,
                start_new_session=True,
            )
        except OSError as exc:
            started.set_exception(exc)
            return
        started.set_result(process)
        process.wait()

    threading.Thread(target=hold, name=f"child {command[0]}", daemon=True).start()
    return started.result()


class Child:
    """A command that runs, with what it starts in its group; `kill` it in the end, ended or not.

    The group does not outlive this process, however that ends. What it prints goes to our stderr,
    except sentences for people: the last of them is kept.
    Raises OSError when there can be no process.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """environment: beside that of this process."""
        self._process = launch(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            environment={**os.environ, **environment},
        )
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD, str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._said: str | None = None
        self._reading = threading.Thread(target=self._forward, name="output", daemon=True)
        self._reading.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Asks it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends it and what is left of its group."""
        with suppress(ProcessLookupError, PermissionError):  # the group is empty, or dead already
            os.killpg(self.pid, signal.SIGKILL)
        self._guard.kill()
        self._guard.communicate()

    def said(self) -> str | None:
        """The last sentence for people; asked when it has ended."""
        self._reading.join(_DRAIN_S)
        return self._said

    def _forward(self) -> None:
        output = self._process.stdout
        assert output is not None
        with output:
            for line in iter(lambda: output.readline(_LONGEST_LINE), b""):
                text = line.decode(errors="replace")
                if line.startswith(SAYS):
                    self._said = text[len(SAYS) :].strip()
                    continue
                with suppress(OSError, ValueError):  # ours is closed; a child must not wait for it
                    sys.stderr.write(text)
                    sys.stderr.flush()
