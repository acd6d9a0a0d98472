"""What all asks must do, run here on those in memory; test_redis_asks.py runs it on Redis."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamer.adapters.asks import IDLE_S, KEPT_S, MOST_TAKES, MOST_WAITING, AskRequest, Asks, Reply
from streamer.adapters.clock import ManualClock
from streamer.adapters.memory_asks import MemoryAsks
from streamer.errors import NoRoom

NOW = 1_700_000_000.0
ANSWER = Reply(n=3, text="One thing moves.", done=True, t0=0.0, t1=2.0, chunk0=1, chunk1=1)


def a_request(id: str = "ask-1", **changes: object) -> AskRequest:
    asked = AskRequest(id=id, job="cam", prompt="Was öffnet sich?", deadline=NOW + 60.0)
    return replace(asked, **changes)  # type: ignore[arg-type]  # fields of an AskRequest


def ids(requests: list[AskRequest]) -> list[str]:
    return [request.id for request in requests]


class AsksContract:
    """A subclass gives the fixtures `asks` and `other`: two sides, and no asks yet."""

    def another(self) -> Asks:
        """One more side."""
        raise NotImplementedError

    def wait_idle(self, part: float = 1.0) -> None:
        """Lets so much of the time go by after which an ask is taken over."""
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock(NOW)

    def test_each_is_taken_once_in_the_order_of_asking(self, asks: Asks, other: Asks) -> None:
        assert asks.take("caption-1", count=4) == []
        requests = [a_request(f"ask-{n}", t0=1.5, t1=61.5, max_new_tokens=9) for n in range(3)]
        for request in requests:
            asks.put(request)
        assert asks.take("caption-1", count=2) == requests[:2]
        assert other.take("caption-2", count=2) == requests[2:]
        assert asks.take("caption-1", count=2) == []
        assert other.take("caption-2", count=0) == []

    def test_replies_are_heard_in_order_and_the_last_one_is_the_last(
        self, asks: Asks, other: Asks
    ) -> None:
        assert asks.hear("ask-1", after=0) == []
        other.tell("ask-1", Reply(n=1, text="One"))
        other.tell("ask-1", Reply(n=2, text="One thing"))
        assert asks.hear("ask-1", after=0) == [Reply(n=1, text="One"), Reply(n=2, text="One thing")]
        assert asks.hear("ask-1", after=2) == []
        other.tell("ask-1", ANSWER)
        [last] = asks.hear("ask-1", after=2)
        assert replace(last, n=3) == ANSWER
        other.tell("ask-1", Reply(n=4, text="late"))
        other.tell("ask-1", replace(ANSWER, text="another"))
        assert asks.hear("ask-1", after=2) == [last]
        assert asks.hear("ask-1", after=last.n) == []
        assert asks.hear("ask-2", after=0) == []

    def test_what_a_dead_captioner_left_is_taken_over(self, asks: Asks, other: Asks) -> None:
        # Given an answer that breaks off
        asks.put(a_request())
        assert ids(other.take("caption-1", count=1)) == ["ask-1"]
        other.tell("ask-1", Reply(n=1, text="One"))
        other.tell("ask-1", Reply(n=2, text="One thing"))
        assert asks.take("caption-2", count=1) == []
        # When nothing more comes of its captioner
        self.wait_idle()
        assert ids(asks.take("caption-2", count=1)) == ["ask-1"]
        # Then what the next one repeats is not heard twice
        for n, text in ((1, "One"), (2, "One thing"), (3, "One thing moves.")):
            asks.tell("ask-1", Reply(n=n, text=text))
        asks.tell("ask-1", ANSWER)
        heard = [reply.text for reply in asks.hear("ask-1", after=0)]
        assert heard == ["One", "One thing", "One thing moves.", "One thing moves."]
        asks.done("ask-1")
        self.wait_idle()
        assert other.take("caption-1", count=1) == []

    def test_nobody_takes_over_what_a_living_captioner_has(self, asks: Asks, other: Asks) -> None:
        asks.put(a_request())
        assert ids(other.take("caption-1", count=1)) == ["ask-1"]
        for _ in range(6):
            self.wait_idle(0.5)
            assert other.take("caption-1", count=1) == []
            assert asks.take("caption-2", count=1) == []

    def test_one_that_no_captioner_survives_is_refused(
        self, asks: Asks, clock: ManualClock
    ) -> None:
        asks.put(a_request())
        for n in range(MOST_TAKES):
            assert ids(self.another().take(f"caption-{n}", count=1)) == ["ask-1"]
            self.wait_idle()
        assert self.another().take("caption-9", count=1) == []
        [lost] = asks.hear("ask-1", after=0)
        assert (lost.done, lost.refused) == (True, "failed")
        assert lost.error is not None
        assert "captioners were lost" in lost.error
        self.wait_idle()
        assert self.another().take("caption-9", count=1) == []

    def test_nobody_answers_after_the_deadline(
        self, asks: Asks, other: Asks, clock: ManualClock
    ) -> None:
        asks.put(a_request("soon", deadline=NOW + 1.0))
        asks.put(a_request("later"))
        clock.advance(2.0)
        assert ids(other.take("caption-1", count=2)) == ["later"]
        assert other.wanted(["soon", "later"]) == {"later"}

    def test_one_who_goes_takes_the_question_back(self, asks: Asks, other: Asks) -> None:
        asks.put(a_request("ask-1"))
        asks.put(a_request("ask-2"))
        asks.put(a_request("ask-3"))
        asks.done("ask-1")
        assert ids(other.take("caption-1", count=2)) == ["ask-2", "ask-3"]
        assert other.wanted(["ask-2", "ask-3", "ask-4"]) == {"ask-2", "ask-3"}
        asks.done("ask-2")
        assert other.wanted(["ask-2", "ask-3"]) == {"ask-3"}
        other.done("ask-2")
        other.done("ask-3")
        assert other.wanted(["ask-3"]) == set()

    def test_there_is_room_for_so_many(self, asks: Asks, clock: ManualClock) -> None:
        for n in range(MOST_WAITING):
            asks.put(a_request(f"ask-{n}", deadline=NOW + (60.0 if n else 1.0)))
        with pytest.raises(NoRoom, match="1000 questions wait"):
            asks.put(a_request("one-more"))
        clock.advance(2.0)  # and the first is late
        asks.put(a_request("one-more", deadline=NOW + 90.0))


class TestMemoryAsks(AsksContract):
    @pytest.fixture(autouse=True)
    def _both(self, clock: ManualClock) -> None:
        self.time, self.memory = clock, MemoryAsks(clock=clock)

    @pytest.fixture
    def asks(self) -> Asks:
        return self.memory

    @pytest.fixture
    def other(self) -> Asks:
        return self.memory

    def another(self) -> Asks:
        return self.memory

    def wait_idle(self, part: float = 1.0) -> None:
        self.time.advance(part * IDLE_S)

    def test_replies_expire(self, asks: Asks) -> None:
        asks.tell("ask-1", ANSWER)
        self.time.advance(KEPT_S)
        assert asks.hear("ask-1", after=0) == []
