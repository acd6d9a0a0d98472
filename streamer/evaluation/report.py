"""The tables of an evaluation, and the folder that holds all of it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamer.evaluation.answers import Answer, Key, Mark, Run
from streamer.evaluation.bootstrap import Estimate
from streamer.evaluation.scores import Cost, Score, marks_of
from streamer.evaluation.table import milliseconds, percent, points, table

COLUMNS = (
    *("dataset", "model", "pipeline", "family", "attribute", "n"),
    *("accuracy", "low", "high", "pairs", "against_dense", "against_low", "against_high"),
    *("chunks", "tokens", "dense_tokens", "share", "share_low", "share_high"),
    *("encode_ms", "encode_low", "encode_high", "llm_ms", "llm_low", "llm_high"),
    *("stream_ms", "stream_low", "stream_high"),
)
FEW = 12
"""Clips that are also told one by one."""
FEW_RUNS = 4
"""Pipelines whose mistakes are all listed; of more, the first one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came out, to be told in several ways."""

    dataset: str
    model: str
    attributes: Sequence[str]
    """What the tables show, in this order."""
    runs: Sequence[Run]
    scores: Sequence[Score]
    costs: Sequence[Cost]

    def tables(self) -> list[str]:
        """Accuracy by attribute, then cost, as lines."""
        return [*self._accuracies(), "", *self._spent()]

    def csv(self) -> str:
        """A row for each pipeline and attribute; times are the last columns."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        costs = {cost.pipeline: cost for cost in self.costs}
        for score in self.scores:
            row = [self.dataset, self.model, score.pipeline, score.family, score.attribute, score.n]
            row += [*_three(score.accuracy), score.pairs, *_three(score.against_dense)]
            writer.writerow([*row, *_cost_columns(costs.get(score.pipeline))])
        return text.getvalue()

    def summary(self) -> str:
        """All of it as Markdown."""
        clips = len({cost.clip for run in self.runs for cost in run.costs})
        parts = [
            f"# {self.dataset}, {self.model}",
            "",
            f"Clips: {clips}. In brackets: 95 % intervals, by resampling clips. Against dense: the "
            "difference in points, over what both were asked and could be scored on, with the same "
            "truth.",
            "",
            "![Accuracy against tokens](curves.svg)",
            "",
            *self._accuracies(),
            "",
            *self._spent(),
            "",
            "Tokens: visual tokens that a layer of the LLM is given, as a share of all cells. "
            "Encoding: choice of cells, vision tower, operators and wire, per chunk. LLM: per "
            "answer, the time of the answers made together divided by their number. All: decoding, "
            "encoding and answers, per second of video.",
            *self._unanswered(),
        ]
        if 1 < clips <= FEW:
            parts += ["", "## By clip", "", *self._by_clip()]
        shown = self.runs if len(self.runs) <= FEW_RUNS else self.runs[:1]
        confused = [line for run in shown for line in _confusions(run, self.attributes)]
        if confused:
            parts += ["", "## What was confused", "", *confused]
        return "\n".join(parts) + "\n"

    def _accuracies(self) -> list[str]:
        costs = {cost.pipeline: cost for cost in self.costs}
        rows = []
        for attribute in self.attributes:
            for score in self.scores:
                if score.attribute == attribute:
                    cost = costs.get(score.pipeline)
                    told = points(score.against_dense)
                    shown = "" if cost is None else f"{100 * cost.share.value:.1f} %"
                    row = (str(score.n), percent(score.accuracy), told, shown)
                    rows.append((attribute, score.pipeline, *row))
        return table(("attribute", "pipeline", "n", "right", "against dense", "tokens"), rows)

    def _spent(self) -> list[str]:
        rows = [
            (
                cost.pipeline,
                cost.family,
                percent(cost.share),
                milliseconds(cost.encode_ms),
                milliseconds(cost.llm_ms),
                milliseconds(cost.stream_ms),
            )
            for cost in self.costs
        ]
        header = (
            "pipeline",
            "family",
            "tokens",
            "encoding a chunk",
            "LLM an answer",
            "all a second",
        )
        return table(header, rows)

    def _unanswered(self) -> Iterator[str]:
        for run in self.runs:
            errors = [answer for answer in run.answers if answer.error]
            if errors:
                first = errors[0]
                yield ""
                yield f"{run.label}: {len(errors)} not answered, e.g. {first.clip}: {first.error}"
            for clip, reason in run.broken.items():
                yield ""
                yield f"{run.label}: {clip} could not be read to its end: {reason}"

    def _by_clip(self) -> list[str]:
        rows = []
        for attribute in self.attributes:
            marks = {run.label: marks_of(run, attribute) for run in self.runs}
            clips = sorted({key.clip for own in marks.values() for key in own})
            for clip in clips:
                told = [_share(own, clip) for own in marks.values()]
                rows.append((clip, attribute, *told))
        return table(("clip", "attribute", *(run.label for run in self.runs)), rows)


def record(answer: Answer) -> dict[str, object]:
    """An answer as a line of answers.jsonl."""
    judged = answer.judgement
    cut = judged.cut
    return {
        "pipeline": answer.pipeline,
        "clip": answer.clip,
        "item": answer.item,
        "t0": round(answer.t0, 3),
        "t1": round(answer.t1, 3),
        "question": answer.question,
        "expected": judged.expected,
        "said": answer.said,
        "right": {name: mark.right for name, mark in judged.marks.items()},
        **({"cut": {"at_s": round(cut.at_s, 3), "claimed": cut.claimed}} if cut else {}),
        "tokens": answer.tokens,
        "dense_tokens": answer.dense,
        "llm_ms": round(answer.llm_ms, 2),
        **({"error": answer.error} if answer.error else {}),
    }


def write(report: Report, folder: Path) -> None:
    """results.csv, summary.md and curves.svg."""
    from streamer.evaluation.plot import plot_curves  # matplotlib takes a second to import

    (folder / "results.csv").write_text(report.csv(), encoding="utf-8")
    (folder / "summary.md").write_text(report.summary(), encoding="utf-8")
    plot_curves(report, folder / "curves.svg")


def _three(estimate: Estimate | None) -> list[str]:
    if estimate is None:
        return ["", "", ""]
    values = (estimate.value, estimate.low, estimate.high)
    return ["" if value is None else f"{value:.6g}" for value in values]


def _cost_columns(cost: Cost | None) -> list[str]:
    if cost is None:
        return [""] * 15
    counts = [str(cost.chunks), f"{cost.tokens:.12g}", str(cost.dense)]
    estimates = (cost.share, cost.encode_ms, cost.llm_ms, cost.stream_ms)
    return [*counts, *(text for estimate in estimates for text in _three(estimate))]


def _share(marks: Mapping[Key, Mark], clip: str) -> str:
    own = [mark.right for key, mark in marks.items() if key.clip == clip]
    return f"{sum(own)}/{len(own)}" if own else "–"


def _confusions(run: Run, attributes: Sequence[str]) -> Iterator[str]:
    """Only what was confused: true (how often): said instead."""
    for attribute in attributes:
        totals: Counter[str] = Counter()
        wrong: dict[str, Counter[str]] = {}
        for mark in marks_of(run, attribute).values():
            if mark.true:
                totals[mark.true] += 1
            if mark.true and not mark.right:
                wrong.setdefault(mark.true, Counter())[mark.said] += 1
        if wrong:
            yield f"{run.label}, {attribute}:"
            yield ""
        for true in sorted(wrong):
            mistakes = ", ".join(f"{said} ×{n}" for said, n in wrong[true].most_common())
            yield f"- {true} ({totals[true]}): {mistakes}"
        if wrong:
            yield ""
