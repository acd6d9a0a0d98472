"""Live sources as decode workers open them."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.actors.decode import Live, Reading
from streamer.sources import Limits
from streamer.sources.guard import FetchPolicy
from streamer.sources.live import LiveOptions, LiveSource, is_live


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSources:
    """Those that a policy allows."""

    policy: FetchPolicy
    limits: Limits
    options: LiveOptions

    def tell(self, reading: Reading) -> bool:
        return is_live(reading.url, reading.live, limits=self.limits, policy=self.policy)

    def open(self, reading: Reading, start_s: float, wall_s: float | None) -> Live:
        return LiveSource(
            reading.url,
            fps=reading.fps,
            chunk_s=reading.chunk_s,
            behind_s=reading.behind_s,
            limits=self.limits,
            policy=self.policy,
            options=self.options,
            start_s=start_s,
            start_wall=wall_s,
        )
