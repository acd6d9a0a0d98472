"""A gate that lets in a few at a time, tenants in turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from streamer.core.turns import Turns


class Gate:
    """At most `slots` inside. Safe to use from many threads, each job from one at a time."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._turns = Turns()
        self._waiting: dict[str, str] = {}
        self._inside: dict[str, str] = {}
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many jobs stand before it."""
        return len(self._waiting)

    @contextmanager
    def passing(self, job: str, tenant: str) -> Iterator[None]:
        """Waits for its turn; inside it holds one of the slots."""
        with self._changed:
            self._waiting[job] = tenant
            self._let_in()
            self._changed.wait_for(lambda: job in self._inside)
        try:
            yield
        finally:
            with self._changed:
                del self._inside[job]
                self._turns.keep({**self._waiting, **self._inside, job: tenant})
                self._let_in()

    def _let_in(self) -> None:
        while self._waiting and len(self._inside) < self.slots:
            [job] = self._turns.pick(self._waiting, most=1)
            self._inside[job] = self._waiting.pop(job)
            self._changed.notify_all()
