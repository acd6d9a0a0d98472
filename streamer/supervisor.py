"""The supervisor: processes that are to run, each started again when it ends or falls silent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from streamer.adapters.clock import SYSTEM_CLOCK, Clock
from streamer.errors import StreamerError

LOOK_S = 0.2
"""How often it looks at every process."""
ASK_S = 1.0
"""How often a process is asked whether it is well."""
SILENT_S = 15.0
"""Without an answer, a process that answered before is killed."""
STARTING_S = 90.0
"""Without an answer, one that has just started is killed."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 10.0
"""Before a new process takes the place of one that ended."""
SETTLED_S = 60.0
"""After so long a life a process was well; what ends it then is no mistake of the user's."""
AT_ONCE_S = 20.0
"""Until a process has told a mistake; to import the API takes seconds where much else runs."""
MISTAKES = 3
"""Most processes in a row that end at once with FAILED."""
FAILED = 1

_END_S = 0.05
_KILL_S = 5.0

log = structlog.get_logger(__name__)


class Process(Protocol):
    """Something that runs, as `streamer.adapters.child.Child` does."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """Its exit code, or minus a signal; None while it runs."""
        ...

    def terminate(self) -> None:
        """Asks it to end."""
        ...

    def kill(self) -> None:
        """Ends it, and what it has started; also when it has ended by itself."""
        ...

    def said(self) -> str | None:
        """Its last sentence for people."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What is to run."""

    name: str
    start: Callable[[], Process]
    """May raise StreamerError."""
    answers: Callable[[], bool] | None = None
    """Whether it is well; takes a second or so at most."""
    end_s: float = 10.0
    """How long it may take to end before it is killed."""


class Supervisor:
    """Keeps processes running: started in the order given, ended in the opposite one."""

    def __init__(self, watched: Sequence[Watched], *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._kept = [_Kept(one, clock) for one in watched]
        self._clock = clock
        self._ending = False
        self._hurried = False

    def run(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Returns when `stop` was called and all have ended. meanwhile: called at every look.

        Raises StreamerError, with the sentence of a process that cannot run, when all have ended.
        """
        try:
            while not self._ending:
                for kept in self._kept:
                    kept.look()
                meanwhile()
                self._clock.sleep(LOOK_S)
        finally:
            for kept in reversed(self._kept):
                kept.end(hurried=lambda: self._hurried)

    def stop(self) -> None:
        """Ends all, in order; called again, at once. May be called by a signal's handler."""
        self._hurried = self._ending
        self._ending = True


class _Kept:
    """One process after the other, of the same name."""

    def __init__(self, watched: Watched, clock: Clock) -> None:
        self.watched = watched
        self.clock = clock
        self.log = log.bind(child=watched.name)
        self.process: Process | None = None
        self.starts = 0
        self.started_at = 0.0
        self.next_at = clock.monotonic()
        self.delay_s = FIRST_DELAY_S
        self.mistakes = 0
        self.settled = False
        self.asked_at = 0.0
        self.answered = False
        self.silent_since: float | None = None

    def look(self) -> None:
        """Starts it, if it is time; asks it, if it can be asked; notices its end."""
        now = self.clock.monotonic()
        if self.process is None:
            if now >= self.next_at:
                self._start(now)
        elif (code := self.process.poll()) is not None:
            self._ended(self.process, code, now)
        elif self.watched.answers and now >= self.asked_at + ASK_S:
            self._ask(self.process, self.watched.answers, now)

    def end(self, *, hurried: Callable[[], bool]) -> None:
        """Asks it to end, then kills it, with what it has started."""
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        self._wait(process, self.watched.end_s, unless=hurried)
        process.kill()
        self._wait(process, _KILL_S)
        self.log.info("child_ended", pid=process.pid, code=process.poll())

    def _start(self, now: float) -> None:
        self.starts += 1
        self.started_at, self.asked_at = now, now
        self.answered, self.silent_since = False, now
        try:
            self.process = self.watched.start()
        except StreamerError as exc:
            if self.starts == 1:
                raise
            self._again(FAILED, str(exc), now)
        else:
            event = "child_started" if self.starts == 1 else "child_restarted"
            self.log.info(event, pid=self.process.pid)

    def _ask(self, process: Process, answers: Callable[[], bool], now: float) -> None:
        self.asked_at = now
        if answers():
            self.answered, self.silent_since = True, None
            return
        self.silent_since = now if self.silent_since is None else self.silent_since
        silent_s = now - self.silent_since
        if silent_s >= (SILENT_S if self.answered else STARTING_S):
            self.log.warning("child_silent", pid=process.pid, silent_s=round(silent_s, 1))
            process.kill()

    def _ended(self, process: Process, code: int, now: float) -> None:
        self.process = None
        process.kill()  # what is left of its group
        said, lived_s = process.said(), round(now - self.started_at, 1)
        self.log.warning("child_ended", pid=process.pid, code=code, lived_s=lived_s, said=said)
        self._again(code, said, now)

    def _again(self, code: int, said: str | None, now: float) -> None:
        """Another one later; raises StreamerError when that would end alike."""
        lived_s = now - self.started_at
        at_once = code == FAILED and lived_s < AT_ONCE_S
        self.mistakes = self.mistakes + 1 if at_once else 0
        if lived_s >= SETTLED_S:
            self.settled, self.delay_s = True, FIRST_DELAY_S
        if self.mistakes >= MISTAKES and not self.settled:
            raise StreamerError(
                said or f"{self.watched.name} ended {MISTAKES} times at once; see what it printed"
            )
        self.next_at = now + self.delay_s
        self.delay_s = min(2 * self.delay_s, LONGEST_DELAY_S)

    def _wait(
        self, process: Process, longest_s: float, *, unless: Callable[[], bool] = lambda: False
    ) -> None:
        until = self.clock.monotonic() + longest_s
        while process.poll() is None and self.clock.monotonic() < until and not unless():
            self.clock.sleep(_END_S)
