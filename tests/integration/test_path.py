"""Real decoders and the embedded model, from a file to its captions."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from streamer.config import Settings, load
from streamer.demo import truths
from streamer.errors import SourceError
from streamer.events import Event
from streamer.model import VideoModel, load_model
from streamer.sources import open_source
from tests.integration.conftest import VIDEOS
from tests.path import caption_file

CLIPS = sorted(p.name for p in VIDEOS.glob("*.*") if p.suffix != ".md")
BAD = sorted(p.name for p in (VIDEOS / "bad").glob("*.*"))
NO_PICTURES = {
    "audio_only.mp4",
    "empty.mp4",
    "invalid_vp9.webm",
    "moov_ok_data_missing.mp4",
    "no_moov_512b.mp4",
    "trunc_highway.mp4",
}
EITHER = {"vvc_unsupported.mp4"}
"""Depends on which decoders the PyAV build has."""


@pytest.fixture(scope="session")
def model() -> VideoModel:
    return load_model("embedded", device="cpu")


def spent(events: list[Event]) -> float:
    dense = sum(e.dense_tokens or 0 for e in events)
    return sum(e.input_tokens or 0 for e in events) / dense


def check_events(events: list[Event], duration_s: float) -> None:
    assert [e.id for e in events] == [f"{n}-0" for n in range(1, len(events) + 1)]
    assert {e.event for e in events} <= {"caption", "gap"}
    assert all(e.text for e in events if e.event == "caption")
    assert events[0].t0 == 0.0
    assert all(a.t1 == b.t0 and a.t0 < a.t1 for a, b in pairwise(events))
    assert events[-1].t1 == pytest.approx(duration_s, abs=1.0)


def refused(path: str) -> str | None:
    """The sentence that a source is refused with."""
    try:
        open_source(path, decoder="pyav").close()
    except SourceError as exc:
        return str(exc)
    return None


def test_the_demo_is_captioned_truly_at_a_fraction(demo_file: Path, model: VideoModel) -> None:
    events, status = caption_file(str(demo_file), model)
    check_events(events, 33.0)
    assert status.state == "ended"
    said = [
        (event.text, true)
        for event, true in zip(events, truths(), strict=True)
        if not true.startswith("(")
    ]
    wrong = [pair for pair in said if pair[0] != pair[1]]
    assert len(wrong) <= 1, wrong
    assert spent(events) < 0.5


def test_dense_costs_everything_and_kept_a_part(demo_file: Path, model: VideoModel) -> None:
    events, _ = caption_file(str(demo_file), model, load(None, {"pipeline": []}))
    assert spent(events) == 1.0
    kept, _ = caption_file(str(demo_file), model)
    merged = load(None, {"pipeline": [{"name": "rlt"}, {"name": "tome", "keep": 0.5}]})
    fewer, _ = caption_file(str(demo_file), model, merged)
    check_events(fewer, 33.0)
    assert spent(fewer) < 0.65 * spent(kept)


def test_another_question_gets_another_answer(demo_file: Path, model: VideoModel) -> None:
    settings = Settings(question="How many things move?")
    events, _ = caption_file(str(demo_file), model, settings)
    assert events[0].text == "Nothing."


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.timeout(300)
def test_real_clips(name: str, model: VideoModel) -> None:
    path = str(VIDEOS / name)
    events, status = caption_file(path, model)
    with open_source(path) as source:
        assert source.info.duration_s is not None
        check_events(events, source.info.duration_s)
    assert status.state == "ended"
    print(f"{name}: {len(events)} events, {spent(events):.3f} of the tokens")  # noqa: T201  # -rP
    if name == "six_visitors_static.mp4":
        assert spent(events) <= 0.30
    if name == "rooftop_pan.mp4":
        assert spent(events) > 0.85


@pytest.mark.parametrize("name", BAD)
def test_odd_and_damaged_files(name: str, model: VideoModel) -> None:
    """Captions, or one sentence that names the file; never a hang or another exception."""
    refusal = refused(str(VIDEOS / "bad" / name))
    if name not in EITHER:
        assert bool(refusal) == (name in NO_PICTURES), refusal
    if refusal:
        assert name in refusal
        assert "\n" not in refusal
        return
    events, status = caption_file(str(VIDEOS / "bad" / name), model)
    assert events
    assert events[0].event == "caption"
    assert status.state in ("ended", "failed")
    assert (status.state == "failed") == bool(status.error)
