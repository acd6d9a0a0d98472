"""The gate: never more inside than may be, and tenants are let in by turns."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from streamer.core.gate import Gate


@pytest.mark.parametrize("slots", [1, 3])
def test_no_more_are_inside_than_may_be(slots: int) -> None:
    gate, lock = Gate(slots), threading.Lock()
    inside, most = Counter[str](), 0

    def work(job: str) -> None:
        nonlocal most
        for _ in range(50):
            with gate.passing(job, "ann"):
                with lock:
                    inside[job] += 1
                    most = max(most, sum(inside.values()))
                with lock:
                    inside[job] -= 1

    threads = [threading.Thread(target=work, args=(f"job-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= slots
    assert gate.waiting == 0


def test_one_of_another_tenant_does_not_wait_for_twelve() -> None:
    # Given a gate that is taken, before which twelve jobs of one tenant stand, then one of another
    gate, order = Gate(1), list[str]()

    def work(job: str, tenant: str) -> None:
        with gate.passing(job, tenant):
            order.append(tenant)

    with gate.passing("first", "many"):
        crowd = [(f"job-{n:02}", "many") for n in range(12)]
        threads = [threading.Thread(target=work, args=each) for each in [*crowd, ("cam", "one")]]
        for n, thread in enumerate(threads, start=1):
            thread.start()
            while gate.waiting < n:
                pass
    # When it is free
    for thread in threads:
        thread.join()
    # Then the one comes first, since the many had the last turn
    assert order[0] == "one"
    assert order[1:] == ["many"] * 12


def test_what_fails_inside_lets_the_next_one_in() -> None:
    gate = Gate(1)
    with pytest.raises(ZeroDivisionError), gate.passing("a", "ann"):
        raise ZeroDivisionError
    with gate.passing("b", "ann"):
        assert gate.waiting == 0
