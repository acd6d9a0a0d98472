"""Files of questions: what may stand in them, and when each is asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamer.errors import ConfigError, SourceError
from streamer.evaluation.answers import CutClaim
from streamer.evaluation.dataset import Moment
from streamer.evaluation.pipelines import candidate, read_candidates
from streamer.evaluation.questions import FileClip, QuestionFile, Sampling
from streamer.sources import StreamInfo
from tests.clips import cut, render

SAMPLING = Sampling(fps=2, chunk_s=2, decoder="pyav", question="Describe what happens.")
FACTS = Path(__file__).parents[2] / "facts"
CONFIGS = Path(__file__).parents[3] / "configs" / "evaluation"


def written(folder: Path, *lines: object) -> Path:
    """A dataset file beside a video called a.mp4; strings are written as they are."""
    (folder / "a.mp4").touch()
    path = folder / "mine.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def clip_of(folder: Path, *lines: object) -> FileClip:
    [clip] = QuestionFile(written(folder, *lines), sampling=SAMPLING)
    return clip


def moment(number: int, *, last: bool = False) -> Moment:
    """The end of chunk `number`, of two seconds and four pictures."""
    t1 = 2.0 * number
    return Moment(
        t0=t1 - 2,
        t1=t1,
        after_s=t1 - 2,
        before_s=max(0, t1 - 2.5),
        last_s=t1 - 0.5,
        group_s=0,
        last=last,
    )


def asked(clip: FileClip, chunks: int) -> list[int]:
    """After which of so many chunks something is asked."""
    numbers = range(1, chunks + 1)
    return [n for n in numbers if clip.queries(moment(n, last=n == chunks))]


def test_every_problem_of_a_file_is_told_with_its_line_and_field(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"video": "a.mp4", "question": "Where?", "answer": "here"},
        {"video": "b.mp4", "answer": "here", "match": "fuzzy"},
        "",
        "{nonsense",
        {"video": "c.mp4", "answer": "here", "form": 3},
        {"video": "d.mp4", "answer": "here"},
        {"video": "a.mp4", "question": "Who?"},
        {"video": "a.mp4", "answer": "x", "choices": ["up", "down"]},
        {"video": "a.mp4", "answer": "x", "from": 4, "to": 2},
        {"video": "a.mp4", "answer": "(", "match": "regex"},
        {"video": "a.mp4", "cuts": [-1]},
        {"video": "a.mp4", "answer": 3},
        {"video": "ftp://a/b.mp4", "answer": "x"},
        {"video": "v" * 300, "answer": "x"},
        {"video": "a.mp4", "answer": "x", "attribute": "cut F1"},
    )
    with pytest.raises(ConfigError) as caught:
        QuestionFile(path, sampling=SAMPLING)
    told = str(caught.value)
    assert told.startswith(f"{path}: line 2: match: 'fuzzy' is not allowed: give 'exact', ")
    for said in (
        "line 4: it is not JSON: ",
        "line 5: form: there is no such field; there are: video, question, id, answer, choices, ",
        f"line 6: video: {tmp_path}/d.mp4 is not there; ",
        "line 7: answer: it must be given",
        "line 8: answer: 'x' is none of the choices, nor a letter",
        "line 9: to: 2 is not after from, 4",
        "line 10: answer: '(' is not a regular expression: ",
        "line 11: cuts: -1 is not allowed: give a list of at least one time, ",
        "line 12: answer: 3 is not allowed: give a text, or a list of texts",
        "line 13: video: ftp://a/b.mp4 is no http:, https: or file: URL; ",
        f"line 14: video: {tmp_path}/vvvvvv",
        "line 15: attribute: 'cut F1' is told of every file; give another",
    ):
        assert said in told
    assert "line 1:" not in told
    assert told.count("line 12: ") == 1


def test_two_lines_have_two_ids(tmp_path: Path) -> None:
    line = {"video": "a.mp4", "answer": "x", "id": "q"}
    with pytest.raises(ConfigError, match="line 2: id: 'q' is line 1's too"):
        QuestionFile(written(tmp_path, line, line), sampling=SAMPLING)


def test_a_line_without_an_id_keeps_its_name(tmp_path: Path) -> None:
    line = {"video": "a.mp4", "answer": "x"}
    path = written(tmp_path, {**line, "id": "line 2"}, line)
    with pytest.raises(ConfigError, match="line 1: id: 'line 2' is line 2's too"):
        QuestionFile(path, sampling=SAMPLING)


def test_blank_texts_are_refused(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"video": "a.mp4", "answer": " "},
        {"video": "a.mp4", "answer": ["x", "\t"]},
        {"video": "a.mp4", "answer": "x", "choices": ["x", " "]},
        {"video": "a.mp4", "answer": "x", "question": "  "},
    )
    with pytest.raises(ConfigError) as caught:
        QuestionFile(path, sampling=SAMPLING)
    for said in (
        "line 1: answer: ' ' is not allowed: give a text",
        "line 2: answer: ",
        "line 3: choices: ' ' is not allowed: give a list of 2 to 26 texts",
        "line 4: question: '  ' is not allowed: give a text",
    ):
        assert said in str(caught.value)


@pytest.mark.parametrize("cut_short", [False, True])
def test_a_video_that_announces_more_than_it_holds_is_broken(
    tmp_path: Path, cut_short: bool
) -> None:
    clip = clip_of(tmp_path, {"video": "a.mp4", "answer": "x"})
    whole = render(tmp_path / "whole.mp4", 80, movflags="faststart", noise=50)
    if cut_short:
        cut(whole, tmp_path / "a.mp4", 0.5)
        with pytest.raises(SourceError, match=r"a\.mp4: it ends at \d.*, and announces 8 s"):
            list(clip.chunks())
    else:
        whole.rename(tmp_path / "a.mp4")
        assert len(list(clip.chunks())) == 4


def test_a_video_whose_chunks_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    def refuse(video: StreamInfo) -> None:
        raise ConfigError(f"source: {video.width} is too wide")

    sampling = replace(SAMPLING, check=refuse)
    [clip] = QuestionFile(written(tmp_path, {"video": "a.mp4", "answer": "x"}), sampling=sampling)
    render(tmp_path / "a.mp4", 20)
    with pytest.raises(SourceError, match=r"a\.mp4: source: 128 is too wide"):
        next(clip.chunks())


@pytest.mark.parametrize(
    ("text", "said"), [("", "is empty"), (None, "cannot be read: No such file")]
)
def test_a_file_with_nothing_in_it_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "mine.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        QuestionFile(path, sampling=SAMPLING)


def test_videos_may_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    path = written(tmp_path, {"video": "b.mp4", "answer": "x"})
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "b.mp4").touch()
    [clip] = QuestionFile(path, sampling=SAMPLING, videos=videos)
    assert (clip.name, clip.url) == ("b.mp4", str(videos / "b.mp4"))


def test_credentials_of_a_url_are_not_part_of_its_name(tmp_path: Path) -> None:
    clip = clip_of(tmp_path, {"video": "https://me:secret@host/a.mp4", "answer": "x"})
    assert clip.name == "https://host/a.mp4"
    assert clip.url == "https://me:secret@host/a.mp4"


def test_clips_whose_urls_are_shown_alike_are_told_apart(tmp_path: Path) -> None:
    lines = [
        {"video": f"https://host/a.mp4?{query}", "answer": "x", "id": query}
        for query in ("v=1", "v=2")
    ]
    data = QuestionFile(written(tmp_path, *lines), sampling=SAMPLING)
    names = ["https://host/a.mp4?… (line 1)", "https://host/a.mp4?… (line 2)"]
    assert [clip.name for clip in data] == names
    assert list(data.items) == [(names[0], "v=1"), (names[1], "v=2")]


def test_lines_about_one_video_are_asked_of_one_clip(tmp_path: Path) -> None:
    line = {"video": "a.mp4", "question": "Where?", "answer": "here"}
    data = QuestionFile(written(tmp_path, line, {**line, "attribute": "place"}), sampling=SAMPLING)
    assert len(data) == 1
    assert data.attributes == ("all", "place")


def test_a_question_is_asked_once_at_its_end_about_its_span(tmp_path: Path) -> None:
    clip = clip_of(tmp_path, {"video": "a.mp4", "answer": "x", "from": 1, "to": 5})
    assert asked(clip, 6) == [3]
    [query] = clip.queries(moment(3))
    assert query.span == (1.0, 5.0)
    assert query.prompt == "Describe what happens."


def test_a_question_whose_end_has_no_pictures_is_asked_after_them(tmp_path: Path) -> None:
    clip = clip_of(tmp_path, {"video": "a.mp4", "answer": "x", "to": 5})
    assert not clip.queries(moment(2))
    [query] = clip.queries(replace(moment(5), after_s=4))
    assert query.span == (0.0, 5.0)


@pytest.mark.parametrize("more", [{}, {"to": 60}])
def test_a_question_about_the_rest_is_asked_at_the_end(
    tmp_path: Path, more: dict[str, float]
) -> None:
    clip = clip_of(tmp_path, {"video": "a.mp4", "answer": "x", **more})
    assert asked(clip, 4) == [4]
    [query] = clip.queries(moment(4, last=True))
    assert query.span == (0.0, more.get("to", 8))


def test_every_asks_after_the_chunks_that_lie_within(tmp_path: Path) -> None:
    line = {"video": "a.mp4", "every": True, "answer": "x", "from": 1, "to": 7}
    clip = clip_of(tmp_path, line)
    assert asked(clip, 6) == [2, 3]
    assert clip.queries(moment(2))[0].span is None
    assert not clip.spans_from(0)


def test_a_span_is_asked_about_until_its_end(tmp_path: Path) -> None:
    lines = [
        {"video": "a.mp4", "answer": "x", "from": 1, "to": 5},
        {"video": "a.mp4", "answer": "x"},
    ]
    clip = clip_of(tmp_path, *lines)
    assert [clip.spans_from(at) for at in (0, 4, 5)] == [[1.0, 0.0], [1.0, 0.0], [0.0]]


def test_choices_are_judged_by_letter_or_text_and_counted_by_attribute(tmp_path: Path) -> None:
    line = {"video": "a.mp4", "question": "Where?", "choices": ["up", "down"], "answer": "B"}
    clip = clip_of(tmp_path, {**line, "attribute": "place"})
    [query] = clip.queries(moment(1, last=True))
    assert query.prompt.startswith("Where?\nA. up\nB. down\n")
    judged = query.judge("b.")
    assert judged.expected == "down"
    assert {name: mark.right for name, mark in judged.marks.items()} == {"all": True, "place": True}
    assert query.judge("down").marks["all"].right
    assert not query.judge("A").marks["all"].right


def test_a_caption_claims_a_cut_in_the_middle_of_what_its_chunk_can_see(tmp_path: Path) -> None:
    clip = clip_of(tmp_path, {"video": "a.mp4", "cuts": [3.2], "id": "cut"})
    [query] = clip.queries(moment(2))
    assert query.judge("Cut to a new scene.").cut == CutClaim(at_s=2.5, claimed=True)
    assert query.judge("The camera is still. Nothing moves.").cut == CutClaim(
        at_s=2.5, claimed=False
    )
    data = QuestionFile(tmp_path / "mine.jsonl", sampling=SAMPLING)
    assert data.cuts["a.mp4", "cut"].times == (3.2,)
    assert data.attributes == ("cut F1", "cut precision", "cut recall")


@pytest.mark.parametrize(
    ("item", "right", "wrong"),
    [
        ("still highway", "The camera is still. Nothing moves.", "The camera shakes."),
        ("moving rooftop", "The camera pans left.", "The camera is still. Nothing moves."),
        (
            "empty 0",
            "The camera is still. Nothing moves.",
            "The camera is still. One thing moves. It is a red disc at the left, going right.",
        ),
        ("cuts", "Cut to a new scene.", "The camera is still. Nothing moves."),
    ],
)
def test_the_facts_of_real_clips_are_judged_as_captions_say_them(
    tmp_path: Path, item: str, right: str, wrong: str
) -> None:
    facts = (FACTS / ("cuts.jsonl" if item == "cuts" else "real.jsonl")).read_text()
    path = tmp_path / "facts.jsonl"
    path.write_text("\n".join(line for line in facts.splitlines() if f'"id": "{item}"' in line))
    (tmp_path / json.loads(path.read_text())["video"]).touch()
    [clip] = QuestionFile(path, sampling=SAMPLING)
    [query] = clip.queries(moment(1))

    def found(said: str) -> bool:
        judged = query.judge(said)
        return judged.cut.claimed if judged.cut else judged.marks["all"].right

    assert found(right)
    assert not found(wrong)


def test_pipelines_are_read_with_their_families(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("- {label: all, operators: []}\n- {operators: [{name: rlt}, {name: tome}]}\n")
    every, both = read_candidates(path)
    assert (every.label, every.family, every.dense) == ("all", "dense", True)
    assert (both.label, both.family, both.dense) == ("rlt + tome", "rlt+tome", False)


def test_every_problem_of_a_file_of_pipelines_is_told(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(
        "- {label: a, operators: [{name: rtl}]}\n"
        "- {label: b, operators: 3}\n"
        "- {label: c, family: '', operators: []}\n"
        "- {lable: d, operators: []}\n"
        "- five\n"
        "- {label: f, context: all, operators: []}\n"
    )
    with pytest.raises(ConfigError) as caught:
        read_candidates(path)
    for said in (
        f"{path}: [0]: operators[0]: operator 'rtl' does not exist",
        f"{path}: [1]: operators: 3 is not a list",
        f"{path}: [2]: family: '' is not a text",
        f"{path}: [3]: lable: there is no such field; there are: label, family, operators, context",
        f"{path}: [4]: 'five' is no pipeline",
        f"{path}: [5]: context: 'all' is not one of kept, cached, dense",
    ):
        assert said in str(caught.value)


def test_two_pipelines_have_two_labels(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("- {operators: []}\n- {operators: []}\n")
    with pytest.raises(ConfigError, match="two pipelines are called 'dense'"):
        read_candidates(path)


@pytest.mark.parametrize("entry", ["rlt", None, 0])
def test_what_is_no_operator_is_refused(entry: Any) -> None:
    with pytest.raises(ConfigError, match=f"pipeline: {entry!r} is no operator"):
        candidate([entry])


def test_the_curves_are_of_five_or_six_budgets_each() -> None:
    found = read_candidates(CONFIGS / "curves.yaml")
    families = [one.family for one in found if not one.dense]
    assert [one.label for one in found if one.dense] == ["dense"]
    assert {family: families.count(family) for family in families} == dict.fromkeys(
        (
            *("rlt", "robust rlt", "tome", "prumerge", "evs", "dtd", "fastv"),
            *("random drop", "frame drop"),
        ),
        6,
    )


def test_every_context_is_compared_at_the_same_thresholds() -> None:
    found = [one for one in read_candidates(CONFIGS / "contexts.yaml") if not one.dense]
    by_context = {
        context: [one.pipeline for one in found if one.context == context]
        for context in ("kept", "cached", "dense")
    }
    assert by_context["kept"] == by_context["cached"] == by_context["dense"]
    assert len(found) == 9
