"""Bodies: who may send long ones, and how many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from streamer.api.bodies import MAX_BYTES, MOST_WITH_VIDEO, WITH_VIDEO, Bodies
from streamer.config import TokenSettings
from tests.unit.streamer.api_jobs import ALICE, TOKENS, api

LONG = bytes(MAX_BYTES + 1)
JSON = (b"content-type", b"application/json")
LENGTH = (b"content-length", str(len(LONG)).encode())
KNOWN = (b"authorization", f"bearer {ALICE}".encode())


class Answering:
    """An application that reads a body, and answers when it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.read = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        self.read += 1
        await self.may.wait()


class Asking:
    """Requests with a long body, before an application."""

    def __init__(self) -> None:
        self.app = Answering()
        tokens = [TokenSettings(**token) for token in TOKENS]
        self.bodies = Bodies(self.app, max_upload_bytes=1 << 20, tokens=tokens)

    async def ask(self, *headers: tuple[bytes, bytes], path: str = WITH_VIDEO) -> int:
        """The status of a refusal; 200 where the application had it."""
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": LONG, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "path": path, "headers": [JSON, *headers]}
        await self.bodies(scope, receive, send)
        return int(sent[0]["status"]) if sent else 200


def test_long_bodies_are_held_for_a_few_at_a_time() -> None:
    async def story() -> None:
        # Given as many requests with long bodies as may be
        asking = Asking()
        held = [asyncio.ensure_future(asking.ask(KNOWN, LENGTH)) for _ in range(MOST_WITH_VIDEO)]
        while asking.app.read < MOST_WITH_VIDEO:
            await asyncio.sleep(0)
        # Then one more is refused
        assert await asking.ask(KNOWN, LENGTH) == 429
        # When one has gone and the others are answered, there is room again
        held[0].cancel()
        await asyncio.wait(held[:1])
        again = asyncio.ensure_future(asking.ask(KNOWN, LENGTH))
        while asking.app.read <= MOST_WITH_VIDEO:
            await asyncio.sleep(0)
        asking.app.may.set()
        assert await asyncio.gather(*held[1:], again) == [200] * MOST_WITH_VIDEO
        assert asking.bodies.with_video == 0

    asyncio.run(story())


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ([LENGTH], WITH_VIDEO, 401),
        ([LENGTH, (b"authorization", b"Bearer wrong")], WITH_VIDEO, 401),
        ([LENGTH, (b"authorization", f"Basic {ALICE}".encode())], WITH_VIDEO, 401),
        ([LENGTH, KNOWN], "/v1/jobs", 413),
        ([(b"content-length", b"9999999"), KNOWN], WITH_VIDEO, 413),
    ],
)
def test_long_bodies_of_strangers_are_not_read(
    headers: list[tuple[bytes, bytes]], path: str, status: int
) -> None:
    async def story() -> None:
        asking = Asking()
        assert await asking.ask(*headers, path=path) == status
        assert (asking.app.read, asking.bodies.with_video) == (0, 0)

    asyncio.run(story())


def pieces() -> Iterator[bytes]:
    """A body whose length nobody says before."""
    yield b'{"model": "streamer", "messages": ['
    for _ in range(8):
        yield b" " * (MAX_BYTES // 4)
    yield b"]}"


@pytest.mark.parametrize(
    ("token", "status", "code"), [("", 401, "invalid_api_key"), (ALICE, 400, None)]
)
def test_a_body_that_grows_is_refused_when_it_is_too_long(
    token: str, status: int, code: str | None
) -> None:
    here = api(api={"tokens": TOKENS})
    answer = here.as_(token).post(
        WITH_VIDEO, content=pieces(), headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_a_refusal_for_want_of_room_has_the_shape_that_openai_has() -> None:
    here = api()
    bodies: Any = here.app.build_middleware_stack()
    here.app.middleware_stack = bodies
    while not isinstance(bodies, Bodies):
        bodies = bodies.app
    bodies.with_video = MOST_WITH_VIDEO
    answer = here.client.post(WITH_VIDEO, json={"messages": "x" * MAX_BYTES})
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert "retry-after" in answer.headers
