"""What a captioner remembers of a job beside its tokens; it lies in each chunk's events entry."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamer.core.speaking import Speaking
from streamer.wire import Check, build, integer, number, parse_json, text

if TYPE_CHECKING:
    from streamer.adapters.queue import Entry
    from streamer.jobs import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """A job up to this chunk. Whoever takes it up from here decides as its writer would have."""

    speaking: Speaking = field(default_factory=Speaking)
    said: Mapping[str, str] = field(default_factory=dict)
    """The last caption of each question that is asked on change, by `said_key`."""
    level: int = 0
    """Of the last chunk that could be read."""


def said_key(question: Question) -> str:
    """Tells a question from another one that has, or had, its id."""
    prompt = question.prompt.encode("utf-8", "surrogatepass")
    return f"{question.id} {zlib.crc32(prompt):08x}"


def encode_speech(speech: Speech) -> bytes:
    """The field `speech` of an events entry."""
    value = {
        "speaking": dataclasses.asdict(speech.speaking),
        "said": dict(speech.said),
        "level": speech.level,
    }
    line = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return line.encode("utf-8", "surrogatepass")


def decode_speech(entry: Entry) -> Speech:
    """What was remembered at a chunk; nothing in an entry that has none."""
    if "speech" not in entry.fields:
        return Speech()
    where = f"{entry.where}: speech"
    value = parse_json(entry.fields["speech"], where=where)
    return build(Speech, {**_SPEECH, "speaking": _speaking(where)}, value, where=where)


def _speaking(where: str) -> Check:
    return lambda value: build(Speaking, _SPEAKING, value, where=f"{where}.speaking")


def _yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("an object of texts by question")
    check = text()
    return {str(name): str(check(said)) for name, said in value.items()}


_SPEAKING: dict[str, Check] = {
    "usual": number,
    "busy": _yes_or_no,
    "unsaid": number,
    "lost": _yes_or_no,
}
_SPEECH: dict[str, Check] = {"said": _texts, "level": integer(high=3)}
