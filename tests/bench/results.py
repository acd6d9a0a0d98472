"""The figures of benchmarks as CSV files, in tests/bench/results."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FOLDER = Path(__file__).parent / "results"


def read(name: str) -> list[dict[str, str]]:
    """The rows of a file, as text; none where it does not exist."""
    path = FOLDER / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def merge(
    name: str, rows: Sequence[DataclassInstance], *, key: tuple[str, ...]
) -> list[dict[str, str]]:
    """Writes the rows; those of before stay whose `key` columns are none of theirs."""
    fresh = [_texts(row) for row in rows]
    replaced = {tuple(row[column] for column in key) for row in fresh}
    kept = [row for row in read(name) if tuple(row.get(c) for c in key) not in replaced]
    merged = kept + fresh
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(fresh[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(merged)
    return merged


def _texts(row: DataclassInstance) -> dict[str, str]:
    names = [field.name for field in fields(row)]
    return dict(zip(names, map(_short, astuple(row)), strict=True))


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
