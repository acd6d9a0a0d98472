"""The tables of right answers, made from what `streamer eval --out docs/scores/NAME` wrote.

docs/evaluation.md has the commands.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "scores"
ATTRIBUTES = ("camera", "count", "shape", "colour", "region", "direction", "exact", "questions")
Row = dict[str, str]


def read(name: str) -> list[Row]:
    """The rows of an evaluation."""
    with (FOLDER / name / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def against_dense(name: str) -> Callable[[], Iterator[str]]:
    """Each attribute of the default pipeline beside dense."""

    def lines() -> Iterator[str]:
        rows = {(row["pipeline"], row["attribute"]): row for row in read(name)}
        share = float(rows["default", "exact"]["share"])
        yield f"| | n | dense | default, {share:.1%} of the tokens | default − dense |"
        yield "|---|---|---|---|---|"
        asked = [name for _, name in rows if name.startswith("questions: ")]
        for attribute in (*ATTRIBUTES, *dict.fromkeys(name for name in asked if "picture" in name)):
            dense, ours = rows["dense", attribute], rows["default", attribute]
            yield (
                f"| {attribute} | {dense['n']} | {_right(dense)} | {_right(ours)} "
                f"| {_difference(ours)} |"
            )

    return lines


def curves(name: str) -> Callable[[], Iterator[str]]:
    """Every pipeline: its tokens, and what it gets right."""

    def lines() -> Iterator[str]:
        rows = read(name)
        table = {(row["pipeline"], row["attribute"]): row for row in rows}
        yield "| | tokens | " + " | ".join(ATTRIBUTES) + " | exact − dense |"
        yield "|---|---|" + "---|" * len(ATTRIBUTES) + "---|"
        for pipeline in dict.fromkeys(row["pipeline"] for row in rows):
            own = [table[pipeline, attribute] for attribute in ATTRIBUTES]
            exact = table[pipeline, "exact"]
            cells = [f"{float(exact['share']):.1%}", *(_percent(row["accuracy"]) for row in own)]
            yield f"| {pipeline} | {' | '.join(cells)} | {_difference(exact)} |"

    return lines


def facts(names: Sequence[str]) -> Callable[[], Iterator[str]]:
    """What is right of real clips."""

    def lines() -> Iterator[str]:
        yield "| | | n | right | tokens |"
        yield "|---|---|---|---|---|"
        for row in (row for name in names for row in read(name)):
            if row["attribute"] != "all":
                share = f"{float(row['share']):.1%}" if row["share"] else ""
                yield (
                    f"| {row['attribute']} | {row['pipeline']} | {row['n']} | {_right(row)} "
                    f"| {share} |"
                )

    return lines


def _right(row: Row) -> str:
    interval = f" ({_number(row['low'])} – {_number(row['high'])})" if row["low"] else ""
    return f"{_percent(row['accuracy'])}{interval}"


def _difference(row: Row) -> str:
    if not row["against_dense"]:
        return ""
    value, low, high = (
        100 * float(row[name]) if row[name] else None
        for name in ("against_dense", "against_low", "against_high")
    )
    interval = "" if low is None else f" ({low:+.1f} – {high:+.1f})"
    return f"{value:+.1f}{interval}"


def _percent(text: str) -> str:
    return f"{_number(text)} %"


def _number(text: str) -> str:
    return f"{100 * float(text):.1f}"
