"""Strangers' URLs and an inside server: whatever they try, it sees no connection.

Two real servers listen on this machine. The one outside, 127.0.0.2, is allowed by the policy, since
no test can have a public address; the one inside, 127.0.0.1 and ::1, is not.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pytest

from streamer.errors import SourceError
from streamer.sources import TRUSTING, FetchPolicy, Limits, check_url, open_source
from streamer.sources.guard import Resolve
from streamer.sources.transport import GuardedTransport
from streamer.types import Frame
from tests.clips import render
from tests.hls import cut_up, lock

OUTSIDE = "127.0.0.2"
POLICY = FetchPolicy(networks=(OUTSIDE,))
QUICK = Limits(connect_s=1, read_s=1)
SECRET = b"inside-secret"
HEAD = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n"
SEGMENT = "#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
PLAYLISTS = {
    "variant": HEAD + "#EXT-X-STREAM-INF:BANDWIDTH=1\n{}\n",
    "segment": HEAD + SEGMENT,
    "later": HEAD + "#EXTINF:1,\n/clip.ts\n" + SEGMENT,
    "key": HEAD + '#EXT-X-KEY:METHOD=AES-128,URI="{}"\n' + SEGMENT.format("/clip.ts"),
    "map": HEAD + '#EXT-X-MAP:URI="{}"\n' + SEGMENT.format("/clip.ts"),
}


class Server(ThreadingHTTPServer):
    """Counts every connection, whether or not it asks for anything."""

    daemon_threads = True

    def __init__(self, address: str, port: int, files: dict[str, bytes]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), Handler)
        self.files = files
        self.accepted = 0
        self.asked: list[str] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        self.accepted += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave."""

    def connections(self) -> int:
        """How many there were; one more of our own comes after all that are still waiting."""
        before = self.accepted
        with socket.create_connection((str(self.server_address[0]), self.port)) as probe:
            probe.sendall(b"GET /probe HTTP/1.0\r\n\r\n")
            probe.recv(1)
        self.accepted -= 1
        assert self.accepted >= before
        return self.accepted


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.close_connection = True
        way, _, rest = self.path[1:].partition("/")
        target = unquote(rest)
        if way.isdigit():
            return self.answer(int(way), b"", {"Location": target})
        if way in PLAYLISTS:
            return self.answer(200, PLAYLISTS[way].replace("{}", target).encode())
        body = self.server.files.get(self.path[1:], SECRET)
        first = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        span = {"Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"}
        return self.answer(206, body[first:], span)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    clip = render(folder / "clip.mp4", 30, options={"g": "10"})
    # its index, at the end, is a request of its own
    render(folder / "large.mp4", 40, size=(640, 320), options={"g": "10"}, noise=32)
    cut_up(clip, folder / "ts")
    cut_up(clip, folder / "fmp4", hls_segment_type="fmp4")
    cut_up(clip, folder / "ranges", hls_flags="single_file")
    lock(clip, folder / "aes")
    return folder


@pytest.fixture(scope="module")
def files(clips: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(clips)): p.read_bytes() for p in clips.rglob("*") if p.is_file()}
    return {**found, "clip.ts": found["ts/list0.ts"]}


class World:
    """The servers, and how a stranger's URL is fetched."""

    def __init__(self, inside: list[Server], outside: Server) -> None:
        self.inside, self.outside = inside, outside
        self.port = inside[0].port

    def resolve(self, host: str, port: int) -> list[str]:
        """The system's look-up, in which two names are known."""
        known = {"outside.test": [OUTSIDE], "inside.test": ["127.0.0.1"]}
        if host in known:
            return known[host]
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [str(item[4][0]) for item in found]

    def fill(self, url: str) -> str:
        """`OUT` and `IN` stand for the servers' ports; what follows `=>` is quoted."""
        url = url.removeprefix("!").replace("OUT", str(self.outside.port))
        *ways, target = url.replace("IN", str(self.port)).split("=>")
        for way in reversed(ways):
            target = way + quote(target, safe="")
        return target

    def open(
        self, url: str, policy: FetchPolicy = POLICY, resolve: Resolve | None = None
    ) -> list[Frame]:
        transport = GuardedTransport(policy, resolve=resolve or self.resolve)
        try:
            with open_source(
                url, fps=5, decoder="pyav", limits=QUICK, policy=policy, transport=transport
            ) as source:
                return list(source.frames())
        finally:
            transport.close()

    def connections(self) -> int:
        return sum(server.connections() for server in self.inside)


@pytest.fixture(scope="module")
def servers(files: dict[str, bytes]) -> Iterator[World]:
    with ExitStack() as stack:
        inside = [Server("127.0.0.1", 0, files)]
        with suppress(OSError):  # a machine without IPv6
            inside.append(Server("::1", inside[0].port, files))
        try:
            outside = Server(OUTSIDE, 0, files)
        except OSError:
            pytest.skip(f"this machine has no {OUTSIDE}")
        for server in (*inside, outside):
            stack.enter_context(server)
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        yield World(inside, outside)


@pytest.fixture
def world(servers: World) -> World:
    servers.connections()
    for server in (*servers.inside, servers.outside):
        server.accepted = 0
        server.asked.clear()
    return servers


# Of a URL that is marked with "!", an unguarded fetcher is known to reach the inside server.
OUT = "http://outside.test:OUT"
HOSTILE = {
    "loopback": "!http://127.0.0.1:IN/clip.mp4",
    "loopback, credentials": "!http://me:pass@127.0.0.1:IN/clip.mp4",
    "loopback, other number": "http://127.255.255.254:IN/clip.mp4",
    "localhost": "!http://localhost:IN/clip.mp4",
    "localhost in capitals": "!HTTP://LOCALHOST:IN/clip.mp4",
    "localhost with a dot": "http://localhost.:IN/clip.mp4",
    "number with a dot": "http://127.0.0.1.:IN/clip.mp4",
    "decimal": "!http://2130706433:IN/clip.mp4",
    "octal": "http://0177.0.0.1:IN/clip.mp4",
    "octal, short": "!http://0177.1:IN/clip.mp4",
    "octal in one": "!http://017700000001:IN/clip.mp4",
    "hexadecimal": "!http://0x7f.1:IN/clip.mp4",
    "hexadecimal in one": "!http://0x7f000001:IN/clip.mp4",
    "short": "!http://127.1:IN/clip.mp4",
    "mixed": "!http://0x7f.0.1:IN/clip.mp4",
    "unspecified": "!http://0.0.0.0:IN/clip.mp4",
    "unspecified, short": "!http://0:IN/clip.mp4",
    "ipv6 loopback": "http://[::1]:IN/clip.mp4",
    "ipv6 loopback, long": "http://[0:0:0:0:0:0:0:1]:IN/clip.mp4",
    "ipv6 unspecified": "http://[::]:IN/clip.mp4",
    "ipv6 with a scope": "http://[::1%25lo]:IN/clip.mp4",
    "ipv6 with a bare scope": "http://[fe80::1%lo]:IN/clip.mp4",
    "ipv6 link-local": "http://[fe80::1]:IN/clip.mp4",
    "ipv6 unique-local": "http://[fd00:ec2::254]:IN/clip.mp4",
    "mapped, dotted": "!http://[::ffff:127.0.0.1]:IN/clip.mp4",
    "mapped, hexadecimal": "!http://[::ffff:7f00:1]:IN/clip.mp4",
    "compatible": "http://[::127.0.0.1]:IN/clip.mp4",
    "nat64": "http://[64:ff9b::7f00:1]:IN/clip.mp4",
    "6to4": "http://[2002:7f00:1::]:IN/clip.mp4",
    "teredo": "http://[2001:0:7f00:1::80ff:fffe]:IN/clip.mp4",
    "metadata": "http://169.254.169.254/latest/meta-data/",
    "metadata, decimal": "http://2852039166/latest/meta-data/",
    "metadata under a public number": "http://168.63.129.16/machine",
    "carrier-grade nat": "http://100.64.0.1/clip.mp4",
    "private": "http://10.0.0.1/clip.mp4",
    "a name of inside": "!http://inside.test:IN/clip.mp4",
    "userinfo like a host": "!http://outside.test@127.0.0.1:IN/clip.mp4",
    "userinfo like a host and port": "!http://outside.test:80@127.0.0.1:IN/clip.mp4",
    "userinfo twice": "!http://a@outside.test@127.0.0.1:IN/clip.mp4",
    "userinfo and a backslash": "!http://outside.test\\@127.0.0.1:IN/clip.mp4",
    "host before a backslash": "http://127.0.0.1:IN\\@outside.test:OUT/none",
    "host before a fragment": "!http://127.0.0.1:IN#@outside.test:OUT/",
    "host before a query": "!http://127.0.0.1:IN?@outside.test:OUT/",
    "blanks between hosts": "!http://1.1.1.1 &@127.0.0.1:IN# @3.3.3.3/",
    "line end in a host": "http://127.0.0.1:IN\r\n@outside.test/",
    "tab in a scheme": "ht\ttp://127.0.0.1:IN/clip.mp4",
    "blank before": " http://127.0.0.1:IN/clip.mp4",
    "one slash": "http:/127.0.0.1:IN/clip.mp4",
    "no slash": "http:127.0.0.1:IN/clip.mp4",
    "three slashes": "http:///127.0.0.1:IN/clip.mp4",
    "no scheme": "//127.0.0.1:IN/clip.mp4",
    "fullwidth digits": "http://１２７.0.0.1:IN/clip.mp4",
    "circled digits": "http://①②⑦.⓪.⓪.①:IN/clip.mp4",
    "ideographic dots": "!http://127。0。0。1:IN/clip.mp4",
    "percent-encoded digits": "http://%31%32%37.0.0.1:IN/clip.mp4",
    "percent-encoded slash": "http://127.0.0.1%2f@127.0.0.1:IN/clip.mp4",
    "percent-encoded zero": "http://127.0.0.1%00.outside.test:IN/clip.mp4",
    "two ports": "http://127.0.0.1:IN:80/clip.mp4",
    "a port beyond": "http://outside.test:99999/clip.mp4",
    "port zero": "http://outside.test:0/clip.mp4",
    "a port below": "http://outside.test:-1/clip.mp4",
    "the inside port outside": "http://outside.test:IN/clip.mp4",
    "redirect 301": f"!{OUT}/301/=>http://127.0.0.1:IN/clip.mp4",
    "redirect 302": f"!{OUT}/302/=>http://127.0.0.1:IN/clip.mp4",
    "redirect 303": f"!{OUT}/303/=>http://127.0.0.1:IN/clip.mp4",
    "redirect 307": f"!{OUT}/307/=>http://127.0.0.1:IN/clip.mp4",
    "redirect 308": f"!{OUT}/308/=>http://127.0.0.1:IN/clip.mp4",
    "redirect without scheme": f"!{OUT}/302/=>//127.0.0.1:IN/clip.mp4",
    "redirect to a name": f"!{OUT}/302/=>http://inside.test:IN/clip.mp4",
    "redirect to decimal": f"!{OUT}/302/=>http://2130706433:IN/clip.mp4",
    "redirect to ipv6": f"{OUT}/302/=>http://[::1]:IN/clip.mp4",
    "redirect chain": f"!{OUT}/302/=>/307/=>//127.0.0.1:IN/clip.mp4",
    "redirect to tls": f"!{OUT}/302/=>https://127.0.0.1:IN/clip.mp4",
    "redirect to a file": f"{OUT}/302/=>file:///etc/passwd",
    "redirect to concat": f"{OUT}/302/=>concat:http://127.0.0.1:IN/a|http://127.0.0.1:IN/b",
    "redirect to gopher": f"{OUT}/302/=>gopher://127.0.0.1:IN/_x",
    "playlist redirect": f"!{OUT}/302/=>http://127.0.0.1:IN/ts/list.m3u8",
    "variant inside": f"!{OUT}/variant/=>http://127.0.0.1:IN/ts/list.m3u8",
    "variant redirect": f"!{OUT}/variant/=>/302/=>http://127.0.0.1:IN/ts/list.m3u8",
    "segment inside": f"!{OUT}/segment/=>http://127.0.0.1:IN/clip.ts",
    "segment inside, without scheme": f"!{OUT}/segment/=>//localhost:IN/clip.ts",
    "segment redirect": f"!{OUT}/segment/=>/307/=>http://127.0.0.1:IN/clip.ts",
    "later segment inside": f"!{OUT}/later/=>http://127.0.0.1:IN/clip.ts",
    "key inside": f"!{OUT}/key/=>http://127.0.0.1:IN/key",
    "key redirect": f"!{OUT}/key/=>/301/=>http://inside.test:IN/key",
    "map inside": f"!{OUT}/map/=>http://127.0.0.1:IN/fmp4/init.mp4",
    "map redirect": f"!{OUT}/map/=>/308/=>http://127.0.0.1:IN/fmp4/init.mp4",
    "segment of a variant": f"!{OUT}/variant/=>/segment/=>http://127.0.0.1:IN/clip.ts",
    "segment of a file": f"{OUT}/segment/=>file:///etc/passwd",
    "segment of concat": f"{OUT}/segment/=>concat:http://127.0.0.1:IN/a|http://127.0.0.1:IN/b",
    "segment of subfile": f"{OUT}/segment/=>subfile,,start,0,end,9,,:http://127.0.0.1:IN/a",
    "segment of crypto": f"{OUT}/segment/=>crypto+http://127.0.0.1:IN/a",
    "segment of data": f"{OUT}/segment/=>data:video/mp2t;base64,AAAA",
    "key of a file": f"{OUT}/key/=>file:///etc/hostname",
    "key of data": f"{OUT}/key/=>data:text/plain;base64,AAAAAAAAAAAAAAAAAAAAAA==",
    "concat": "concat:http://127.0.0.1:IN/a|http://127.0.0.1:IN/b",
    "subfile": "subfile:,,start,0,end,9,,:http://127.0.0.1:IN/a",
    "crypto": "crypto+http://127.0.0.1:IN/a",
    "cache": "cache:http://127.0.0.1:IN/a",
    "data": "data:video/mp4;base64,AAAA",
    "ftp": "ftp://127.0.0.1:IN/x",
    "gopher": "gopher://127.0.0.1:IN/_GET%20/",
    "tcp": "tcp://127.0.0.1:IN",
    "rtsp": "rtsp://127.0.0.1:IN/x",
    "rtmp": "rtmp://127.0.0.1:IN/x",
    "pipe": "pipe:0",
    "file": "file:///etc/passwd",
    "file on localhost": "file://localhost/etc/passwd",
    "file in capitals": "FILE:///etc/passwd",
    "file without slashes": "file:etc/passwd",
    "path": "/etc/passwd",
    "path of a device": "/dev/zero",
    "path of a process": "/proc/self/environ",
    "path upwards": "../../../../etc/passwd",
    "path of the home": "~/.netrc",
    "nothing": "",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_the_inside_sees_nothing(world: World, name: str) -> None:
    with pytest.raises(SourceError) as caught:
        world.open(world.fill(HOSTILE[name]))
    assert world.connections() == 0
    said = str(caught.value)
    assert SECRET.decode() not in said
    assert "pass@" not in said
    assert "\n" not in said


@pytest.mark.parametrize("name", [name for name, url in HOSTILE.items() if url.startswith("!")])
def test_without_the_guard_it_would_be_reached(world: World, name: str) -> None:
    with suppress(SourceError):  # what it answers is not always a video
        world.open(world.fill(HOSTILE[name]), TRUSTING)
    assert world.connections() > 0


LEADS_OUTSIDE = {"host before a backslash", "the inside port outside"}


@pytest.mark.parametrize("name", [name for name, url in HOSTILE.items() if OUT not in url])
def test_the_border_refuses_what_the_url_shows(world: World, name: str) -> None:
    if name in LEADS_OUTSIDE:
        check_url(world.fill(HOSTILE[name]), POLICY, resolve=world.resolve)
    else:
        with pytest.raises(SourceError):
            check_url(world.fill(HOSTILE[name]), POLICY, resolve=world.resolve)
    assert world.connections() == 0


def test_the_refusal_names_the_hop_and_the_setting(world: World) -> None:
    target = f"http://u:secret@127.0.0.1:{world.port}/x.mp4?token=hidden"
    with pytest.raises(SourceError) as caught:
        world.open(world.fill(f"{OUT}/302/=>{target}"))
    assert str(caught.value) == (
        f"http://127.0.0.1:{world.port}/x.mp4?…: 127.0.0.1 does not lead to a public address; "
        "list its network in fetch.allow_networks to allow it"
    )


class Rebinding:
    """A name that leads outside at first, and inside after `good` look-ups."""

    def __init__(self, good: int, then: list[str]) -> None:
        self.good, self.then = good, then
        self.asked = 0

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return [OUTSIDE] if self.asked <= self.good else self.then


def test_a_name_that_moves_after_the_border(world: World) -> None:
    resolve = Rebinding(1, ["127.0.0.1"])
    url = f"http://moving.test:{world.port}/clip.mp4"
    check_url(url, POLICY, resolve=resolve)
    with pytest.raises(SourceError, match=r"fetch\.allow_networks"):
        world.open(url, resolve=resolve)
    assert world.connections() == 0


def test_a_name_that_moves_between_two_requests_of_a_file(world: World) -> None:
    resolve = Rebinding(1, ["127.0.0.1"])
    with pytest.raises(SourceError, match=r"fetch\.allow_networks"):
        world.open(f"http://moving.test:{world.outside.port}/large.mp4", resolve=resolve)
    assert resolve.asked > 1
    assert world.connections() == 0


def test_a_name_that_moves_between_two_segments(world: World) -> None:
    resolve = Rebinding(2, ["127.0.0.1"])
    with pytest.raises(SourceError, match=r"fetch\.allow_networks"):
        world.open(f"http://moving.test:{world.outside.port}/ts/list.m3u8", resolve=resolve)
    assert len(world.outside.asked) == 2
    assert world.connections() == 0


@pytest.mark.parametrize("order", [(OUTSIDE, "127.0.0.1", "::1"), ("::1", "127.0.0.1", OUTSIDE)])
def test_a_name_with_addresses_on_both_sides_leads_outside(
    world: World, order: tuple[str, ...]
) -> None:
    def both(host: str, port: int) -> list[str]:
        return list(order)

    assert len(world.open(f"http://both.test:{world.outside.port}/clip.mp4", resolve=both)) == 15
    with pytest.raises(SourceError, match=r"cannot connect to both\.test"):
        world.open(f"http://both.test:{world.port}/clip.mp4", resolve=both)
    assert world.connections() == 0


def test_a_proxy_of_the_environment_is_not_used(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{world.port}")
    assert len(world.open(world.fill(f"{OUT}/clip.mp4"))) == 15
    assert world.connections() == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda shelf: f"{shelf}/../secret.mp4",
        lambda shelf: f"{shelf}/link.mp4",
        lambda shelf: f"file://{shelf}/link.mp4",
        lambda shelf: f"file://{shelf}/%2e%2e/secret.mp4",
        lambda shelf: f"{shelf}/up/secret.mp4",
        lambda shelf: f"{shelf}-too/secret.mp4",
        lambda shelf: f"{shelf}/fifo",
    ],
    ids=["upwards", "link", "link in a url", "encoded", "linked folder", "like-named", "fifo"],
)
def test_files_outside_the_listed_folder(
    clips: Path, tmp_path: Path, make: Callable[[Path], str]
) -> None:
    shelf, like = tmp_path / "shelf", tmp_path / "shelf-too"
    for folder in (shelf, like, tmp_path):
        folder.mkdir(exist_ok=True)
        (folder / "secret.mp4").write_bytes((clips / "clip.mp4").read_bytes())
    (shelf / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (shelf / "up").symlink_to(tmp_path)
    (shelf / "fifo").symlink_to("/dev/zero")
    policy = FetchPolicy(paths=(str(shelf),))
    with pytest.raises(SourceError, match=r"fetch\.allow_paths"):
        open_source(make(shelf), policy=policy)
    with open_source(f"{shelf}/secret.mp4", decoder="decord", policy=policy) as source:
        assert source.info.decoder == "decord"
        assert len(list(source.frames())) == 6


def test_the_same_server_works_where_it_is_allowed(world: World, clips: Path) -> None:
    with open_source(str(clips / "clip.mp4"), fps=5, decoder="pyav") as source:
        direct = [frame.image for frame in source.frames()]
    inside = FetchPolicy(networks=("127.0.0.0/8",))
    for policy, base in [
        (POLICY, OUT),
        (inside, "http://127.0.0.1:IN"),
        (inside, "http://[::ffff:127.0.0.1]:IN"),
        (inside, "http://inside.test:IN"),
        (TRUSTING, "http://127.0.0.1:IN"),
    ]:
        for name in ("clip.mp4", "ts/list.m3u8"):
            got = world.open(world.fill(f"{base}/{name}"), policy)
            assert np.array_equal([frame.image for frame in got], direct)
    assert world.connections() > 0


@pytest.mark.parametrize("kind", ["ts", "fmp4", "ranges", "aes"])
def test_recordings_work_through_the_guard(world: World, clips: Path, kind: str) -> None:
    with open_source(str(clips / "clip.mp4"), fps=5, decoder="pyav") as source:
        direct = [frame.image for frame in source.frames()]
    for url in (f"{OUT}/{kind}/list.m3u8", f"{OUT}/302/=>/variant/=>/{kind}/list.m3u8"):
        got = world.open(world.fill(url))
        assert np.array_equal([frame.image for frame in got], direct)
    assert world.connections() == 0
