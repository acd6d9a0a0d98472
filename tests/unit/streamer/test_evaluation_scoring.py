"""How answers are matched, cuts found, clips resampled and pipelines compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamer.evaluation.answers import Answer, ChunkCost, CutClaim, Judgement, Mark, Run
from streamer.evaluation.bootstrap import Part, Tally, difference, ratio
from streamer.evaluation.cuts import Cuts, found, matched
from streamer.evaluation.matching import Match, chosen, lettered, matches
from streamer.evaluation.scores import ALWAYS, Score, costs, scores

ROOMS = ("In the kitchen.", "In a garden", "On the roof")


@pytest.mark.parametrize(
    ("said", "answer", "match", "right"),
    [
        ("It is still.", "it is still", "exact", True),
        ("A red car", "red car", "exact", True),
        ("It is still now.", "it is still", "exact", False),
        ("about 3.5 m", "about 35 m", "exact", False),
        ("A", "the", "exact", False),
        ("Team B", "Team A", "exact", False),
        ("team", "Team A", "exact", False),
        ("A team", "team", "exact", True),
        ("5", "-5", "exact", False),
        ("−5", "(-5)", "exact", True),
        ("?", "!", "exact", False),
        ("?", "?", "exact", True),
        ("What?", "!", "contains", False),
        ("The camera pans left.", "pans left", "contains", True),
        ("The camera pans leftwards.", "pans left", "contains", False),
        ("The camera ZOOMS in.", "pans|zooms", "regex", True),
        ("The camera is still.", "pans|zooms", "regex", False),
    ],
)
def test_what_counts_as_the_answer(said: str, answer: str, match: Match, right: bool) -> None:
    assert matches(said, [answer], match) is right


def test_any_of_several_answers_is_right() -> None:
    assert matches("two", ["2", "two"], "exact")


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ("B", 1),
        ("b.", 1),
        ("(C)", 2),
        ("C. On the roof", 2),
        ("The answer is A.", 0),
        ("on the roof", 2),
        ("They are in a garden, I think.", 1),
        ("A garden or a kitchen.", None),
        ("A man is in the kitchen, then on the roof.", None),
        ("**B**", 1),
        ("The answer is: B", 1),
        ("**Answer:** B", 1),
        ("Answer: B because there are flowers.", 1),
        ("B - the garden", 1),
        ("B. A garden", 1),
        ("(A) or (B)", None),
        ("A, B", None),
        ("A. or B.", None),
        ("A. In the kitchen or B. in a garden", None),
        ("D", None),
        ("", None),
    ],
)
def test_a_choice_is_meant_by_its_letter_or_its_text(said: str, choice: int | None) -> None:
    assert chosen(said, ROOMS) == choice


def test_choices_are_listed_with_letters() -> None:
    assert lettered("Where?", ROOMS[:2]).splitlines()[:3] == [
        "Where?",
        "A. In the kitchen.",
        "B. In a garden",
    ]


@pytest.mark.parametrize(
    ("claimed", "there", "pairs"),
    [
        ([9.0], [9.5], 1),
        ([9.0], [9.6], 0),
        ([9.0, 9.2], [9.1], 1),  # one cut is not found twice
        ([9.0], [8.9, 9.1], 1),  # one claim does not find two
        ([9.0, 10.0], [9.5, 9.5], 2),
        ([9.4, 9.0], [9.8, 9.3], 2),  # 9.4 is left for 9.8
        ([], [1.0], 0),
    ],
)
def test_each_claim_finds_one_cut_at_most(
    claimed: list[float], there: list[float], pairs: int
) -> None:
    assert matched(claimed, there, tolerance_s=0.5) == pairs


def test_only_what_is_claimed_counts() -> None:
    claims = [CutClaim(at_s=t + 0.5, claimed=t == 3) for t in range(10)]
    own = found(claims, Cuts(times=(3.2, 7.9), tolerance_s=0.5))
    assert (own.matched, own.claimed, own.there) == (1, 1, 2)


def tally(*parts: tuple[float, float]) -> Tally:
    return {f"clip {i}": Part(of=of, over=over) for i, (of, over) in enumerate(parts)}


def test_a_ratio_is_of_the_sums_not_of_the_clips() -> None:
    estimate = ratio(tally((9, 10), (0, 1)), seed=0)
    assert estimate is not None
    assert estimate.value == pytest.approx(9 / 11)
    assert (estimate.low, estimate.high) == (0, 0.9)


def test_an_interval_is_as_wide_as_the_clips_differ() -> None:
    right = np.random.default_rng(0).random(400) < 0.8
    alone = ratio(tally(*((float(r), 1) for r in right)), seed=1)
    assert alone is not None
    assert alone.low is not None
    assert alone.high is not None
    expected = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert (alone.high - alone.low) / 2 == pytest.approx(expected, rel=0.15)
    # four chunks of a clip that are all alike tell no more than one
    together = ratio(tally(*((4.0 * r, 4) for r in right)), seed=1)
    assert together is not None
    assert (together.low, together.high) == (alone.low, alone.high)


def test_one_clip_has_no_interval() -> None:
    estimate = ratio(tally((3, 4), (0, 0)), seed=0)
    assert estimate is not None
    assert (estimate.value, estimate.low, estimate.high) == (0.75, None, None)


def test_nothing_over_nothing_is_no_estimate() -> None:
    assert ratio(tally((0, 0)), seed=0) is None
    assert difference(tally((0, 0)), tally((1, 1)), seed=0) is None


def test_what_is_hard_for_both_does_not_widen_the_difference() -> None:
    hard = tally(*((float(i % 2), 1) for i in range(40)))
    same = difference(hard, hard, seed=0)
    assert same is not None
    assert (same.value, same.low, same.high) == (0, None, None)
    harder = tally(*((float(i % 2 and i > 20), 1) for i in range(40)))
    apart = difference(harder, hard, seed=0)
    assert apart is not None
    assert apart.low is not None
    assert apart.high is not None
    alone = ratio(hard, seed=0)
    assert alone is not None
    assert alone.low is not None
    assert apart.low < apart.value == -0.25 < apart.high < 0


def test_there_is_no_interval_where_nothing_was_ever_wrong() -> None:
    perfect = ratio(tally(*((3, 3) for _ in range(40))), seed=0)
    assert perfect is not None
    assert (perfect.value, perfect.low, perfect.high) == (1, None, None)


def test_a_difference_that_rests_on_one_clip_has_no_interval() -> None:
    one, other = tally((1, 2), (0, 0)), tally((0, 0), (2, 2))
    apart = difference(one, other, seed=0)
    assert apart is not None
    assert (apart.low, apart.high) == (None, None)


def test_the_same_seed_draws_the_same_clips() -> None:
    parts = tally(*((float(i % 5), i) for i in range(30)))
    assert ratio(parts, seed=4) == ratio(parts, seed=4)
    assert ratio(parts, seed=4) != ratio(parts, seed=5)


def an_answer(
    clip: str,
    t1: float,
    *,
    llm_ms: float = 4.0,
    shared: int = 1,
    expected: str = "",
    **marks: bool,
) -> Answer:
    judgement = Judgement(
        expected=expected, marks={name: Mark(right=right) for name, right in marks.items()}
    )
    return Answer(
        pipeline="",
        clip=clip,
        item="caption",
        t0=t1 - 2,
        t1=t1,
        question="?",
        said="",
        judgement=judgement,
        tokens=1,
        dense=2,
        llm_ms=llm_ms,
        shared=shared,
    )


def a_cost(clip: str, *, tokens: float = 10) -> ChunkCost:
    return ChunkCost(clip=clip, seconds=2.0, tokens=tokens, dense=40, decode_ms=1.0, encode_ms=5.0)


def a_run(label: str, *answers: Answer, dense: bool = False) -> Run:
    made = [a_cost(clip) for clip in sorted({answer.clip for answer in answers})]
    return Run(label=label, family=label, dense=dense, answers=list(answers), costs=made)


def by_name(rows: list[Score]) -> dict[tuple[str, str], Score]:
    return {(row.pipeline, row.attribute): row for row in rows}


def test_pipelines_are_compared_over_what_both_have_a_truth_for() -> None:
    dense = a_run(
        "dense",
        an_answer("a", 2, camera=True),
        an_answer("a", 4, camera=True),
        an_answer("b", 2, camera=False),
        dense=True,
    )
    rlt = a_run(
        "rlt", an_answer("a", 2, camera=False), an_answer("a", 4), an_answer("b", 2, camera=False)
    )
    rows = by_name(scores([dense, rlt], ["camera"], {}, seed=0))
    own = rows["rlt", "camera"]
    assert (own.n, own.accuracy.value, own.pairs) == (2, 0.0, 2)
    assert own.against_dense is not None
    assert own.against_dense.value == -0.5  # of the pairs dense has one right, not two of three
    assert rows["dense", "camera"].against_dense is None


def test_answers_are_paired_only_where_the_same_is_true_in_both() -> None:
    dense = a_run(
        "dense",
        an_answer("a", 2, expected="A red disc.", left=True),
        an_answer("a", 4, expected="A red disc.", left=True),
        dense=True,
    )
    rlt = a_run(
        "rlt",
        an_answer("a", 2, expected="A red disc.", left=True),
        an_answer("a", 4, expected="Nothing.", left=False),
    )
    own = by_name(scores([dense, rlt], ["left"], {}, seed=0))["rlt", "left"]
    assert (own.n, own.pairs) == (2, 1)
    assert own.against_dense is not None
    assert own.against_dense.value == 0


def test_attributes_that_nobody_named_come_last() -> None:
    run = a_run("rlt", an_answer("a", 2, zebra=True, exact=True, ape=False))
    assert [row.attribute for row in scores([run], ["exact", "count"], {}, seed=0)] == [
        "exact",
        "ape",
        "zebra",
    ]


def test_cuts_are_told_as_precision_and_recall_beside_a_baseline() -> None:
    def claim(clip: str, t: float, claimed: bool) -> Answer:
        answer = an_answer(clip, t + 1)
        cut = CutClaim(at_s=t + 0.5, claimed=claimed)
        return Answer(
            **{name: getattr(answer, name) for name in Answer.__slots__ if name != "judgement"},
            judgement=Judgement(expected="", cut=cut),
        )

    answers = [claim("a", t, t in (1, 2)) for t in range(4)]
    cuts = {("a", "caption"): Cuts(times=(1.4,), tolerance_s=0.5)}
    rows = by_name(scores([a_run("rlt", *answers)], ["cut F1"], cuts, seed=0))
    told = {name: row.accuracy.value for name, row in rows.items()}
    assert told == {
        ("rlt", "cut F1"): pytest.approx(2 / 3),
        ("rlt", "cut precision"): 0.5,
        ("rlt", "cut recall"): 1.0,
        (ALWAYS, "cut F1"): pytest.approx(2 / 5),
        (ALWAYS, "cut precision"): 0.25,
        (ALWAYS, "cut recall"): 1.0,
    }


def test_a_video_that_broke_off_has_no_cut_scores() -> None:
    answer = an_answer("a", 1)
    cut = CutClaim(at_s=0.5, claimed=True)
    claiming = replace(answer, judgement=Judgement(expected="", cut=cut))
    run = a_run("rlt", claiming)
    cuts = {("a", "caption"): Cuts(times=(0.5, 50.0), tolerance_s=0.5)}
    assert scores([run], [], cuts, seed=0)
    run.broken["a"] = "it ends at 1 s"
    assert scores([run], [], cuts, seed=0) == []


def test_costs_are_per_chunk_per_thing_said_and_per_second() -> None:
    run = a_run(
        "rlt",
        an_answer("a", 2, llm_ms=3.0, shared=2),
        an_answer("a", 2, llm_ms=3.0, shared=2),
        an_answer("b", 2, llm_ms=8.0),
    )
    [cost] = costs([run], seed=0)
    assert cost.share.value == 0.25
    assert cost.encode_ms.value == 5.0
    assert cost.llm_ms is not None
    assert cost.llm_ms.value == 7.0  # 14 ms for two things said, one of them judged twice
    assert cost.stream_ms.value == (2 + 10 + 14) / 4
