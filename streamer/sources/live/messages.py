"""Messages from the process that decodes a live source: a line of JSON, then a picture's bytes."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import IO, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from streamer.sources.live.timeline import Anchor

Kind = Literal["picture", "alive", "lost", "over", "never"]
"""A picture for slots; one that is between slots; the connection is gone; the source says that it
has ended; it can never work."""

_LONGEST_LINE = 16 << 10
_MOST_SLOTS = 1 << 20  # of one picture


class Garbled(Exception):
    """What came is no message."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Message:
    kind: Kind
    reason: str = ""
    anchor: Anchor | None = None
    place: str | None = None
    """Where the server's next connection goes on without loss."""
    slot: int = 0
    count: int = 0
    cost_ms: float = 0.0
    """Of a processor, since the message before."""
    picture: NDArray[np.uint8] | None = None
    """(H, W, 3)."""


def write(stream: IO[bytes], message: Message) -> None:
    """Raises: OSError when nobody reads any more."""
    picture = message.picture
    head = {
        "kind": message.kind,
        "reason": message.reason,
        "anchor": None if message.anchor is None else asdict(message.anchor),
        "place": message.place,
        "slot": message.slot,
        "count": message.count,
        "cost_ms": message.cost_ms,
        "size": None if picture is None else picture.shape[:2],
    }
    stream.write(json.dumps(head).encode() + b"\n")
    if picture is not None:
        stream.write(memoryview(picture.data).cast("B"))
    stream.flush()


def read(stream: IO[bytes], *, max_pixels: int) -> Message | None:
    """The next message; None when there are no more. Raises: Garbled."""
    line = stream.readline(_LONGEST_LINE)
    if not line or (len(line) < _LONGEST_LINE and not line.endswith(b"\n")):
        return None  # it ended, perhaps in the middle of one
    try:
        head = json.loads(line)
        message = _decode(head)
        size = head["size"]
        if size is None:
            return message
        height, width = (_integer(size[i], 1, max_pixels) for i in (0, 1))
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as exc:
        raise Garbled(f"{line[:80]!r}") from exc
    if height * width > max_pixels:
        raise Garbled(f"a picture of {width}×{height}")
    picture = np.empty((height, width, 3), np.uint8)
    left = memoryview(picture.data).cast("B")
    while left:
        count = stream.readinto(left)  # type: ignore[attr-defined]
        if not count:
            return None
        left = left[count:]
    return replace(message, picture=picture)


def _decode(head: dict[str, Any]) -> Message:
    kind, reason, place, anchor = (head[name] for name in ("kind", "reason", "place", "anchor"))
    if kind not in get_args(Kind) or not isinstance(reason, str):
        raise ValueError(kind)
    if not (place is None or isinstance(place, str)):
        raise ValueError("place")
    if kind == "picture" and head["size"] is None:
        raise ValueError("size")
    return Message(
        kind=kind,
        reason=reason,
        place=place,
        anchor=None if anchor is None else _anchor(anchor),
        slot=_integer(head["slot"], 0, 1 << 53),
        count=_integer(head["count"], 0, _MOST_SLOTS),
        cost_ms=_number(head["cost_ms"]),
    )


def decode_anchor(value: object) -> Anchor | None:
    """Raises: ValueError, KeyError, TypeError."""
    return None if value is None else _anchor(value)


def _anchor(value: Any) -> Anchor:
    offset = value["offset"]
    return Anchor(
        t=_number(value["t"]),
        arrival=_number(value["arrival"]),
        epoch=_number(value["epoch"]),
        steady=_number(value["steady"]),
        known_s=_number(value["known_s"]),
        burst_s=_number(value["burst_s"]),
        offset=None if offset is None else _number(offset),
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(value)
    return float(value)


def _integer(value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(value)
    return value
