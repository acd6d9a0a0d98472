"""Every operator by its name from the configuration, through the whole path, on the demo's clip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamer.config import load
from streamer.events import Event
from streamer.model import VideoModel, load_model
from tests.path import caption_file

CHUNKS = 17
TUBELETS = 2
"""Of a chunk."""

Entry = dict[str, Any]
RLT: Entry = {"name": "rlt"}
EVS: Entry = {"name": "evs", "rate": 0.5}
DTD: Entry = {"name": "dtd", "threshold": 0.9}
TOME: Entry = {"name": "tome", "keep": 0.5}
PRUMERGE: Entry = {"name": "prumerge", "ratio": 0.25}
FASTV: Entry = {"name": "fastv", "layer": 2, "drop": 0.5}

PROMISES: dict[str, tuple[list[Entry], Callable[[int, int, int], bool]]] = {
    "nothing": ([], lambda given, kept, dense: given == dense),
    "rlt": ([RLT], lambda given, kept, dense: given == kept),
    "tome": ([RLT, TOME], lambda given, kept, dense: abs(given - kept / 2) <= TUBELETS),
    "evs": ([RLT, EVS], lambda given, kept, dense: kept // 2 <= given <= kept),
    "dtd": ([RLT, DTD], lambda given, kept, dense: given <= kept),
    "prumerge": ([RLT, PRUMERGE], lambda given, kept, dense: given <= kept / 4 + 2 * TUBELETS),
    "fastv": ([RLT, FASTV], lambda given, kept, dense: given == kept),  # it drops further on
    "all": ([RLT, EVS, DTD, PRUMERGE, TOME, FASTV], lambda given, kept, dense: given <= kept),
}
"""What is true of each chunk's tokens given to the LLM, of those that rlt keeps, and of all."""


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return load_model("embedded", device="cpu")


@pytest.fixture(scope="module")
def kept(demo_file: Path, model: VideoModel) -> list[Event]:
    return captions(demo_file, model, [RLT])


def captions(path: Path, model: VideoModel, pipeline: list[Entry]) -> list[Event]:
    events, status = caption_file(str(path), model, load(None, {"pipeline": pipeline}))
    assert (status.state, status.error) == ("ended", None)
    return events


@pytest.mark.parametrize("name", PROMISES)
def test_every_chunk_has_one_caption_of_as_many_tokens_as_promised(
    demo_file: Path, model: VideoModel, kept: list[Event], name: str
) -> None:
    pipeline, promise = PROMISES[name]
    events = captions(demo_file, model, pipeline)
    assert [(e.id, e.event) for e in events] == [
        (f"{n}-0", "caption") for n in range(1, CHUNKS + 1)
    ]
    assert all(event.output_tokens for event in events)
    counts = [
        (ours.input_tokens or 0, theirs.input_tokens or 0, ours.dense_tokens or 0)
        for ours, theirs in zip(events, kept, strict=True)
    ]
    assert all(promise(*count) for count in counts), counts
    given, by_rlt, _ = (sum(column) for column in zip(*counts, strict=True))
    assert (given < by_rlt) == (name not in ("nothing", "rlt", "fastv"))
