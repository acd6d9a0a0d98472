"""URLs, and files on servers, without a network."""

import base64
from collections.abc import Callable, Iterator

import httpx
import pytest

from streamer.errors import SourceError
from streamer.sources import Limits, redact
from streamer.sources.fetch import Fetcher, HttpFile
from streamer.sources.url import http_url

BODY = bytes(range(256)) * 4000


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/x.mp4", "http://h/x.mp4"),
        ("http://user:pass@h:81/x.mp4", "http://h:81/x.mp4"),
        ("https://h/x.mp4?token=abc#frag", "https://h/x.mp4?…"),
        ("http://u:p@ss@h/x.mp4?k=@", "http://h/x.mp4?…"),
        ("http://u:p/a@h/x.mp4", "http://h/x.mp4"),
        ("http://h/@anna/x.mp4", "http://h/@anna/x.mp4"),
        ("http://[::1]:80/@anna/x.mp4", "http://[::1]:80/@anna/x.mp4"),
        ("rtsp://user:pass@cam/live", "rtsp://cam/live"),
        ("rtsp://admin:12?34@cam/live", "rtsp://cam/live"),
        ("rtsp://u:p#a@cam/live?x=1", "rtsp://cam/live?…"),
        ("http:/user:pass@h/x.mp4", "http:/h/x.mp4"),
        ("HTTP://u:p@h/x", "HTTP://h/x"),
        ("/a/b@c?d.mp4", "/a/b@c?d.mp4"),
        ("a b.mp4", "a b.mp4"),
        ("file:///a/b@c.mp4", "file:///a/b@c.mp4"),
    ],
)
def test_redact_shows_no_credentials(url: str, shown: str) -> None:
    assert redact(url) == shown


def serve(request: httpx.Request) -> httpx.Response:
    """A server that knows ranges."""
    first = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
    span = {"content-range": f"bytes {first}-{len(BODY) - 1}/{len(BODY)}"}
    return httpx.Response(206, headers=span, stream=Pieces(BODY[first:]))


class Pieces(httpx.SyncByteStream):
    def __init__(self, data: bytes, fail_at: int | None = None) -> None:
        self.data, self.fail_at = data, fail_at

    def __iter__(self) -> Iterator[bytes]:
        for at in range(0, len(self.data), 5000):
            if self.fail_at is not None and at >= self.fail_at:
                raise httpx.ReadError("reset")
            yield self.data[at : at + 5000]


def opened(
    answer: Callable[[httpx.Request], httpx.Response],
    url: str = "http://h/x.mp4",
    limits: Limits | None = None,
) -> HttpFile:
    fetcher = Fetcher(limits or Limits(), httpx.MockTransport(answer))
    return HttpFile(http_url(url), fetcher, shown=redact(url))


def test_reads_and_seeks() -> None:
    file = opened(serve)
    assert file.seekable()
    assert file.read(10) == BODY[:10]
    assert file.seek(900_000) == 900_000
    assert file.read(5) == BODY[900_000:900_005]
    assert file.seek(-3, 2) == len(BODY) - 3
    assert file.read(100) == BODY[-3:]
    assert file.read(100) == b""
    file.seek(7)
    got = b"".join(iter(lambda: file.read(60_000), b""))
    assert got == BODY[7:]
    file.close()


def test_a_short_step_ahead_reads_on_instead_of_asking_again() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["range"])
        return serve(request)

    file = opened(answer)
    file.read(10)
    file.seek(90_000)
    assert file.read(5) == BODY[90_000:90_005]
    assert asked == ["bytes=0-"]


def test_without_ranges_it_is_read_in_order() -> None:
    file = opened(lambda _: httpx.Response(200, stream=Pieces(BODY)))
    assert not file.seekable()
    assert b"".join(iter(lambda: file.read(60_000), b"")) == BODY
    assert file.failure is None


def test_a_broken_connection_is_taken_up_again_once_per_place() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        response = serve(request)
        assert isinstance(response.stream, Pieces)
        response.stream.fail_at = 300_000
        return response

    file = opened(answer)
    assert b"".join(iter(lambda: file.read(60_000), b"")) == BODY
    assert file.failure is None


def test_a_connection_that_stays_broken_is_an_error() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        first = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
        span = {"content-range": f"bytes {first}-{len(BODY) - 1}/{len(BODY)}"}
        fail_at = max(0, 100_000 - first)
        return httpx.Response(206, headers=span, stream=Pieces(BODY[first:], fail_at))

    file = opened(answer)
    assert len(b"".join(iter(lambda: file.read(60_000), b""))) == 100_000
    assert "the connection broke after 100000 bytes" in str(file.failure)


def test_a_changed_file_is_noticed() -> None:
    sizes = iter([len(BODY), len(BODY) + 1])

    def answer(request: httpx.Request) -> httpx.Response:
        first = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
        span = {"content-range": f"bytes {first}-99/{next(sizes)}"}
        return httpx.Response(206, headers=span, stream=Pieces(BODY[first:]))

    file = opened(answer)
    file.seek(900_000)
    assert file.read(5) == b""
    assert "the file changed on the server" in str(file.failure)


@pytest.mark.parametrize(
    ("status", "match"),
    [
        (404, r"^http://h/x\.mp4\?…: the server answered 404 Not Found; check the URL$"),
        (401, "401 Unauthorized; give the URL with its credentials"),
        (403, "403 Forbidden; check the URL and its credentials"),
        (503, "503 Service Unavailable; try again later"),
        (416, "the file is empty"),
    ],
)
def test_statuses(status: int, match: str) -> None:
    with pytest.raises(SourceError, match=match) as caught:
        opened(lambda _: httpx.Response(status), "http://me:secret@h/x.mp4?token=hidden")
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://h/x", "gopher://x"])
def test_a_redirect_away_from_http_is_refused(target: str) -> None:
    with pytest.raises(SourceError, match="is not an http: or https: URL"):
        opened(lambda _: httpx.Response(302, headers={"location": target}))


def test_redirects_are_bounded() -> None:
    with pytest.raises(SourceError, match="more than 5 redirects"):
        opened(lambda _: httpx.Response(302, headers={"location": "/x.mp4"}))


def test_credentials_are_sent_but_do_not_follow_to_another_host() -> None:
    seen: list[tuple[str, str | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((str(request.url), request.headers.get("authorization")))
        if request.url.path == "/a":
            return httpx.Response(307, headers={"location": "/b"})
        if request.url.host == "h":
            return httpx.Response(307, headers={"location": "http://other/c"})
        return serve(request)

    opened(answer, "http://me:s%40cret@h/a")
    basic = "Basic " + base64.b64encode(b"me:s@cret").decode()
    assert seen == [("http://h/a", basic), ("http://h/b", basic), ("http://other/c", None)]


def test_every_hop_passes_the_transport() -> None:
    def guard(request: httpx.Request) -> httpx.Response:
        if request.url.host == "169.254.169.254":
            raise SourceError("169.254.169.254 is not allowed")
        return httpx.Response(302, headers={"location": "http://169.254.169.254/"})

    with pytest.raises(SourceError, match="not allowed"):
        opened(guard)


@pytest.mark.parametrize("sized", [True, False])
def test_downloads_are_bounded(sized: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return serve(request) if sized else httpx.Response(200, stream=Pieces(BODY))

    limits = Limits(max_bytes=100_000)
    if sized:
        with pytest.raises(SourceError, match="more than 100000 bytes"):
            opened(answer, limits=limits)
        return
    file = opened(answer, limits=limits)
    assert len(b"".join(iter(lambda: file.read(60_000), b""))) <= 100_000
    assert "more than 100000 bytes" in str(file.failure)


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (httpx.ConnectTimeout("x"), "no connection to h within 5 s"),
        (httpx.ReadTimeout("x"), "h did not answer within 10 s"),
        (httpx.ConnectError("x"), "cannot connect to h"),
        (httpx.RemoteProtocolError("x"), "h broke off the request"),
    ],
)
def test_transport_errors_become_sentences(error: Exception, match: str) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(SourceError, match=match):
        opened(answer)


@pytest.mark.parametrize("url", ["http://", "http:///x.mp4", "http://h:99999999/x", "http://\n/x"])
def test_what_is_not_a_url(url: str) -> None:
    with pytest.raises(SourceError, match="check it"):
        opened(serve, url)
