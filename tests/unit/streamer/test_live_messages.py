"""Messages of a decoding process, and what is none."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.adapters.clock import SYSTEM_CLOCK
from streamer.sources import TRUSTING, Limits
from streamer.sources.live.messages import Garbled, Message, read, write
from streamer.sources.live.process import DecodingProcess
from streamer.sources.live.task import Task
from streamer.sources.live.timeline import Anchor
from tests.processes import eventually

ANCHOR = Anchor(t=1.5, arrival=2.5, epoch=1.0, steady=1.0, known_s=9.0, burst_s=0.25, offset=-3.0)
HEAD = {
    "kind": "picture",
    "reason": "",
    "anchor": None,
    "place": None,
    "slot": 1,
    "count": 1,
    "cost_ms": 1.0,
    "size": [2, 2],
}


def sent(*messages: Message) -> io.BytesIO:
    stream = io.BytesIO()
    for message in messages:
        write(stream, message)
    stream.seek(0)
    return stream


def test_what_is_written_is_read() -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    stream = sent(
        Message(kind="alive", anchor=ANCHOR, place="behind 7"),
        Message(kind="picture", slot=4, count=2, picture=image, anchor=ANCHOR, cost_ms=1.5),
        Message(kind="lost", reason="the server left"),
    )
    alive, picture, lost = (read(stream, max_pixels=100) for _ in range(3))
    assert read(stream, max_pixels=100) is None
    assert alive is not None
    assert (alive.kind, alive.anchor, alive.place) == ("alive", ANCHOR, "behind 7")
    assert picture is not None
    assert (picture.slot, picture.count, picture.cost_ms) == (4, 2, 1.5)
    assert picture.picture is not None
    assert (picture.picture == image).all()
    assert lost is not None
    assert (lost.kind, lost.reason) == ("lost", "the server left")


def test_a_message_that_breaks_off_is_the_end() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    whole = sent(Message(kind="picture", picture=image)).getvalue()
    assert read(io.BytesIO(whole[:-1]), max_pixels=100) is None


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"reason": 1},
        {"anchor": {"t": 1}},
        {
            "anchor": {
                **dict.fromkeys(("t", "arrival", "epoch", "steady", "known_s", "burst_s"), 1e999)
            }
        },
        {"place": 3},
        {"slot": -1},
        {"slot": True},
        {"count": 1 << 40},
        {"cost_ms": "x"},
        {"size": None},
        {"size": [1 << 40, 1]},
        {"size": [11, 11]},
        {"size": [1]},
        {"size": {"0": 1}},
    ],
    ids=str,
)
def test_a_wrong_head_is_no_message(change: dict[str, object]) -> None:
    line = json.dumps({**HEAD, **change}).encode() + b"\n"
    with pytest.raises(Garbled):
        read(io.BytesIO(line + bytes(1000)), max_pixels=100)


@given(data=st.binary(max_size=200))
def test_garbage_is_no_message(data: bytes) -> None:
    with pytest.raises(Garbled):
        read(io.BytesIO(data + b"\n"), max_pixels=100)


def test_a_process_that_ended_in_the_middle_of_a_line_said_nothing_more() -> None:
    assert read(io.BytesIO(b'{"kind'), max_pixels=100) is None


def test_a_task_arrives_as_it_was_told() -> None:
    task = Task(
        url="rtsp://me:hush@h/x", fps=2, limits=Limits(), policy=TRUSTING, anchor=ANCHOR, place="p"
    )
    assert Task.from_json(task.to_json()) == task
    assert "hush" not in repr(task)


def test_a_process_starts_without_torch_and_says_what_is_wrong() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'ray', 'redis', 'transformers']))\n"
        "import streamer.sources.live.child"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    said: list[Message | None] = []
    task = Task(url="rtsp://127.0.0.1:1/x", fps=2, limits=Limits(), policy=TRUSTING)
    process = DecodingProcess(task, SYSTEM_CLOCK, lambda _, message: said.append(message))
    try:
        assert eventually(lambda: None in said, within_s=30)
    finally:
        process.close()
    first = said[0]
    assert first is not None
    assert first.kind == "lost"
    assert first.reason == (
        "rtsp://127.0.0.1:1/x: cannot connect to 127.0.0.1; check the host and the port"
    )


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os.write(out, bytes(100_000))", r"its decoding process sent b'"),
        ("os.write(out, HEAD + bytes(3))", r"its decoding process ended \(exit code 0\)"),
        ("os.write(out, HEAD + bytes(3)); os.kill(os.getpid(), 9)", r"ended \(signal 9\)"),
        ("sys.exit(3)", r"its decoding process ended \(exit code 3\)"),
        ("os.write(1, bytes(1_000_000)); sys.exit(3)", r"exit code 3"),
    ],
    ids=["garbage", "half", "killed", "exit", "chatter"],
)
def test_what_a_broken_process_does_is_its_end(code: str, reason: str) -> None:
    head = json.dumps(HEAD).encode() + b"\n"
    source = f"import os, sys; out = int(sys.argv[1]); HEAD = {head!r}; sys.stdin.read(); {code}"
    said: list[Message | None] = []
    task = Task(url="rtsp://me:hush@h/x", fps=2, limits=Limits(), policy=TRUSTING)
    process = DecodingProcess(
        task,
        SYSTEM_CLOCK,
        lambda _, message: said.append(message),
        command=[sys.executable, "-c", source],
    )
    try:
        assert eventually(lambda: bool(said), within_s=10)
        assert said == [None]
        assert process.end is not None
        assert re.search(reason, process.end)
        assert process.end.startswith("rtsp://h/x: ")
    finally:
        process.close()
