"""The rendered dataset: what is asked of its clips, and judged by their truth."""

from __future__ import annotations

from hashlib import sha256

import pytest
from typer.testing import CliRunner

from streamer.cli import app
from streamer.embedded.clips import FPS
from streamer.embedded.truth import Description, answer, caption, describe
from streamer.evaluation.answers import Judgement
from streamer.evaluation.dataset import Moment
from streamer.evaluation.rendered import ASKED, ATTRIBUTES, EXACT, RenderedClip, RenderedClips
from streamer.types import FrameChunk


@pytest.fixture(scope="module")
def clips() -> list[RenderedClip]:
    return list(RenderedClips(clips=12))


def moment(chunk: FrameChunk, *, group_s: float = 0.0) -> Moment:
    return Moment(
        t0=chunk.t0, t1=chunk.t1, after_s=0, before_s=0, last_s=0, group_s=group_s, last=False
    )


def captions(clip: RenderedClip) -> list[tuple[str | None, Judgement, Judgement]]:
    """Of every chunk: what is true, how that is judged as an answer, and how nonsense is."""
    told = []
    for chunk in clip.chunks():
        asked, _ = clip.queries(moment(chunk))
        truth = truth_of(clip, chunk)
        true = None if truth is None else caption(truth)
        told.append((true, asked.judge(true or ""), asked.judge("A fish.")))
    return told


def test_the_truth_is_right_in_all_it_says_and_nonsense_is_not(clips: list[RenderedClip]) -> None:
    seen: set[str] = set()
    for true, right, wrong in (one for clip in clips for one in captions(clip)):
        if true is None:
            assert not right.marks
            continue
        assert right.expected == true
        assert right.marks.keys() == wrong.marks.keys() >= {EXACT, "camera"}
        assert all(mark.right for mark in right.marks.values())
        assert not any(mark.right for mark in wrong.marks.values())
        seen |= right.marks.keys()
    assert seen == {EXACT, *ATTRIBUTES}


def test_every_chunk_is_asked_one_question_more_the_same_again(clips: list[RenderedClip]) -> None:
    certain = 0
    for clip, chunk in ((one, chunk) for one in clips[:4] for chunk in one.chunks()):
        _, first = clip.queries(moment(chunk))
        _, again = clip.queries(moment(chunk))
        assert first.item == "question"
        assert first.prompt == again.prompt
        marks = first.judge("A fish.").marks
        truth = truth_of(clip, chunk)
        if truth is None or answer(truth, first.prompt) is None:
            assert not marks
        else:
            assert set(marks) == {ASKED, f"{ASKED}: {first.prompt}"}
            certain += 1
    assert certain > 4


def truth_of(clip: RenderedClip, chunk: FrameChunk, *, since_s: float = 0.0) -> Description | None:
    start, stop = round(chunk.t0 * FPS), round(chunk.t1 * FPS)
    return describe(clip.scene, clip.rendering, start, stop, since=round(since_s * FPS))


def test_the_truth_begins_with_the_group(clips: list[RenderedClip]) -> None:
    differing = []
    for clip, chunk in ((one, chunk) for one in clips for chunk in one.chunks()):
        expected = []
        for group_s in (0.0, chunk.t0):
            told, asked = clip.queries(moment(chunk, group_s=group_s))
            truth = truth_of(clip, chunk, since_s=group_s)
            if truth is not None:
                assert told.judge("").expected == caption(truth)
            certain = None if truth is None else answer(truth, asked.prompt)
            assert asked.judge("").expected == certain or certain is None
            expected.append((told.judge("").expected, asked.judge("").expected))
        differing += [clip.name] if expected[0] != expected[1] else []
    assert differing


def test_clips_are_the_same_ones_wherever_one_starts(clips: list[RenderedClip]) -> None:
    assert [clip.scene for clip in RenderedClips(clips=2, skip=3)] == [
        clip.scene for clip in clips[3:5]
    ]
    assert clips[3].name == "clip 3"


def test_the_clips_of_docs_scores_are_still_drawn() -> None:
    # a change of what is drawn calls for docs/scores anew
    drawn = "\n".join(repr(clip.scene) for clip in RenderedClips(clips=40))
    assert sha256(drawn.encode()).hexdigest()[:16] == "2e9743a91b0eee88"


def test_only_clips_whose_camera_never_moves(clips: list[RenderedClip]) -> None:
    still = [clip.name for clip in RenderedClips(clips=12, still=True)]
    assert still == [clip.name for clip in clips if clip.scene.still]
    assert 0 < len(still) < 12


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--fps", "4"), "source.fps: 4 is not for rendered clips"),
        (("--only", "still", "--dataset", "x.jsonl"), "--only still chooses among rendered clips"),
        (("--clips", "500", "--dataset", "x.jsonl"), "--clips 500 chooses among rendered clips"),
        (("--skip", "0", "--dataset", "x.jsonl"), "--skip 0 chooses among rendered clips"),
        (("--videos", "x"), "--videos x is not for rendered clips"),
        (("--pipeline", "[{name: rtl}]"), "--pipeline[0]: operator 'rtl' does not exist"),
        (("--pipeline", "[]", "--pipeline", "[]"), "--pipeline: two pipelines are called 'dense'"),
    ],
)
def test_options_that_do_not_go_together_are_one_sentence(
    options: tuple[str, ...], said: str
) -> None:
    result = CliRunner().invoke(app, ["eval", *options])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"streamer: {said}")
    assert len(result.stderr.splitlines()) == 1
