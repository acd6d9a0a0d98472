"""Tables that are Markdown and can be read as they are."""

from __future__ import annotations

from collections.abc import Sequence

from streamer.evaluation.bootstrap import Estimate

LEFT = 2
"""Columns that are text."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, the first two columns to the left and the others to the right."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = [("-" * (w + 2) if i < LEFT else "-" * (w + 1) + ":") for i, w in enumerate(widths)]
    head, *body = (_line(row, widths) for row in cells)
    return [head, "|" + "|".join(rule) + "|", *body]


def percent(estimate: Estimate | None) -> str:
    """A share, with its interval."""
    if estimate is None:
        return "–"
    return f"{100 * estimate.value:.1f} %" + _interval(estimate, scale=100, sign="")


def points(estimate: Estimate | None) -> str:
    """A difference of two shares, with its interval."""
    if estimate is None:
        return "–"
    return f"{100 * estimate.value:+.1f}" + _interval(estimate, scale=100, sign="+")


def milliseconds(estimate: Estimate | None) -> str:
    """A time, with its interval."""
    if estimate is None:
        return "–"
    digits = 1 if estimate.value < 100 else 0
    return f"{estimate.value:.{digits}f} ms" + _interval(estimate, scale=1, sign="", digits=digits)


def _interval(estimate: Estimate, *, scale: float, sign: str, digits: int = 1) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    low, high = (f"{scale * end:{sign}.{digits}f}" for end in (estimate.low, estimate.high))
    return f" ({low} to {high})"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell.ljust(width) if i < LEFT else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "| " + " | ".join(padded) + " |"
