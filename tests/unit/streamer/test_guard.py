"""The guard: addresses and folders for strangers, without a network."""

import copy
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import SourceError
from streamer.sources.addresses import is_public, unwrap
from streamer.sources.files import LocalFile
from streamer.sources.guard import (
    TRUSTING,
    AddressRefused,
    FetchPolicy,
    check_url,
    find_allowed,
    local_path,
)

STRANGER = FetchPolicy()

INSIDE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",  # a cloud's metadata
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",  # a cloud's metadata
    "169.254.169.254",  # most clouds' metadata
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",  # a cloud's metadata
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:0:7f00:1::",
    "2001:2::1",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::",
    "2606:4700::5efe:10.0.0.1",
    "2606:4700::200:5efe:10.0.0.1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "172.32.0.1",
    "192.0.1.1",
    "223.255.255.255",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
]


@pytest.mark.parametrize("address", INSIDE)
def test_inside_addresses_are_refused(address: str) -> None:
    assert not STRANGER.allows(address)
    assert TRUSTING.allows(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert STRANGER.allows(address)


@pytest.mark.parametrize(
    "address", ["", "localhost", "127.1", "2130706433", "010.0.0.1", "::1/128"]
)
def test_what_is_not_an_address_is_refused(address: str) -> None:
    assert not STRANGER.allows(address)
    assert not FetchPolicy(networks=("0.0.0.0/0", "::/0")).allows(address)


def _teredo(inner: int, more: int) -> int:
    client = inner ^ 0xFFFFFFFF
    return 0x20010000 << 96 | (more & 0xFFFFFFFF) << 64 | more & 0xFFFFFFFF << 32 | client


EMBEDDINGS: dict[str, Callable[[int, int], IPv4Address | IPv6Address]] = {
    "itself": lambda inner, more: IPv4Address(inner),
    "mapped": lambda inner, more: IPv6Address(0xFFFF << 32 | inner),
    "compatible": lambda inner, more: IPv6Address(inner),
    "translated": lambda inner, more: IPv6Address(0xFFFF << 48 | inner),
    "nat64": lambda inner, more: IPv6Address(0x64FF9B << 96 | inner),
    "local nat64": lambda inner, more: IPv6Address(0x64FF9B0001 << 80 | inner),
    "6to4": lambda inner, more: IPv6Address(0x2002 << 112 | inner << 80 | more),
    "teredo client": lambda inner, more: IPv6Address(_teredo(inner, more)),
    "teredo server": lambda inner, more: IPv6Address(0x20010000 << 96 | inner << 64 | more),
    "isatap": lambda inner, more: IPv6Address(0x2606 << 112 | 0x5EFE << 32 | inner),
}
RFC1918 = st.one_of(
    [
        st.integers(int(IPv4Address(first)), int(IPv4Address(last)))
        for first, last in [
            ("10.0.0.0", "10.255.255.255"),
            ("172.16.0.0", "172.31.255.255"),
            ("192.168.0.0", "192.168.255.255"),
        ]
    ]
)
ANY = st.one_of(
    st.integers(0, 2**32 - 1),
    st.integers(2**32, 2**128 - 1),
    st.integers(0x2001 << 112, (0x2002 << 112) - 1),
    st.integers(0x2001 << 112, (0x2001 << 112) + (0xDB9 << 96)),
)


@given(inner=RFC1918, how=st.sampled_from(sorted(EMBEDDINGS)), more=st.integers(0, 2**64 - 1))
def test_a_private_address_is_refused_in_every_wrapping(inner: int, how: str, more: int) -> None:
    assert not STRANGER.allows(str(EMBEDDINGS[how](inner, more)))


@given(number=ANY)
def test_nothing_is_public_that_python_calls_inside(number: int) -> None:
    address = unwrap(str(ip_address(number)))
    assert address.is_global or not is_public(address)


@pytest.mark.parametrize(
    ("network", "opened", "closed"),
    [
        ("127.0.0.0/8", ["127.9.9.9", "::ffff:127.0.0.1", "64:ff9b::7f00:1"], ["::1", "10.0.0.1"]),
        ("10.1.2.3", ["10.1.2.3", "::ffff:10.1.2.3"], ["10.1.2.4", "2002:a01:203::"]),
        ("fd00::/8", ["fd12::1"], ["fe80::1", "10.0.0.1"]),
        ("fe80::/10", ["fe80::1", "fe80::1%eth0"], ["::1"]),
        ("::1", ["::1"], ["127.0.0.1", "::2"]),
        ("::/0", ["::1", "fe80::1"], ["127.0.0.1", "::ffff:127.0.0.1"]),
    ],
)
def test_networks_that_are_listed_are_allowed(
    network: str, opened: list[str], closed: list[str]
) -> None:
    policy = FetchPolicy(networks=(network,))
    assert all(policy.allows(address) for address in opened)
    assert not any(policy.allows(address) for address in closed)


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1/8", "10.0.0.0/33", "localhost", "10.0.0.0-10.0.0.9"]
)
def test_a_network_that_is_none_is_named(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"^fetch\.allow_networks: .* is not a network .* give one"
    ):
        FetchPolicy(networks=("10.0.0.0/8", text))


@pytest.mark.parametrize("folder", ["", "videos", "~/videos"])
def test_a_folder_needs_an_absolute_path(folder: str) -> None:
    with pytest.raises(ValueError, match=r"^fetch\.allow_paths: '.*' is not absolute"):
        FetchPolicy(paths=(folder,))


def test_a_policy_can_be_sent_to_a_worker() -> None:
    policy = FetchPolicy(networks=("10.0.0.0/8",), paths=("/srv",))
    assert copy.copy(policy) == policy  # takes the way of sending


def names(host: str, port: int) -> list[str]:
    """A look-up in which `inside` and `outside` are names."""
    found = {"outside": ["8.8.8.8"], "inside": ["10.0.0.1"], "both": ["10.0.0.1", "8.8.8.8"]}
    if host in found:
        return found[host]
    if host == "nowhere":
        raise OSError("no such host")
    return [host]


@pytest.mark.parametrize(
    "url",
    [
        "http://outside/x.mp4",
        "HTTPS://me:secret@outside:8443/x.mp4?token=1#f",
        "http://both/x.mp4",
        "http://8.8.8.8",
        "http://[2606:4700:4700::1111]/x.mp4",
        "rtsp://me:secret@outside/live",
        "RTSPS://outside:322/live?x=1",
        "rtmp://outside/live/key",
        "rtmps://[2606:4700:4700::1111]/live/key",
    ],
)
def test_what_strangers_may_ask_for(url: str) -> None:
    check_url(url, STRANGER, resolve=names)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "http://me:secret@inside/x.mp4?token=hidden",
            "http://inside/x.mp4?…: inside does not lead to a public address; "
            "list its network in fetch.allow_networks to allow it",
        ),
        (
            "/etc/passwd",
            "/etc/passwd: files of this folder may not be read; "
            "list the folder in fetch.allow_paths to allow it",
        ),
        (
            "srt://me:secret@cam/live",
            "srt://cam/live: 'srt' is not supported; "
            "use a file path, file:, http:, https:, rtsp:, rtsps:, rtmp: or rtmps:",
        ),
        (
            "rtsp://me:secret@inside/live?token=hidden",
            "rtsp://inside/live?…: inside does not lead to a public address; "
            "list its network in fetch.allow_networks to allow it",
        ),
        ("rtmp://nowhere/x", "rtmp://nowhere/x: nowhere cannot be found; check the host"),
        (
            "rtmp:http://outside/x",
            "rtmp:http://outside/x: is not an rtsp:, rtsps:, rtmp: or rtmps: URL; check it",
        ),
        (
            "rtsps://outside:0/x",
            "rtsps://outside:0/x: is not an rtsp:, rtsps:, rtmp: or rtmps: URL; check it",
        ),
        ("http://nowhere/x", "http://nowhere/x: nowhere cannot be found; check the host"),
        ("http:///x", "http:///x: is not an http: or https: URL; check it"),
        ("http://outside:0/x", "http://outside:0/x: is not an http: or https: URL; check it"),
        ("http://outside:65616/", "http://outside:65616/: is not an http: or https: URL; check it"),
        ("http://xn--a/", "http://xn--a/: is not a URL; check it"),
        ("http://h/\ud800", "http://h/?: is not a URL; check it"),
        ("http://h/\x1b[31m", "http://h/?[31m: is not a URL; check it"),
    ],
)
def test_a_refusal_is_one_sentence(url: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        check_url(url, STRANGER, resolve=names)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "scheme",
    [
        "concat",
        "subfile",
        "data",
        "crypto+http",
        "pipe",
        "ftp",
        "gopher",
        "rtmpt",
        "hls+http",
        "async",
    ],
)
@pytest.mark.parametrize("policy", [STRANGER, TRUSTING], ids=["stranger", "trusting"])
def test_other_schemes_are_not_supported(scheme: str, policy: FetchPolicy) -> None:
    with pytest.raises(SourceError, match=f"'{re.escape(scheme)}' is not supported"):
        check_url(f"{scheme}:http://outside/x", policy, resolve=names)


@given(
    url=st.one_of(
        st.text(),
        st.text(alphabet="htps:/[]@%.#?\\0123 \n\0ａ。①\ud800", max_size=40),
        st.from_regex(r"https?://[^/]{1,20}(:.{0,6})?/.*"),
        st.from_regex(r"file:(//)?.*"),
    )
)
def test_whatever_is_asked_for_is_allowed_or_refused_in_one_line(url: str) -> None:
    said = ""
    try:
        check_url(url, STRANGER, resolve=lambda host, port: ["8.8.8.8"])
    except SourceError as exc:
        said = str(exc)
    assert said.isprintable()


def test_of_several_addresses_the_allowed_ones_are_left() -> None:
    policy = FetchPolicy(networks=("10.0.0.0/8",))
    both = ["10.0.0.1", "8.8.8.8", "127.0.0.1", "8.8.8.8"]
    found = find_allowed("h", 80, policy, resolve=lambda host, port: both, timeout_s=1)
    assert found == ["10.0.0.1", "8.8.8.8"]
    with pytest.raises(AddressRefused):
        find_allowed("h", 80, STRANGER, resolve=lambda host, port: ["::1", "x"], timeout_s=1)
    with pytest.raises(OSError, match="no address"):
        find_allowed("h", 80, STRANGER, resolve=lambda host, port: [], timeout_s=1)


def test_a_look_up_that_does_not_end_is_given_up() -> None:
    done = threading.Event()

    def slow(host: str, port: int) -> list[str]:
        done.wait(20)
        return ["8.8.8.8"]

    with pytest.raises(TimeoutError, match=r"h was not found within 0\.05 s"):
        find_allowed("h", 80, STRANGER, resolve=slow, timeout_s=0.05)
    done.set()


@pytest.mark.parametrize("host", ["a" * 70, "a..b", "\u2024"])
def test_a_name_that_cannot_be_looked_up_is_not_found(host: str) -> None:
    with pytest.raises(OSError, match=r"is not a host name|[Nn]ame|resolution"):
        find_allowed(host, 80, STRANGER, resolve=None, timeout_s=5)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with a video, beside a secret one."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "x.mp4").write_bytes(b"video")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (tmp_path / "shelf2").mkdir()
    (tmp_path / "shelf2" / "y.mp4").write_bytes(b"secret")
    (folder / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "same.mp4").symlink_to(folder / "x.mp4")
    os.mkfifo(folder / "fifo")
    return folder


@pytest.mark.parametrize("name", ["x.mp4", "same.mp4", "folder/shelf/x.mp4", "../shelf/x.mp4"])
def test_files_of_a_listed_folder_may_be_read(shelf: Path, name: str) -> None:
    policy = FetchPolicy(paths=(str(shelf),))
    for url in (f"{shelf}/{name}", f"file://{shelf}/{name}", f"file://localhost{shelf}/{name}"):
        check_url(url, policy)
        path = local_path(url, policy)
        assert path is not None
        file = LocalFile(path, url, policy)
        assert file.read() == b"video"
        file.close()


def test_a_folder_may_be_listed_by_a_link(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(shelf)
    check_url(f"{shelf}/x.mp4", FetchPolicy(paths=(str(tmp_path / "alias"),)))


@pytest.mark.parametrize(
    "name",
    [
        "../secret.mp4",
        "../nothing.mp4",
        "../shelf2/y.mp4",
        "link.mp4",
        "folder/secret.mp4",
        "folder/../../etc/passwd",
        "x.mp4/../../secret.mp4",
    ],
)
def test_files_beside_a_listed_folder_are_refused_there_or_not(shelf: Path, name: str) -> None:
    policy = FetchPolicy(paths=(str(shelf),))
    for url in (f"{shelf}/{name}", f"file://{shelf}/{name}", f"file://{shelf}/{name}?x"):
        with pytest.raises(SourceError, match=r"may not be read; .* fetch\.allow_paths"):
            check_url(url, policy)


def test_a_name_that_leads_elsewhere_by_now_is_refused_when_it_is_opened(shelf: Path) -> None:
    policy = FetchPolicy(paths=(str(shelf),))
    path = local_path(f"{shelf}/x.mp4", policy)
    assert path is not None
    path.unlink()
    path.symlink_to(shelf.parent / "secret.mp4")
    with pytest.raises(SourceError, match=r"fetch\.allow_paths"):
        LocalFile(path, "x", policy)


def test_a_relative_path_counts_from_where_the_process_is(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shelf)
    (shelf / "talk: part 1.mp4").write_bytes(b"video")
    policy = FetchPolicy(paths=(str(shelf),))
    assert local_path("x.mp4", policy) == shelf / "x.mp4"
    assert local_path("talk: part 1.mp4") == shelf / "talk: part 1.mp4"
    with pytest.raises(SourceError, match="'talk' is not supported"):
        local_path("talk: part 1.mp4", policy)


def test_an_open_file_has_a_path_that_nobody_can_move(shelf: Path) -> None:
    file = LocalFile(shelf / "x.mp4", "x")
    (shelf / "x.mp4").unlink()
    assert file.path.read_bytes() == b"video"
    file.close()


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("fifo", "is not a regular file"),
        ("/dev/null", "is not a regular file"),
        (".", "is a folder"),
        ("empty.mp4", r"the file is empty \(0 bytes\); check how it was written"),
        ("none.mp4", r"cannot be opened \(No such file"),
        ("a\0b", "cannot be opened"),
        ("a" * 300, r"cannot be opened \(File name too long"),
    ],
)
def test_what_is_not_a_file_to_read(shelf: Path, name: str, match: str) -> None:
    (shelf / "empty.mp4").touch()
    with pytest.raises(SourceError, match=f"^the URL: .*{match}"):
        LocalFile(shelf / name, "the URL")


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("file://server/x.mp4", "^file://server/x.mp4: is on another machine"),
        ("file://me:secret@server/x.mp4", "^file://server/x.mp4: is on another machine"),
        ("file://[/x.mp4", "is not a URL"),
        ("concat:/etc/passwd|/etc/hosts", "'concat' is not supported"),
        ("data:video/mp4;base64,AAAA", "'data' is not supported"),
    ],
)
def test_urls_of_no_file(url: str, match: str) -> None:
    with pytest.raises(SourceError, match=match):
        local_path(url)


def test_the_border_needs_no_decoder() -> None:
    code = (
        "import sys\n"
        "from streamer.sources import TRUSTING, check_url, open_source\n"
        "check_url('http://127.0.0.1:1/', TRUSTING)\n"
        "print([m for m in ('av', 'decord', 'torch', 'ray', 'cryptography') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.strip() == "[]"
