"""Clips on their way through pipelines, and what is reported of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from streamer.core.keyframes import KeyframePolicy
from streamer.core.pipeline import build_pipeline
from streamer.errors import SourceError, WireError
from streamer.evaluation.answers import Answer, Judgement, Mark, Query, Run
from streamer.evaluation.cuts import Cuts
from streamer.evaluation.dataset import Moment
from streamer.evaluation.pipelines import Candidate, candidate
from streamer.evaluation.report import COLUMNS, Report, record, write
from streamer.evaluation.run import _calls as calls_of
from streamer.evaluation.run import evaluate
from streamer.evaluation.scores import costs, scores
from streamer.evaluation.share import layer_share
from streamer.evaluation.stream import Serving, Stream
from streamer.language.decoding import Answer as Said
from streamer.language.decoding import Ask, answer
from streamer.model import VideoModel
from streamer.types import FrameChunk
from streamer.wire import TokenChunk, decode
from tests.unit.streamer.tiny import chunks_of, moving_square, tiny_model

SERVING = Serving(policy=KeyframePolicy(), max_new_tokens=4)
RLT = candidate([{"name": "rlt", "threshold": 0.1}])
DENSE = candidate([])


def judge(said: str) -> Judgement:
    return Judgement(expected="x", marks={"all": Mark(right=len(said) % 2 == 0)})


@dataclass(frozen=True)
class Square:
    """A clip of five chunks of a white square that moves, asked as `asking` says."""

    name: str = "square"
    spans: bool = True
    start_s: float = 1.0
    breaks: bool = False
    """Whether its third chunk cannot be read."""
    missing: int | None = None
    """The chunk that is not there."""

    def chunks(self) -> Iterator[FrameChunk]:
        for chunk in chunks_of(moving_square(20)):
            if chunk.number == 3 and self.breaks:
                raise SourceError("a.mp4: is damaged")
            if chunk.number != self.missing:
                yield chunk

    def spans_from(self, at_s: float) -> Sequence[float]:
        return [self.start_s] if self.spans else []

    def queries(self, moment: Moment) -> Sequence[Query]:
        asked = [Query(item="caption", prompt="What moves?", judge=judge)]
        if moment.last and self.spans:
            span = (self.start_s, moment.t1)
            asked.append(Query(item="all", prompt="What moved?", judge=judge, span=span))
        return asked


class Squares:
    """As many of them as are named."""

    name = "squares"
    attributes = ("all",)
    cuts: Mapping[tuple[str, str], Cuts] = {}
    items: Mapping[tuple[str, str], str] = {}

    def __init__(self, *clips: Square) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Square]:
        return iter(self.clips)


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return tiny_model()


def run_of(model: VideoModel, *clips: Square, with_: Candidate = RLT) -> Run:
    [run] = evaluate(Squares(*clips), [with_], model, serving=SERVING, together=2)
    return run


def moments(model: VideoModel, clip: Square) -> list[Moment]:
    """What the clip is told of its chunks."""
    seen: list[Moment] = []

    class Listening(Square):
        def queries(self, moment: Moment) -> Sequence[Query]:
            seen.append(moment)
            return []

    stream = Stream(Listening(breaks=clip.breaks, missing=clip.missing), model, RLT, SERVING)
    while stream.advance() is not None:
        pass
    return seen


def test_every_chunk_is_asked_about_and_the_whole_at_the_end(model: VideoModel) -> None:
    run = run_of(model, Square())
    assert [(a.item, a.t0, a.t1) for a in run.answers] == [
        *(("caption", 2.0 * n, 2.0 * n + 2) for n in range(5)),
        ("all", 1.0, 10.0),
    ]
    whole = run.answers[-1]
    assert whole.tokens == sum(cost.tokens for cost in run.costs)
    assert whole.dense == sum(cost.dense for cost in run.costs)
    assert 0 < whole.tokens < whole.dense


def test_clips_side_by_side_are_told_what_they_are_told_alone(model: VideoModel) -> None:
    alone = run_of(model, Square())
    three = run_of(model, Square(), Square(name="other", spans=False), Square(name="third"))
    own = [answer for answer in three.answers if answer.clip == "square"]
    assert [a.said for a in own] == [a.said for a in alone.answers]
    assert {cost.clip for cost in three.costs} == {"square", "other", "third"}


def test_a_pipeline_may_have_a_context_of_its_own(model: VideoModel) -> None:
    operators = [{"name": "rlt", "threshold": 0.1}]
    kept, dense = (
        Stream(Square(), model, candidate(operators, context=context), SERVING)
        for context in (None, "dense")
    )
    for stream in (kept, dense):
        stream.advance()
    assert kept.costs[0].tokens == dense.costs[0].tokens
    [one], [other] = (stream.queue.read("clip", "tokens", after=0) for stream in (kept, dense))
    assert one.fields["body"] != other.fields["body"]


def test_dense_keeps_every_cell(model: VideoModel) -> None:
    run = run_of(model, Square(), with_=DENSE)
    assert run.dense
    assert all(cost.tokens == cost.dense for cost in run.costs)


def test_what_a_moment_says_of_its_chunk_and_group(model: VideoModel) -> None:
    seen = moments(model, Square())
    assert [(m.t0, m.t1, m.last) for m in seen[::4]] == [(0.0, 2.0, False), (8.0, 10.0, True)]
    assert [(m.before_s, m.last_s) for m in seen[:2]] == [(0.0, 1.5), (1.5, 3.5)]
    assert all(m.group_s == 0 for m in seen)


def test_missing_pictures_start_a_new_group(model: VideoModel) -> None:
    seen = moments(model, Square(missing=3))
    assert [m.t0 for m in seen] == [0, 2, 6, 8]
    assert [m.after_s for m in seen] == [0, 2, 4, 8]
    assert [m.group_s for m in seen] == [0, 0, 6, 6]


def test_a_clip_that_breaks_off_is_reported_and_not_asked_about_as_a_whole(
    model: VideoModel,
) -> None:
    run = run_of(model, Square(breaks=True), Square(name="other"))
    assert run.broken == {"square": "a.mp4: is damaged"}
    assert [(a.t1, a.item) for a in run.answers if a.clip == "square"] == [
        (2.0, "caption"),
        (4.0, "caption"),
    ]
    assert len([a for a in run.answers if a.clip == "other"]) == 6


def test_a_span_that_does_not_fit_is_not_answered_and_not_scored(model: VideoModel) -> None:
    serving = replace(SERVING, max_context=40)
    [run] = evaluate(Squares(Square()), [DENSE], model, serving=serving, together=1)
    [refused] = [answer for answer in run.answers if answer.error]
    assert refused.item == "all"
    assert "tokens of context, and" in refused.error
    assert not refused.judgement.marks
    assert refused.judgement.expected == "x"


def test_a_span_behind_the_end_is_told_where_the_video_ends(model: VideoModel) -> None:
    run = run_of(model, Square(start_s=30.0))
    [refused] = [answer for answer in run.answers if answer.error]
    assert (refused.item, refused.error) == ("all", "the video ends at 10 s")


def test_a_stream_that_cannot_be_read_back_is_reported_and_others_go_on(
    model: VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(fields: Mapping[str, bytes]) -> TokenChunk:
        chunk = decode(fields)
        if chunk.head.number == 2 and damaged_streams.pop():
            raise WireError("entry: body.tokens: NaN")
        return chunk

    damaged_streams = [False, True]
    monkeypatch.setattr("streamer.evaluation.stream.decode", damaged)
    run = run_of(model, Square(), Square(name="other"))
    assert run.broken == {"square": "entry: body.tokens: NaN"}
    assert [answer.t1 for answer in run.answers if answer.clip == "square"] == [2.0]
    assert len([answer for answer in run.answers if answer.clip == "other"]) == 6


class Several(Square):
    """At its end, asked three things about its past."""

    def queries(self, moment: Moment) -> Sequence[Query]:
        asked = [Query(item="caption", prompt="What moves?", judge=judge)]
        if moment.last:
            asked += [
                Query(item=prompt, prompt=prompt, judge=judge, span=(0.0, moment.t1))
                for prompt in ("What moved?", "How many things move?")
            ]
            asked.append(Query(item="late", prompt="What moved?", judge=judge, span=(6.0, 10.0)))
        return asked


def test_what_is_asked_about_one_span_is_read_once_and_apart_from_captions(
    model: VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[Ask]] = []

    def listening(model: VideoModel, asks: Sequence[Ask], *, max_new_tokens: int) -> list[Said]:
        calls.append(list(asks))
        return answer(model, asks, max_new_tokens=max_new_tokens)

    monkeypatch.setattr("streamer.evaluation.run.answer", listening)
    run = run_of(model, Several(start_s=0.0), with_=DENSE)
    assert not [told for told in run.answers if told.error]
    *_, captions, late, whole = calls
    assert [len(asks) for asks in (captions, late, whole)] == [1, 1, 2]
    assert late[0].session.length < whole[0].session.length / 2
    assert whole[0].session is whole[1].session


def test_no_more_spans_are_answered_together_than_the_longest_context_has_room_for(
    model: VideoModel,
) -> None:
    run = run_of(model, Square(), Square(name="other"), with_=DENSE)
    both = [a for a in run.answers if a.item == "all"]
    assert len(both) == 2
    stream = Stream(Square(), model, DENSE, SERVING)
    while (last := stream.advance()) is not None:
        pending = last
    caption, span = pending
    length = span.ask.session.length
    assert [len(some) for some in calls_of([span, caption, span], room=2 * length)] == [1, 2]
    assert [len(some) for some in calls_of([span, caption, span], room=2 * length - 1)] == [1, 1, 1]


def test_of_the_past_only_what_may_still_be_asked_about_is_kept(model: VideoModel) -> None:
    class Ending(Square):
        def spans_from(self, at_s: float) -> Sequence[float]:
            return [start for start, stop in ((0.0, 4.0), (5.0, 8.0)) if at_s < stop]

    policy = KeyframePolicy(interval_s=4.0)
    stream = Stream(Ending(), model, RLT, replace(SERVING, policy=policy))
    kept = []
    while stream.advance() is not None:
        entries = stream.queue.read("clip", "tokens", after=0)
        kept.append([entry.number for entry in entries])
    assert kept == [[1], [1, 2], [3], [3, 4], []]


def test_of_what_no_span_has_room_for_only_the_length_is_kept(model: VideoModel) -> None:
    serving = replace(SERVING, max_context=100)
    streams = [Stream(Square(start_s=start), model, DENSE, serving) for start in (0.0, 9.0)]
    for stream in streams:
        while stream.advance() is not None:
            pass
    capped, late = (stream.queue.read("clip", "tokens", after=0) for stream in streams)
    assert ["body" in entry.fields for entry in capped] == [True] * 3 + [False] * 2
    assert all("body" in entry.fields for entry in late)
    [refused] = streams[0].refused
    assert refused.error.startswith("0 to 10 s are ")


def test_the_llm_is_warmed_up_where_the_first_chunk_is_asked_nothing(
    model: VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AtTheEnd(Square):
        def queries(self, moment: Moment) -> Sequence[Query]:
            return super().queries(moment) if moment.last else []

    calls: list[int] = []

    def listening(model: VideoModel, asks: Sequence[Ask], *, max_new_tokens: int) -> list[Said]:
        calls.append(max_new_tokens)
        return answer(model, asks, max_new_tokens=max_new_tokens)

    monkeypatch.setattr("streamer.evaluation.run.answer", listening)
    run = run_of(model, AtTheEnd())
    assert calls == [2, 4, 4]
    assert len(run.answers) == 2


def test_what_was_through_before_an_interruption_is_there(model: VideoModel) -> None:
    def interrupt(answer: Answer) -> None:
        if answer.clip == "third":
            raise KeyboardInterrupt

    runs: list[Run] = []
    clips = Squares(Square(), Square(name="other"), Square(name="third"))
    with pytest.raises(KeyboardInterrupt):
        evaluate(clips, [RLT], model, serving=SERVING, together=2, answered=interrupt, runs=runs)
    [run] = runs
    assert {told.clip for told in run.answers} == {cost.clip for cost in run.costs}
    assert {told.clip for told in run.answers} == {"square", "other"}


def test_one_thing_said_is_judged_by_all_that_asked_for_it(model: VideoModel) -> None:
    class Twice(Square):
        def queries(self, moment: Moment) -> Sequence[Query]:
            return [Query(item=item, prompt="What moves?", judge=judge) for item in ("a", "b")]

    run = run_of(model, Twice(spans=False))
    first, second = run.answers[:2]
    assert (first.item, second.item) == ("a", "b")
    assert first.said == second.said
    assert (first.shared, first.llm_ms) == (2, second.llm_ms)


def test_operators_inside_the_llm_count_for_the_layers_behind_them() -> None:
    half = build_pipeline([{"name": "fastv", "layer": 1, "drop": 0.5}])
    assert layer_share(half, tokens=100, layers=4) == (1 + 3 * 0.5) / 4
    assert layer_share(build_pipeline([{"name": "tome"}]), tokens=100, layers=4) == 1
    assert layer_share(half, tokens=0, layers=4) == 1


def test_answers_and_progress_are_told_as_they_come(model: VideoModel) -> None:
    told: list[Answer] = []
    done: list[int] = []
    runs = evaluate(
        Squares(Square(), Square(name="other"), Square(name="third")),
        [DENSE, RLT],
        model,
        serving=SERVING,
        together=2,
        answered=told.append,
        progressed=done.append,
    )
    assert done == [2, 4, 5, 6]
    assert len(told) == 36
    assert sorted(map(id, told)) == sorted(id(a) for run in runs for a in run.answers)


@pytest.fixture(scope="module")
def report(model: VideoModel) -> Report:
    return a_report(model)


def a_report(model: VideoModel) -> Report:
    clips = (Square(), Square(name="other"))
    runs = evaluate(Squares(*clips), [DENSE, RLT], model, serving=SERVING, together=2)
    return Report(
        dataset="squares",
        model="tiny",
        attributes=("all",),
        runs=runs,
        scores=scores(runs, ("all",), {}, seed=0),
        costs=costs(runs, seed=0),
    )


def test_the_csv_is_the_same_again_but_for_the_times(model: VideoModel, report: Report) -> None:
    def untimed(text: str) -> list[list[str]]:
        rows = list(csv.reader(io.StringIO(text)))
        end = COLUMNS.index("encode_ms")
        assert [column.split("_")[0] for column in rows[0][end:]] == [
            *("encode",) * 3,
            *("llm",) * 3,
            *("stream",) * 3,
        ]
        return [row[:end] for row in rows]

    again = a_report(model)
    assert untimed(again.csv()) == untimed(report.csv())
    first, second = csv.DictReader(io.StringIO(report.csv()))
    assert (first["pipeline"], first["share"], first["against_dense"]) == ("dense", "1", "")
    assert (second["pipeline"], second["n"], second["pairs"]) == ("rlt threshold=0.1", "12", "12")
    assert 0 < float(second["share"]) < 1


def test_tokens_are_counted_to_the_last_one_however_many(report: Report) -> None:
    many = replace(report, costs=[replace(cost, tokens=123456789.0) for cost in report.costs])
    assert {row["tokens"] for row in csv.DictReader(io.StringIO(many.csv()))} == {"123456789"}


def test_the_folder_holds_tables_and_curves(report: Report, tmp_path: Path) -> None:
    write(report, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "results.csv",
        "summary.md",
        "curves.svg",
    }
    summary = (tmp_path / "summary.md").read_text()
    assert "| all       | dense             | 12 |" in summary
    assert "| square | all       |" in summary
    drawn = (tmp_path / "curves.svg").read_text()
    assert ">rlt</text>" in drawn
    assert ">all</text>" in drawn
    write(report, tmp_path)
    assert (tmp_path / "curves.svg").read_text() == drawn


def test_a_report_of_nothing_is_written_too(tmp_path: Path) -> None:
    nothing = Report(
        dataset="none", model="tiny", attributes=("all",), runs=(), scores=(), costs=()
    )
    write(nothing, tmp_path)
    assert (tmp_path / "results.csv").read_text().count("\n") == 1
    assert (tmp_path / "curves.svg").stat().st_size


def test_an_answer_is_written_with_all_that_is_needed_to_look_into_it(report: Report) -> None:
    line = json.loads(json.dumps(record(report.runs[1].answers[0])))
    assert (
        line.items()
        >= {
            "pipeline": "rlt threshold=0.1",
            "clip": "square",
            "item": "caption",
            "t0": 0.0,
            "t1": 2.0,
            "question": "What moves?",
            "expected": "x",
        }.items()
    )
    assert set(line) > {"said", "right", "tokens", "dense_tokens", "llm_ms"}


def test_tables_read_the_same_whatever_is_in_them(report: Report) -> None:
    lines = report.tables()
    widths = {len(line) for line in lines[: lines.index("")]}
    assert len(widths) == 1
    assert np.all([line.startswith("|") for line in lines if line])
