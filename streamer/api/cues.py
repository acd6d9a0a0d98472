"""Subtitles: captions as cues, in the order in which they begin, written as WebVTT or SubRip."""

from __future__ import annotations

import html
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from streamer.events import Event

LONGEST_S = 600.0
"""A cue that lasts longer is continued by another one, so that few are ever held back."""
TOUCHING_S = 1e-3
"""Spans so close follow each other."""


@dataclass(slots=True)
class Cue:
    """A text, and from when to when it is true, in media seconds."""

    t0: float
    t1: float
    question: str
    text: str

    def within(self, t0: float, t1: float) -> Cue | None:
        """The part of it in a span."""
        start, end = max(self.t0, t0), min(self.t1, t1)
        return replace(self, t0=start, t1=end) if _ms(start) < _ms(end) else None


def cues(events: Iterable[Event]) -> Iterator[Cue]:
    """What was said, for as long as it was true: `unchanged` prolongs the question's last cue.

    So does the same text again. A gap, a skip and an error end a cue; an `unchanged` behind them
    begins one where it has the text that it stands for.
    """
    begun: deque[Cue] = deque()
    growing: dict[str, Cue] = {}
    for event in events:
        for question, cue in list(growing.items()):
            if cue.t1 < event.t0 - TOUCHING_S or event.event in ("gap", "skipped"):
                del growing[question]
        if event.question is not None:
            before = growing.pop(event.question, None)
            now = _told(event, event.question, before)
            if now is not None:
                growing[event.question] = now
                if now is not before:
                    begun.append(now)
        while begun and growing.get(begun[0].question) is not begun[0]:
            yield begun.popleft()
    yield from begun


def _told(event: Event, question: str, before: Cue | None) -> Cue | None:
    """The question's cue after an event, which may be the one before, prolonged."""
    text = event.text
    if text is None and event.event == "unchanged" and before:
        text = before.text
    if event.event == "error" or text is None:
        return None
    if before and text == before.text and event.t1 - before.t0 <= LONGEST_S:
        before.t1 = event.t1
        return before
    return Cue(event.t0, event.t1, question, text)


def webvtt(found: Iterable[Cue], *, named: bool) -> Iterator[str]:
    """A WebVTT file; named: says which question is answered."""
    yield "WEBVTT\n\n"
    for cue in found:
        voice = f"<v {html.escape(cue.question, quote=False)}>" if named else ""
        text = html.escape(_lines(cue.text), quote=False)
        yield f"{_time(cue.t0, '.')} --> {_time(cue.t1, '.')}\n{voice}{text}\n\n"


def subrip(found: Iterable[Cue], *, named: bool) -> Iterator[str]:
    """A SubRip file, which knows no escapes; named: says which question is answered."""
    for n, cue in enumerate(found, 1):
        name = f"{cue.question}: " if named else ""
        text = _lines(cue.text).replace("-->", "→")
        yield f"{n}\n{_time(cue.t0, ',')} --> {_time(cue.t1, ',')}\n{name}{text}\n\n"


def _lines(text: str) -> str:
    """Without empty lines, which would end the cue."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip()) or "…"


def _time(seconds: float, point: str) -> str:
    ms = _ms(seconds)
    return (
        f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"
    )


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
