"""The wire format: what is written comes back, damage is refused by name, old files load."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from streamer.errors import WireError
from streamer.wire import (
    ChunkHead,
    TokenChunk,
    decode,
    decode_head,
    encode,
    encode_head,
    without_tokens,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "wire"


def a_chunk(**head: Any) -> TokenChunk:
    """A P-chunk of two tubelets of 2 × 3 cells, three tokens of width 2, t from 2."""
    known: dict[str, Any] = {
        "job": "cam",
        "number": 2,
        "kind": "P",
        "t0": 2.0,
        "t1": 4.0,
        "tubelet_s": (2.25, 3.25),
        "tubelet_t": 2,
        "grid": (2, 3),
        "tokens": 3,
        "dense": 12,
    }
    return TokenChunk(
        head=ChunkHead(**(known | head)),
        tokens=torch.tensor([[0.5, -1.0], [1.5, 3.0], [-2.0, 0.0]]).bfloat16(),
        position=torch.tensor([[2, 0, 2], [3, 0, 2], [3, 1, 0]], dtype=torch.int32),
        run=torch.tensor([1, 1, 5], dtype=torch.int32),
        size=torch.tensor([1.0, 2.5, 5.0]),
    )


def a_gap() -> ChunkHead:
    return ChunkHead(job="cam", number=3, kind="gap", t0=4.0, t1=9.5, reason="no pictures")


def same(a: TokenChunk, b: TokenChunk) -> bool:
    pairs = [(a.tokens, b.tokens), (a.position, b.position), (a.run, b.run), (a.size, b.size)]
    if a.deepstack is not None and b.deepstack is not None:
        pairs.append((a.deepstack, b.deepstack))
    return (
        a.head == b.head
        and (a.deepstack is None) == (b.deepstack is None)
        and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in pairs)
    )


def test_a_chunk_comes_back_bit_for_bit() -> None:
    chunk = a_chunk(operators=("rlt", "tome"), trace="t", decode_ms=1.5, reason="grüße")
    assert same(decode(encode(chunk)), chunk)
    deep = dataclasses.replace(chunk, deepstack=torch.randn(3, 3, 2).bfloat16())
    assert same(decode(encode(deep)), deep)


def test_a_chunk_in_which_nothing_changed_comes_back() -> None:
    nothing = a_chunk(tokens=0)
    nothing = TokenChunk(
        head=nothing.head,
        tokens=nothing.tokens[:0],
        position=nothing.position[:0],
        run=nothing.run[:0],
        size=nothing.size[:0],
        deepstack=torch.empty(3, 0, 2, dtype=torch.bfloat16),
    )
    back = decode(encode(nothing))
    assert same(back, nothing)
    assert back.tokens.shape == (0, 2)


def test_views_and_gradients_are_written() -> None:
    chunk = a_chunk()
    both = torch.zeros(6, 2, dtype=torch.bfloat16).requires_grad_()
    views = dataclasses.replace(
        chunk, tokens=both[:3], deepstack=both[3:][None], position=chunk.position.T.contiguous().T
    )
    assert same(decode(encode(views)), dataclasses.replace(views, tokens=both[:3].detach()))


@pytest.mark.parametrize("kind", ["gap", "skipped"])
def test_a_gap_has_no_body(kind: Any) -> None:
    head = dataclasses.replace(a_gap(), kind=kind)
    fields = encode_head(head)
    assert set(fields) == {"head"}
    assert encode(without_tokens(head)) == fields
    assert decode(fields).head == decode(fields | {"body": b""}).head == head
    assert decode(fields).tokens.shape == (0, 0)
    with pytest.raises(WireError, match=r"body: a .* has none"):
        decode(fields | {"body": b"x"})
    with pytest.raises(WireError, match="carries no tokens"):
        encode(dataclasses.replace(a_chunk(), head=head))


def test_unknown_fields_are_ignored_and_optional_ones_default() -> None:
    fields = encode(a_chunk(operators=("rlt",), trace="x", reason="y"))
    head = json.loads(fields["head"])
    for name in ("operators", "trace", "patches_kept", "decode_ms", "written_at", "reason"):
        del head[name]
    head["colour"] = {"new": [1]}
    fields["head"] = json.dumps(head).encode()
    fields["later"] = b"?"
    fields["body"] = save(load(fields["body"]) | {"extra": torch.zeros(9)})
    assert same(decode(fields), a_chunk())


HEAD_FAULTS = [
    ("schema", 2, "head.schema: 2 is not one this version reads"),
    ("schema", None, "head.schema: None is not one this version reads"),
    ("schema", "1", "head.schema: '1' is not one"),
    ("schema", True, "head.schema: True is not an integer"),
    ("job", "", "head.job: '' is not text"),
    ("job", "\ud800", "head.job: .* half characters"),
    ("number", 0, "head.number: 0 is not an integer from 1"),
    ("number", 2.0, "head.number: 2.0 is not an integer"),
    ("number", "2", "head.number: '2' is not"),
    ("kind", "B", "head.kind: 'B' is not one of I, P, gap, skipped"),
    ("kind", [], r"head.kind: \[\] is not one of"),
    ("t0", -1, "head.t0: -1 is not a number"),
    ("t0", 10**400, "head.t0: 1000.* is not a number"),
    ("t0", "2", "head.t0: '2' is not a number"),
    ("t0", 5.0, "head.t1: 4.0 is before t0"),
    ("tubelet_s", 3, "head.tubelet_s: 3 is not a list"),
    ("tubelet_s", [], "head.tubelet_s: .* rising"),
    ("tubelet_s", [3.0, 2.0], "head.tubelet_s: .* rising"),
    ("tubelet_s", [2.25], "head.dense: 12 is not 1 tubelets"),
    ("tubelet_t", 2**31 - 2, "head.tubelet_t: .* int32"),
    ("grid", [2], "head.grid: .* a list of 2"),
    ("grid", [2, 4], "head.dense: 12 is not 2 tubelets × 2 × 4"),
    ("tokens", 13, "head.tokens: 13 is more than dense"),
    ("tokens", 2, r"body.tokens: shape \(3, 2\) is not \(N, D\) with N=2"),
    ("operators", ["a", 1], "head.operators: .* is not text"),
    ("decode_ms", None, "head.decode_ms: None is not a number"),
]


@pytest.mark.parametrize(("name", "value", "message"), HEAD_FAULTS)
def test_a_wrong_head_is_refused_by_name(name: str, value: object, message: str) -> None:
    fields = encode(a_chunk())
    fields["head"] = json.dumps(json.loads(fields["head"]) | {name: value}).encode()
    with pytest.raises(WireError, match=f"^job cam tokens entry 2: {message}"):
        decode(fields, where="job cam tokens entry 2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "head is missing"),
        (b"", "head is not JSON"),
        (b"{", "head is not JSON"),
        (b"\xff{}", "head is not JSON"),
        (b"[1]", "head is .* must be a JSON object"),
        (b"{}", "head.schema"),
        (b'{"schema":1}', "head.job is missing"),
        (b'{"schema":1,"t0":NaN}', "NaN is not a number"),
        (b'{"schema":1,"job":"x","t0":1e999}', "head.t0: inf is not a number"),
        (b"[" * 200_000, "head is not JSON"),
    ],
)
def test_a_head_that_is_not_json_is_refused(text: bytes | None, message: str) -> None:
    with pytest.raises(WireError, match=message):
        decode_head({} if text is None else {"head": text})


def test_a_gap_says_why_and_holds_nothing() -> None:
    changes: list[tuple[dict[str, Any], str]] = [
        ({"reason": ""}, "head.reason"),
        ({"tokens": 1}, "head.tokens"),
    ]
    for change, message in changes:
        text = json.dumps(dataclasses.asdict(a_gap()) | change).encode()
        with pytest.raises(WireError, match=message):
            decode_head({"head": text})


def test_an_i_chunk_has_tokens() -> None:
    with pytest.raises(WireError, match=r"head.tokens: 0 in an I-chunk"):
        encode_head(dataclasses.replace(a_chunk().head, kind="I", tokens=0))


NAN = torch.tensor([[0.5, float("nan")]] * 3).bfloat16()
BODY_FAULTS: list[tuple[str, torch.Tensor | None, str]] = [
    ("tokens", None, "body.tokens is missing"),
    ("tokens", torch.zeros(3, 2), "body.tokens: float32, must be bfloat16"),
    ("tokens", torch.zeros(3, 2, dtype=torch.float16), "body.tokens: "),
    ("tokens", torch.zeros(3, dtype=torch.bfloat16), "body.tokens: shape"),
    ("tokens", torch.zeros(4, 2, dtype=torch.bfloat16), r"body.tokens: shape \(4, 2\)"),
    ("tokens", torch.zeros(3, 0, dtype=torch.bfloat16), "body.tokens: shape"),
    ("tokens", NAN, "body.tokens: holds NaN or Inf"),
    ("tokens", NAN.nan_to_num(float("inf")), "body.tokens: holds NaN or Inf"),
    ("deepstack", NAN[None], "body.deepstack: holds NaN or Inf"),
    ("deepstack", torch.zeros(1, 3, 4, dtype=torch.bfloat16), "body.deepstack: shape"),
    ("deepstack", torch.zeros(0, 3, 2, dtype=torch.bfloat16), "body.deepstack: shape"),
    ("deepstack", torch.zeros(1, 2, 2, dtype=torch.bfloat16), "body.deepstack: shape"),
    ("position", torch.zeros(3, 3), "body.position: float32, must be int32"),
    ("position", torch.zeros(3, 2, dtype=torch.int32), "body.position: shape"),
    ("position", torch.tensor([[2, 0, 0]] * 2 + [[1, 0, 0]]).int(), r"body.position: \[1, 0, 0\]"),
    ("position", torch.tensor([[2, 0, 0]] * 2 + [[4, 0, 0]]).int(), r"body.position: \[4, 0, 0\]"),
    ("position", torch.tensor([[2, 0, 0]] * 2 + [[2, 2, 0]]).int(), r"body.position: \[2, 2, 0\]"),
    ("position", torch.tensor([[3, 0, 0]] * 2 + [[2, 0, 0]]).int(), "body.position: t goes back"),
    ("position", torch.tensor([[2, 0, 0]] * 2 + [[2, 0, -1]]).int(), "body.position: .*outside"),
    ("run", torch.tensor([1, 0, 1], dtype=torch.int32), "body.run: 0, must be at least 1"),
    ("run", torch.tensor([1, 1, 1]), "body.run: "),
    ("size", torch.tensor([1.0, 0.0, 1.0]), "body.size: 0.0, must be"),
    ("size", torch.tensor([1.0, float("nan"), 1.0]), "body.size: nan, must be"),
    ("size", torch.tensor([1.0, float("inf"), 1.0]), "body.size: inf, must be"),
    ("size", torch.ones(3, dtype=torch.float64), "body.size: "),
]


@pytest.mark.parametrize(("name", "tensor", "message"), BODY_FAULTS)
def test_a_wrong_body_is_refused_by_reader_and_writer(
    name: str, tensor: torch.Tensor | None, message: str
) -> None:
    chunk = a_chunk()
    fields = encode(chunk)
    body = load(fields["body"])
    if tensor is None:
        del body[name]
    else:
        body[name] = tensor
        wrong: dict[str, Any] = {name: tensor}
        with pytest.raises(WireError, match=f"^job cam chunk 2: {message}"):
            encode(dataclasses.replace(chunk, **wrong))
    fields["body"] = save(body)
    with pytest.raises(WireError, match=f"^here: {message}"):
        decode(fields, where="here")


def test_a_missing_body_is_refused() -> None:
    with pytest.raises(WireError, match="body"):
        decode(encode_head(a_chunk().head))


WHOLE = encode(dataclasses.replace(a_chunk(), deepstack=torch.ones(2, 3, 2, dtype=torch.bfloat16)))
NAMES = st.sampled_from(["head", "body"])


def valid_or_wire_error(fields: dict[str, bytes]) -> None:
    try:
        chunk = decode(fields)
    except WireError:
        return
    assert same(decode(encode(chunk)), chunk)


@settings(deadline=None)
@given(NAMES, st.binary(max_size=400))
def test_fuzz_random_bytes(name: str, data: bytes) -> None:
    valid_or_wire_error(WHOLE | {name: data})


@settings(deadline=None)
@given(NAMES, st.data())
def test_fuzz_truncation(name: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(WHOLE[name]) - 1))
    with pytest.raises(WireError):
        decode(WHOLE | {name: WHOLE[name][:cut]})


@settings(max_examples=600, deadline=None)
@given(NAMES, st.data())
def test_fuzz_bit_flips(name: str, data: st.DataObject) -> None:
    damaged = bytearray(WHOLE[name])
    for at in data.draw(st.lists(st.integers(0, 8 * len(damaged) - 1), min_size=1, max_size=4)):
        damaged[at // 8] ^= 1 << at % 8
    valid_or_wire_error(WHOLE | {name: bytes(damaged)})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.sampled_from([field.name for field in dataclasses.fields(ChunkHead)]), JSON)
def test_fuzz_json_types(name: str, value: object) -> None:
    head = json.loads(WHOLE["head"]) | {name: value}
    valid_or_wire_error(WHOLE | {"head": json.dumps(head).encode()})


def test_heads_are_read_without_torch() -> None:
    program = (
        "import sys, streamer.wire as wire, streamer.events\n"
        "head = wire.decode_head({'head': open(sys.argv[1], 'rb').read()})\n"
        "assert wire.encode_head(head) and head.kind == 'gap'\n"
        "assert not {'torch', 'safetensors', 'numpy', 'redis'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", program, str(GOLDEN / "schema1_gap.json")]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


# Golden files: written once by the first version that had the schema, and never again.


def golden(name: str) -> dict[str, bytes]:
    paths = {"head": GOLDEN / f"{name}.json", "body": GOLDEN / f"{name}.safetensors"}
    return {field: path.read_bytes() for field, path in paths.items() if path.exists()}


def test_golden_i() -> None:
    chunk = decode(golden("schema1_I"))
    assert chunk.head == ChunkHead(
        schema=1,
        job="cam-1",
        number=1,
        kind="I",
        t0=0.0,
        t1=2.0,
        tubelet_s=(0.25, 1.25),
        tubelet_t=0,
        grid=(2, 3),
        tokens=7,
        patches_kept=28,
        dense=12,
        operators=("rlt",),
        trace="4bf92f3577b34da6",
        decode_ms=12.5,
        tokenize_ms=40.25,
        written_at=1700000000.5,
        reason="first chunk",
    )
    assert chunk.tokens.tolist() == [[i / 8 - 1 for i in range(4 * n, 4 * n + 4)] for n in range(7)]
    cells = [[0, h, w] for h in range(2) for w in range(3)]
    assert chunk.position.tolist() == [*cells, [1, 1, 2]]
    assert chunk.run.tolist() == chunk.size.tolist() == [2, 2, 2, 2, 2, 1, 1]
    assert chunk.deepstack is not None
    assert chunk.deepstack.flatten().tolist() == [i / 4 for i in range(56)]


def test_golden_p() -> None:
    chunk = decode(golden("schema1_P"))
    assert chunk.head == ChunkHead(
        schema=1,
        job="cam-1",
        number=2,
        kind="P",
        t0=2.0,
        t1=4.0,
        tubelet_s=(2.25, 3.25),
        tubelet_t=2,
        grid=(2, 3),
        tokens=3,
        patches_kept=12,
        dense=12,
        operators=("rlt", "tome"),
        written_at=1700000002.5,
    )
    assert chunk.tokens.tolist() == [[0.5, -1.0], [1.5, 3.0], [-2.0, 0.0]]
    assert chunk.position.tolist() == [[2, 0, 2], [3, 0, 2], [3, 1, 0]]
    assert chunk.run.tolist() == [1, 1, 5]
    assert chunk.size.tolist() == [1.0, 2.5, 5.0]
    assert chunk.deepstack is None


def test_golden_p_empty() -> None:
    chunk = decode(golden("schema1_P_empty"))
    assert (chunk.head.kind, chunk.head.tokens, chunk.head.dense) == ("P", 0, 12)
    assert chunk.tokens.shape == (0, 4)
    assert chunk.deepstack is not None
    assert chunk.deepstack.shape == (2, 0, 4)


def test_golden_gap() -> None:
    chunk = decode(golden("schema1_gap"))
    assert chunk.head == ChunkHead(
        schema=1,
        job="cam-1",
        number=3,
        kind="gap",
        t0=4.0,
        t1=9.5,
        trace="4bf92f3577b34da6",
        written_at=1700000009.5,
        reason="the source gave no pictures",
    )
    assert chunk.tokens.shape == (0, 0)
