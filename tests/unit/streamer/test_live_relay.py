"""The relay connects where it may, speaks TLS with the real name, and lets nobody be sent away."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import httpx
import pytest

from streamer.errors import SourceError
from streamer.sources import TRUSTING, FetchPolicy, Limits
from streamer.sources.guard import is_refusal
from streamer.sources.live.relay import Cut, Relay, _Answers
from tests.processes import eventually

LIMITS = Limits(connect_s=1)
REDIRECT = b"RTSP/1.0 302 Moved\r\nCSeq: 1\r\nLocation: rtsp://10.0.0.1/x\r\n\r\n"


@contextmanager
def server(answer: bytes) -> Iterator[int]:
    """Answers each request, whatever it is, on any number of connections."""

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, suppress(OSError):
                while client.recv(1000):
                    client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def relay(url: str, **more: object) -> closing[Relay]:
    return closing(Relay(httpx.URL(url), limits=LIMITS, **{"policy": TRUSTING, **more}))  # type: ignore[arg-type]


def ask(made: Relay, request: bytes = b"OPTIONS * RTSP/1.0\r\n\r\n") -> bytes:
    with socket.create_connection(("127.0.0.1", made.port), timeout=5) as client:
        client.sendall(request)
        return client.recv(1000)


def test_bytes_go_both_ways_on_several_connections() -> None:
    ok = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"
    with server(ok) as port, relay(f"rtsp://me:hush@127.0.0.1:{port}/x") as made:
        assert ask(made) == ok
        assert ask(made) == ok
        assert made.failure is None


def test_the_library_does_not_see_a_redirect() -> None:
    with server(REDIRECT) as port, relay(f"rtsp://127.0.0.1:{port}/x") as made:
        assert ask(made) == b""
        assert eventually(lambda: made.failure is not None, within_s=2)
        assert str(made.failure) == (
            f"rtsp://127.0.0.1:{port}/x: the server redirects to another URL, "
            f"which is not followed; give that one"
        )


@pytest.mark.parametrize(
    "answer",
    [
        REDIRECT,
        REDIRECT.replace(b"\r\n", b"\n"),
        b"RTSP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nxyz" + REDIRECT,
        REDIRECT.replace(b" 302", b" \t  0302"),
        REDIRECT.replace(b" 302", b" \v+302"),
        REDIRECT.replace(b"302", b"4294967598"),
        REDIRECT.replace(b"302", b"-4294966994"),
        REDIRECT.replace(b"RTSP/1.0", b"RTSP/" + b"1" * 2000),
        REDIRECT.replace(b"302", b"3\r02"),
        b"RTSP/1.0 200 OK\n\n$\0\0\3abc" + REDIRECT,
    ],
)
@pytest.mark.parametrize("size", [1, 7, 5000])
def test_a_redirect_is_seen_in_every_form(answer: bytes, size: int) -> None:
    answers = _Answers()
    pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
    seen: list[bytes] = []

    def pass_on() -> None:
        for piece in pieces:
            answers.look(piece)
            seen.append(piece)

    with pytest.raises(Cut, match="redirects"):
        pass_on()
    assert b"Location" not in b"".join(seen)


def test_other_answers_pass() -> None:
    answers = _Answers()
    answers.look(b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n\r\n")
    answers.look(b"RTSP/1.0 200 OK\r\nContent-Length: 28\r\n\r\ns=RTSP/RTP stream\r\nb=AS:3000\r\n")


def test_what_is_not_rtsp_is_cut() -> None:
    with pytest.raises(Cut, match="does not speak RTSP"):
        _Answers().look(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_an_address_that_is_not_allowed_is_refused() -> None:
    with pytest.raises(SourceError, match="inside does not lead to a public address") as caught:
        Relay(
            httpx.URL("rtmp://inside/live/x"),
            limits=LIMITS,
            policy=FetchPolicy(),
            resolve=lambda host, port: ["10.0.0.1", "127.0.0.1"],
        )
    assert is_refusal(caught.value)


def test_it_connects_to_what_was_looked_at_not_to_the_name() -> None:
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["10.0.0.1", "127.0.0.1"]

    policy = FetchPolicy(networks=("127.0.0.0/8",))
    with (
        server(b"RTSP/1.0 200 OK\r\n\r\n") as port,
        relay(f"rtsp://camera:{port}/x", policy=policy, resolve=resolve) as made,
    ):
        assert ask(made).startswith(b"RTSP/1.0 200")
    assert asked == [("camera", port)]


def test_trouble_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SourceError, match=r"cannot connect to 127\.0\.0\.1; check the host and"):
        Relay(httpx.URL(f"rtsp://127.0.0.1:{port}/x"), limits=LIMITS, policy=TRUSTING)
    with (
        server(b"RTSP/1.0 400 Bad Request\r\n\r\n") as port,
        pytest.raises(SourceError, match=r"127\.0\.0\.1 does not speak TLS here; check the port"),
    ):
        Relay(httpx.URL(f"rtsps://127.0.0.1:{port}/x"), limits=LIMITS, policy=TRUSTING)


class Recorded(ssl.SSLContext):
    """Says which name a certificate has to be for, and speaks no TLS."""

    name: str | None = None

    def wrap_socket(self, sock: socket.socket, **more: object) -> socket.socket:  # type: ignore[override]
        Recorded.name = str(more["server_hostname"])
        raise ssl.SSLCertVerificationError(1, "self-signed certificate")


def test_a_certificate_has_to_be_for_the_real_name() -> None:
    with (
        server(b"") as port,
        pytest.raises(SourceError, match="the certificate of camera is not to be trusted"),
    ):
        Relay(
            httpx.URL(f"rtmps://camera:{port}/x"),
            limits=LIMITS,
            policy=TRUSTING,
            resolve=lambda host, port: ["127.0.0.1"],
            tls=Recorded(ssl.PROTOCOL_TLS_CLIENT),
        )
    assert Recorded.name == "camera"
