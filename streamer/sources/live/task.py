"""Task: what a decoding process is told, by way of its stdin."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from streamer.sources.guard import FetchPolicy
from streamer.sources.info import Limits
from streamer.sources.live.messages import decode_anchor
from streamer.sources.live.timeline import Anchor


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to read, and where to go on."""

    url: str = field(repr=False)
    fps: float
    limits: Limits
    policy: FetchPolicy
    anchor: Anchor | None = None
    place: str | None = None

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Task:
        value = json.loads(text)
        policy = value["policy"]
        return cls(
            url=value["url"],
            fps=value["fps"],
            limits=Limits(**value["limits"]),
            policy=FetchPolicy(
                networks=tuple(policy["networks"]),
                paths=tuple(policy["paths"]),
                trusting=policy["trusting"],
            ),
            anchor=decode_anchor(value["anchor"]),
            place=value["place"],
        )
