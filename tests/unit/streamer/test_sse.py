"""Server-sent events, by the standard's own examples, however the bytes are cut."""

from __future__ import annotations

from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import WireError
from streamer.sse import Message, MessageParser


def parse(*chunks: bytes) -> list[tuple[str, str, str]]:
    parser = MessageParser()
    return [(m.event, m.data, m.id) for chunk in chunks for m in parser.feed(chunk)]


KNOWN: dict[str, tuple[bytes, list[tuple[str, str, str]]]] = {
    "data": (b"data: hello\n\n", [("message", "hello", "")]),
    "several_lines": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10", "")]),
    "named": (b"event: add\ndata: 73857293\n\n", [("add", "73857293", "")]),
    "ids_persist": (
        b": test stream\n\ndata: first event\nid: 1\n\n"
        b"data:second event\nid\n\ndata:  third event\n\n",
        [
            ("message", "first event", "1"),
            ("message", "second event", ""),
            ("message", " third event", ""),
        ],
    ),
    "id_kept": (b"id: 7\ndata: a\n\ndata: b\n\n", [("message", "a", "7"), ("message", "b", "7")]),
    "id_alone": (b"id: 7\n\ndata: b\n\n", [("message", "b", "7")]),
    "id_with_null": (
        b"id: 7\ndata: a\n\nid: 8\0\ndata: b\n\n",
        [("message", "a", "7"), ("message", "b", "7")],
    ),
    "empty_data": (b"data\n\ndata\ndata\n\ndata:", [("message", "", ""), ("message", "\n", "")]),
    "one_space_only": (b"data:test\n\ndata: test\n\n", [("message", "test", "")] * 2),
    "name_without_data": (b"event: gone\n\ndata: a\n\n", [("message", "a", "")]),
    "comment": (b": keep-alive\n\n:\n\ndata: a\n:b\ndata: c\n\n", [("message", "a\nc", "")]),
    "unknown_field": (b"colour: red\ndata: a\n\n", [("message", "a", "")]),
    "colons": (b'data: {"a":1}\n\n', [("message", '{"a":1}', "")]),
    "bom": (b"\xef\xbb\xbfdata: a\n\n", [("message", "a", "")]),
    "bom_later": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [("message", "a", "")]),
    "cr": (b"data: a\rdata: b\r\r", [("message", "a\nb", "")]),
    "crlf": (b"data: a\r\ndata: b\r\n\r\n", [("message", "a\nb", "")]),
    "mixed": (
        b"data: a\r\ndata: b\n\r\ndata: c\r\n\n",
        [("message", "a\nb", ""), ("message", "c", "")],
    ),
    "no_other_line_ends": (
        "data: a\x0bb\x85c\u2028d\n\n".encode(),
        [("message", "a\x0bb\x85c\u2028d", "")],
    ),
    "not_utf8": (b"data: \xff\n\n", [("message", "\ufffd", "")]),
    "unfinished": (b"data: a\n\ndata: b\n", [("message", "a", "")]),
}


@pytest.mark.parametrize(("stream", "expected"), KNOWN.values(), ids=KNOWN)
def test_a_stream_is_read_by_the_standard(
    stream: bytes, expected: list[tuple[str, str, str]]
) -> None:
    assert parse(stream) == expected


@pytest.mark.parametrize(("stream", "expected"), KNOWN.values(), ids=KNOWN)
def test_byte_by_byte(stream: bytes, expected: list[tuple[str, str, str]]) -> None:
    assert parse(*(stream[n : n + 1] for n in range(len(stream)))) == expected


LINES = st.sampled_from(
    ["data: a", "data:ü😀", "data", "id: 1", "id", "event: x", "retry: 9", ": c", "", "", "\ufeff"]
)


@st.composite
def cut(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A stream, and the same in pieces."""
    ends = st.sampled_from(["\n", "\r", "\r\n"])
    lines = draw(st.lists(st.tuples(LINES | st.text("ab:\r\n \0", max_size=5), ends), max_size=20))
    stream = "".join(line + end for line, end in lines).encode()
    at = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    return stream, [stream[a:b] for a, b in zip([0, *at], [*at, len(stream)], strict=True)]


@given(cut())
def test_any_cutting_gives_the_same_messages(pieces: tuple[bytes, list[bytes]]) -> None:
    stream, chunks = pieces
    assert parse(*chunks) == parse(stream)


def test_the_wait_that_the_server_asks_for() -> None:
    parser = MessageParser()
    assert list(parser.feed(b"retry: 2500\nretry: soon\nretry: -1\nretry:\n\n")) == []
    assert parser.retry_ms == 2500


def test_an_id_counts_when_its_message_is_complete() -> None:
    parser = MessageParser()
    assert list(parser.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n")) == [
        Message(event="message", data="a", id="1")
    ]
    assert parser.last_id == "1"


@pytest.mark.parametrize("part", [b"data: " + b"x" * 1000, b"data: x\n", b"data\n"])
def test_a_message_without_end_is_refused(part: bytes) -> None:
    with pytest.raises(WireError, match="longer than 4 MiB"):
        parse(*repeat(part * 100, 100_000))
