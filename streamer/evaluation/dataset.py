"""What an evaluation runs on: clips, each with its pictures and what is asked of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from streamer.evaluation.answers import Query
from streamer.evaluation.cuts import Cuts
from streamer.types import FrameChunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The end of a chunk: a time to ask."""

    t0: float
    t1: float
    """The chunk's span in media seconds."""
    after_s: float
    """Where the chunk before it ended, which is earlier than t0 where pictures are missing."""
    before_s: float
    """Media time of the last picture before it; of its own first one where the clip begins."""
    last_s: float
    """Media time of its last picture."""
    group_s: float
    """Where its group began."""
    last: bool
    """Whether the clip ends here."""


class Clip(Protocol):
    """One video, and what is asked of it."""

    @property
    def name(self) -> str: ...

    def spans_from(self, at_s: float) -> Sequence[float]:
        """Where the spans begin that are still to be asked about when media time is at_s."""
        ...

    def chunks(self) -> Iterator[FrameChunk]:
        """Its pictures, from the start; again and again. Raises SourceError."""
        ...

    def queries(self, moment: Moment) -> Sequence[Query]:
        """What is asked now; for every pipeline the same, but for what only its group decides."""
        ...


class Dataset(Protocol):
    """Clips, made one after another, so that no more of them are held than run side by side."""

    @property
    def name(self) -> str: ...

    @property
    def attributes(self) -> tuple[str, ...]:
        """What is scored, in the order of reports."""
        ...

    @property
    def cuts(self) -> Mapping[tuple[str, str], Cuts]:
        """True cuts, by clip and item of the captions that are searched for them."""
        ...

    @property
    def items(self) -> Mapping[tuple[str, str], str]:
        """What should be asked at least once, by clip and item; and, in words, when."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Clip]: ...
