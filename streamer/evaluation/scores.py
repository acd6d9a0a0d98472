"""Answers and costs of several pipelines, counted by clip and estimated with their intervals."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from streamer.evaluation.answers import Key, Mark, Run
from streamer.evaluation.bootstrap import Estimate, Part, Tally, difference, ratio
from streamer.evaluation.cuts import CUT_SCORES, Cuts, Found, found

ALWAYS = "always a cut"
"""The baseline that claims a cut of every chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One attribute of what one pipeline said."""

    pipeline: str
    family: str
    attribute: str
    n: int
    """Answers; of cuts, what the ratio is over."""
    accuracy: Estimate
    pairs: int = 0
    """Answers that are scored in the dense run too, where the same is true."""
    against_dense: Estimate | None = None
    """The difference to it over these pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one pipeline spent."""

    pipeline: str
    family: str
    chunks: int
    tokens: float
    dense: int
    share: Estimate
    encode_ms: Estimate
    """Per chunk."""
    llm_ms: Estimate | None
    """Per answer; None where nothing was answered."""
    stream_ms: Estimate
    """All of it, per second of media time."""


def scores(
    runs: Sequence[Run],
    attributes: Sequence[str],
    cuts: Mapping[tuple[str, str], Cuts],
    *,
    seed: int,
) -> list[Score]:
    """Every attribute of every run: those given first, then others that were found."""
    clips = sorted({cost.clip for run in runs for cost in run.costs})
    reference = next((run for run in runs if run.dense), None)
    named = [name for name in attributes if name not in CUT_SCORES]
    seen = (name for run in runs for answer in run.answers for name in answer.judgement.marks)
    names = tuple(dict.fromkeys([*named, *sorted(set(seen))]))
    rows = []
    for run in runs:
        for name in names:
            row = _marked(run, name, None if run is reference else reference, clips, seed)
            rows += [row] if row else []
        rows += _cut_scores(run, None if run is reference else reference, cuts, clips, seed)
    if runs and cuts:
        rows += _cut_scores(_always(runs[0]), None, cuts, clips, seed)
    return rows


def marks_of(run: Run, attribute: str) -> dict[Key, Mark]:
    """The marks of one attribute, by what is the same in every run."""
    return {
        answer.key: answer.judgement.marks[attribute]
        for answer in run.answers
        if attribute in answer.judgement.marks
    }


def costs(runs: Iterable[Run], *, seed: int) -> list[Cost]:
    """What every run spent; none of a run that saw nothing."""
    return [_cost(run, seed) for run in runs if run.costs]


def _marked(
    run: Run, name: str, reference: Run | None, clips: Sequence[str], seed: int
) -> Score | None:
    marks = marks_of(run, name)
    accuracy = ratio(_tally(marks, clips), seed=seed)
    if accuracy is None:
        return None
    score = Score(
        pipeline=run.label, family=run.family, attribute=name, n=len(marks), accuracy=accuracy
    )
    if reference is None:
        return score
    others = marks_of(reference, name)
    # a truth begins with the group, and groups begin elsewhere in other pipelines
    own, other = _expected(run), _expected(reference)
    both = [key for key in marks if key in others and own[key] == other[key]]
    return replace(
        score,
        pairs=len(both),
        against_dense=difference(
            _tally({key: marks[key] for key in both}, clips),
            _tally({key: others[key] for key in both}, clips),
            seed=seed,
        ),
    )


def _expected(run: Run) -> dict[Key, str]:
    return {answer.key: answer.judgement.expected for answer in run.answers}


def _tally(marks: Mapping[Key, Mark], clips: Sequence[str]) -> Tally:
    """All clips are in it, so that every attribute is resampled alike."""
    right: Counter[str] = Counter()
    all_: Counter[str] = Counter()
    for key, mark in marks.items():
        right[key.clip] += mark.right
        all_[key.clip] += 1
    return {clip: Part(of=right[clip], over=all_[clip]) for clip in clips}


def _cut_scores(
    run: Run,
    reference: Run | None,
    cuts: Mapping[tuple[str, str], Cuts],
    clips: Sequence[str],
    seed: int,
) -> list[Score]:
    own, other = _cut_tallies(run, cuts, clips), None
    if reference is not None:
        other = _cut_tallies(reference, cuts, clips)
    rows = []
    for name, tally in own.items():
        accuracy = ratio(tally, seed=seed)
        if accuracy is None:
            continue
        rows.append(
            Score(
                pipeline=run.label,
                family=run.family,
                attribute=name,
                n=int(sum(part.over for part in tally.values())),
                accuracy=accuracy,
                against_dense=difference(tally, other[name], seed=seed) if other else None,
            )
        )
    return rows


def _cut_tallies(
    run: Run, cuts: Mapping[tuple[str, str], Cuts], clips: Sequence[str]
) -> dict[str, Tally]:
    counted: dict[str, list[Found]] = {clip: [] for clip in clips}
    for (clip, item), there in cuts.items():
        claims = [
            answer.judgement.cut
            for answer in run.answers
            if (answer.clip, answer.item) == (clip, item) and answer.judgement.cut is not None
        ]
        if claims and clip in counted and clip not in run.broken:
            counted[clip].append(found(claims, there))
    parts = {
        clip: (
            sum(one.matched for one in founds),
            sum(one.claimed for one in founds),
            sum(one.there for one in founds),
        )
        for clip, founds in counted.items()
    }
    return {
        "cut F1": {
            c: Part(of=2 * m, over=claimed + there) for c, (m, claimed, there) in parts.items()
        },
        "cut precision": {c: Part(of=m, over=claimed) for c, (m, claimed, _) in parts.items()},
        "cut recall": {c: Part(of=m, over=there) for c, (m, _, there) in parts.items()},
    }


def _always(run: Run) -> Run:
    """The same moments, with a cut claimed of each."""
    answers = []
    for answer in run.answers:
        claim = answer.judgement.cut
        claimed = claim and replace(claim, claimed=True)
        answers.append(replace(answer, judgement=replace(answer.judgement, cut=claimed)))
    return Run(label=ALWAYS, family=ALWAYS, dense=False, answers=answers, broken=run.broken)


def _cost(run: Run, seed: int) -> Cost:
    answered = [answer for answer in run.answers if not answer.error]
    llm = _by_clip((answer.clip, answer.llm_ms) for answer in answered)
    asked = _by_clip((answer.clip, 1 / answer.shared) for answer in answered)
    seconds = _by_clip((cost.clip, cost.seconds) for cost in run.costs)
    chunks = _by_clip((cost.clip, 1) for cost in run.costs)
    tokens = _by_clip((cost.clip, cost.tokens) for cost in run.costs)
    dense = _by_clip((cost.clip, cost.dense) for cost in run.costs)
    encode = _by_clip((cost.clip, cost.encode_ms) for cost in run.costs)
    decode = _by_clip((cost.clip, cost.decode_ms) for cost in run.costs)
    spent = {clip: decode[clip] + encode[clip] + llm.get(clip, 0.0) for clip in seconds}

    def estimate(of: Mapping[str, float], over: Mapping[str, float]) -> Estimate | None:
        parts = {c: Part(of=of.get(c, 0.0), over=over.get(c, 0.0)) for c in seconds}
        return ratio(parts, seed=seed)

    share, encode_ms = estimate(tokens, dense), estimate(encode, chunks)
    stream_ms = estimate(spent, seconds)
    assert share is not None  # every chunk has cells, and lasts
    assert encode_ms is not None
    assert stream_ms is not None
    return Cost(
        pipeline=run.label,
        family=run.family,
        chunks=len(run.costs),
        tokens=sum(tokens.values()),
        dense=int(sum(dense.values())),
        share=share,
        encode_ms=encode_ms,
        llm_ms=estimate(llm, asked),
        stream_ms=stream_ms,
    )


def _by_clip(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: defaultdict[str, float] = defaultdict(float)
    for clip, value in values:
        sums[clip] += value
    return dict(sums)
