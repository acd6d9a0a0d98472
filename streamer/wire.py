"""The wire format of a token stream: one entry per chunk, a JSON `head` and a safetensors `body`.

docs/wire.md describes it. `decode_head` needs no torch; `encode` and `decode` import it when
called.
Whatever does not fit is refused with a WireError that names the entry and the field.
"""

from __future__ import annotations

import dataclasses
import json
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from streamer.errors import WireError

if TYPE_CHECKING:
    import torch

SCHEMA = 1
"""What this version writes."""
READABLE = (1,)
"""What this version reads."""

ChunkKind = Literal["I", "P", "gap", "skipped"]

_MAX_INT = 2**53  # JSON readers in other languages hold integers as doubles
_MAX_INT32 = 2**31 - 1
_MAX_WIDTH = 2**16  # of D and L, so that a damaged shape cannot ask for absurd memory


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkHead:
    """What one chunk is, without its tokens. A field with a default may be absent on the wire."""

    schema: int = SCHEMA
    job: str
    number: int
    """1, 2, 3 … within the job; the entry's id is `<number>-0`."""
    kind: ChunkKind
    t0: float
    t1: float
    """The span in media seconds."""
    tubelet_s: tuple[float, ...] = ()
    """(T,) media time of each tubelet's middle, in seconds."""
    tubelet_t: int = 0
    """Wire t of the first tubelet; t counts tubelets since the job's start."""
    grid: tuple[int, int] = (0, 0)
    """(h, w) in cells; a cell is one token before any reduction."""
    tokens: int = 0
    """N, what is kept after all operators."""
    patches_kept: int = 0
    """Patches the vision encoder saw."""
    dense: int = 0
    """Tokens without any reduction: T × h × w."""
    operators: tuple[str, ...] = ()
    trace: str = ""
    decode_ms: float = 0.0
    tokenize_ms: float = 0.0
    written_at: float = 0.0
    """Unix seconds at which the writer wrote it; 0 when unknown."""
    reason: str = ""
    """Why, for people: of a gap or a skip, or of an early I-chunk."""
    wall0: float = 0.0
    wall1: float = 0.0
    """The span in Unix seconds, of a live source; 0 of a file."""
    changed: float = 1.0
    """Share of its cells that a P-chunk would have kept, 0 to 1; also of an I-chunk."""
    level: int = 0
    """How far a live job that is behind is thinned out; see core/pace.py."""
    behind_s: float = 0.0
    """How far a live job was behind its source when this was written."""

    @property
    def has_body(self) -> bool:
        return self.kind in ("I", "P")

    @property
    def live(self) -> bool:
        return self.wall1 > 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenChunk:
    """One chunk with its tokens; those of a gap or a skip have no rows."""

    head: ChunkHead
    tokens: torch.Tensor
    """(N, D) bfloat16."""
    position: torch.Tensor
    """(N, 3) int32: (t, h, w) in cells, t counted since the job's start."""
    run: torch.Tensor
    """(N,) int32: for how many tubelets the token stays valid."""
    size: torch.Tensor
    """(N,) float32: how many tokens it stands for."""
    deepstack: torch.Tensor | None = None
    """(L, N, D) bfloat16, for encoders that have it."""


def encode_head(head: ChunkHead) -> dict[str, bytes]:
    """The whole entry of a gap or a skip, and the `head` field of any other; needs no torch."""
    text = json.dumps(dataclasses.asdict(head), ensure_ascii=False, separators=(",", ":"))
    fields = {"head": text.encode("utf-8", "surrogatepass")}
    decode_head(fields, where=f"job {head.job} chunk {head.number}")  # none writes what none reads
    return fields


def decode_head(fields: Mapping[str, bytes], *, where: str = "entry") -> ChunkHead:
    """The head of an entry; `where` names stream and entry in errors, e.g. `Entry.where`."""
    value = parse_json(fields.get("head"), where=f"{where}: head")
    if isinstance(value, dict) and (schema := value.get("schema")) not in READABLE:
        raise WireError(
            f"{where}: head.schema: {reprlib.repr(schema)} is not one this version reads "
            f"({', '.join(map(str, READABLE))}); upgrade the reader"
        )
    head = build(ChunkHead, _HEAD, value, where=f"{where}: head")
    _check_head(head, where=f"{where}: head")
    return head


def encode(chunk: TokenChunk) -> dict[str, bytes]:
    """The fields of the chunk's stream entry; tensors may lie on any device."""
    from safetensors.torch import save

    head, where = chunk.head, f"job {chunk.head.job} chunk {chunk.head.number}"
    fields = encode_head(head)
    tensors = {name: getattr(chunk, name) for name in _BODY}
    if not head.has_body:
        if any(tensor is not None and tensor.numel() for tensor in tensors.values()):
            raise WireError(f"{where}: body: a {head.kind} chunk carries no tokens")
        return fields
    # cloned, because safetensors refuses tensors that share storage
    tensors = {
        k: v.detach().cpu().contiguous().clone() for k, v in tensors.items() if v is not None
    }
    _check_layout(
        {k: (str(v.dtype).removeprefix("torch."), tuple(v.shape)) for k, v in tensors.items()},
        head,
        where=where,
    )
    _check_values(tensors, head, where=where)
    fields["body"] = save(tensors)
    return fields


def decode(fields: Mapping[str, bytes], *, where: str = "entry") -> TokenChunk:
    """The chunk of a stream entry, on the CPU."""
    import torch
    from safetensors import SafetensorError, deserialize

    head = decode_head(fields, where=where)
    body = fields.get("body", b"")
    if not head.has_body:
        if body:
            raise WireError(f"{where}: body: a {head.kind} chunk has none, got {len(body)} bytes")
        return without_tokens(head)
    try:
        stored = dict(deserialize(body))  # type: ignore[no-untyped-call]  # safetensors
    except SafetensorError as exc:
        raise WireError(f"{where}: body: {exc}") from exc
    stored = {name: stored[name] for name in _BODY if name in stored}  # others: a newer writer's
    layout = {
        name: (_DTYPES.get(raw["dtype"], raw["dtype"]), tuple(raw["shape"]))
        for name, raw in stored.items()
    }
    _check_layout(layout, head, where=where)
    tensors = {}
    for name, raw in stored.items():
        dtype, shape = getattr(torch, layout[name][0]), layout[name][1]
        tensors[name] = (
            torch.frombuffer(raw["data"], dtype=dtype).reshape(shape)
            if raw["data"]
            else torch.empty(shape, dtype=dtype)
        )
    _check_values(tensors, head, where=where)
    return TokenChunk(head=head, **tensors)


def without_tokens(head: ChunkHead) -> TokenChunk:
    """The chunk of a gap or a skip."""
    import torch

    return TokenChunk(
        head=head,
        tokens=torch.empty((0, 0), dtype=torch.bfloat16),
        position=torch.empty((0, 3), dtype=torch.int32),
        run=torch.empty(0, dtype=torch.int32),
        size=torch.empty(0, dtype=torch.float32),
    )


# JSON objects into dataclasses: one check per field, which returns the value or raises a ValueError
# that says what is allowed. events.py uses the same.

Check = Callable[[Any], object]
T = TypeVar("T")


def parse_json(text: bytes | None, *, where: str) -> object:
    """The JSON value in `text`; NaN and Infinity are not JSON."""
    if text is None:
        raise WireError(f"{where} is missing")
    try:
        return json.loads(text.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise WireError(f"{where} is not JSON: {exc}") from exc


def build(cls: type[T], checks: Mapping[str, Check], value: object, *, where: str) -> T:
    """`cls` from a JSON object; unknown fields are ignored, absent ones take their default."""
    if not isinstance(value, dict):
        raise WireError(f"{where} is {reprlib.repr(value)}, must be a JSON object")
    known: dict[str, Any] = {}
    for name, check in checks.items():
        if name in value:
            try:
                known[name] = check(value[name])
            except ValueError as exc:
                found = reprlib.repr(value[name])
                raise WireError(f"{where}.{name}: {found} is not {exc}") from None
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # T is a dataclass
        if field.default is dataclasses.MISSING and field.name not in known:
            raise WireError(f"{where}.{field.name} is missing")
    return cls(**known)


def text(*, empty: bool = True) -> Check:
    def check(value: object) -> str:
        if not isinstance(value, str) or not (value or empty):
            raise ValueError("text" if empty else "text of at least one character")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("text without half characters") from None
        return value

    return check


def integer(low: int = 0, high: int = _MAX_INT) -> Check:
    def check(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"an integer from {low} to {high}")
        return value

    return check


def number(value: object) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1e15:  # type: ignore[operator]
        raise ValueError("a number of at least 0")
    return float(value)  # type: ignore[arg-type]


def one_of(allowed: object) -> Check:
    names = get_args(allowed)

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return value

    return check


def each(check: Check, count: int | None = None) -> Check:
    def check_all(value: object) -> tuple[object, ...]:
        if not isinstance(value, list) or (count is not None and len(value) != count):
            raise ValueError("a list" if count is None else f"a list of {count}")
        return tuple(check(item) for item in value)

    return check_all


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number")


_HEAD: dict[str, Check] = {
    "schema": integer(1),
    "job": text(empty=False),
    "number": integer(1),
    "kind": one_of(ChunkKind),
    "t0": number,
    "t1": number,
    "tubelet_s": each(number),
    "tubelet_t": integer(high=_MAX_INT32),
    "grid": each(integer(high=_MAX_INT32), 2),
    "tokens": integer(),
    "patches_kept": integer(),
    "dense": integer(),
    "operators": each(text()),
    "trace": text(),
    "decode_ms": number,
    "tokenize_ms": number,
    "written_at": number,
    "reason": text(),
    "wall0": number,
    "wall1": number,
    "changed": number,
    "level": integer(high=3),
    "behind_s": number,
}

_BODY = {
    "tokens": ("bfloat16", "ND"),
    "position": ("int32", "N3"),
    "run": ("int32", "N"),
    "size": ("float32", "N"),
    "deepstack": ("bfloat16", "LND"),
}
_DTYPES = {"BF16": "bfloat16", "I32": "int32", "F32": "float32"}


def _check_head(head: ChunkHead, *, where: str) -> None:
    tubelets, (rows, columns) = len(head.tubelet_s), head.grid
    if head.t1 < head.t0:
        raise WireError(f"{where}.t1: {head.t1} is before t0, {head.t0}")
    if not head.has_body:
        if head.tokens or head.dense or tubelets:
            raise WireError(f"{where}.tokens: a {head.kind} chunk has no tokens and no tubelets")
        if not head.reason:
            raise WireError(f"{where}.reason is missing; a {head.kind} chunk says why")
        return
    if not tubelets or any(a > b for a, b in zip(head.tubelet_s, head.tubelet_s[1:], strict=False)):
        raise WireError(f"{where}.tubelet_s: {reprlib.repr(head.tubelet_s)} is not rising times")
    if head.tubelet_t + tubelets > _MAX_INT32:
        raise WireError(f"{where}.tubelet_t: {head.tubelet_t} leaves no room in int32")
    if head.dense != tubelets * rows * columns or not head.dense:
        raise WireError(
            f"{where}.dense: {head.dense} is not {tubelets} tubelets × {rows} × {columns} cells, "
            f"which must be positive"
        )
    if head.tokens > head.dense:
        raise WireError(f"{where}.tokens: {head.tokens} is more than dense, {head.dense}")
    if head.kind == "I" and not head.tokens:
        raise WireError(f"{where}.tokens: 0 in an I-chunk, which must be readable alone")


def _check_layout(
    layout: Mapping[str, tuple[str, tuple[int, ...]]], head: ChunkHead, *, where: str
) -> None:
    lengths = {"N": head.tokens, "3": 3}
    for name, (dtype, axes) in _BODY.items():
        if name not in layout:
            if name == "deepstack":
                continue
            raise WireError(f"{where}: body.{name} is missing")
        found, shape = layout[name]
        if found != dtype:
            raise WireError(f"{where}: body.{name}: {found}, must be {dtype}")
        fits = len(shape) == len(axes) and all(
            lengths.setdefault(axis, length) == length and (axis in "N3" or length <= _MAX_WIDTH)
            for axis, length in zip(axes, shape, strict=True)
        )
        if not fits or not all(lengths[axis] for axis in axes if axis != "N"):
            known = ", ".join(f"{axis}={lengths[axis]}" for axis in axes if axis in lengths)
            raise WireError(
                f"{where}: body.{name}: shape {shape} is not ({', '.join(axes)}) with {known}"
            )


def _check_values(tensors: Mapping[str, torch.Tensor], head: ChunkHead, *, where: str) -> None:
    import torch

    for name in ("tokens", "deepstack"):
        if name in tensors and not torch.isfinite(tensors[name]).all():
            raise WireError(f"{where}: body.{name}: holds NaN or Inf")
    first = torch.tensor([head.tubelet_t, 0, 0])
    ends = torch.tensor([head.tubelet_t + len(head.tubelet_s), *head.grid])
    position, size = tensors["position"], tensors["size"]
    outside = ((position < first) | (position >= ends)).any(dim=1)
    if outside.any():
        raise WireError(
            f"{where}: body.position: {position[outside][0].tolist()} lies outside the chunk, "
            f"t from {head.tubelet_t} to {int(ends[0]) - 1}, grid {head.grid}"
        )
    if (position[:, 0].diff() < 0).any():
        raise WireError(f"{where}: body.position: t goes back; tokens follow each other in time")
    if (tensors["run"] < 1).any():
        raise WireError(f"{where}: body.run: {int(tensors['run'].min())}, must be at least 1")
    bad = ~(torch.isfinite(size) & (size > 0))
    if bad.any():
        raise WireError(f"{where}: body.size: {size[bad][0].item()}, must be finite and positive")
