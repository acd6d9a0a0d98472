"""Accuracy against the share of tokens: a panel for each attribute, a curve for each family."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from streamer.evaluation.bootstrap import Estimate
from streamer.evaluation.scores import ALWAYS, Cost, Score

if TYPE_CHECKING:
    from streamer.evaluation.report import Report

ACROSS = 3
DENSE = "black"
TICKS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)


def plot_curves(report: Report, path: Path) -> None:
    """The ending of `path` is the format. The share is on a logarithmic axis."""
    costs = {cost.pipeline: cost for cost in report.costs}
    reference = next((run.label for run in report.runs if run.dense), None)
    there = {score.attribute for score in report.scores}
    shown = [name for name in report.attributes if name in there]
    down = max(1, -(-len(shown) // ACROSS))
    figure = Figure(figsize=(4.2 * ACROSS, 3.1 * down + 0.6), layout="constrained")
    panels = list(figure.subplots(down, ACROSS, squeeze=False).flat)
    families = dict.fromkeys(score.family for score in report.scores if score.family != ALWAYS)
    colours = {family: f"C{n}" for n, family in enumerate(families)}
    if reference is not None:
        colours |= {score.family: DENSE for score in report.scores if score.pipeline == reference}
    handles: dict[str, Any] = {}
    for axes, attribute in zip(panels, shown, strict=False):
        own = [score for score in report.scores if score.attribute == attribute]
        handles |= _panel(axes, own, costs, colours)
        axes.set_title(attribute, loc="left", parse_math=False)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    title = f"{report.dataset}, {report.model}: right answers against visual tokens"
    figure.suptitle(title, x=0.01, ha="left", parse_math=False)
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower left", ncols=6, frameon=False
    )
    # The same results give the same file; text stays text, in whatever script names are.
    same = rc_context({"svg.hashsalt": "curves", "svg.fonttype": "none"})
    with same, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, metadata={"Date": None})


def _panel(
    axes: Any, scores: Sequence[Score], costs: dict[str, Cost], colours: dict[str, str]
) -> dict[str, Any]:
    """Draws it; returns what the legend shows of it."""
    handles: dict[str, Any] = {}
    for family, colour in colours.items():
        own = [score for score in scores if score.family == family and score.pipeline in costs]
        points = sorted(((costs[s.pipeline].share.value, s) for s in own), key=lambda at: at[0])
        shares = [share for share, _ in points]
        values = [score.accuracy.value for _, score in points]
        reach = [_reach(score.accuracy) for _, score in points]
        if not points:
            continue
        handles[family] = axes.errorbar(
            shares,
            values,
            yerr=([low for low, _ in reach], [high for _, high in reach]),
            color=colour,
            marker="o",
            markersize=3.5,
            linewidth=1.2,
            elinewidth=0.6,
        )
        if colour == DENSE:
            axes.axhline(values[-1], color=DENSE, linewidth=0.8, linestyle=":")
    for score in scores:
        if score.family == ALWAYS:
            label = {"color": "grey", "linewidth": 0.8, "linestyle": "--"}
            handles[ALWAYS] = axes.axhline(score.accuracy.value, **label)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.25)
    return handles


def _reach(estimate: Estimate) -> tuple[float, float]:
    """How far its interval goes below and above it."""
    if estimate.low is None or estimate.high is None:
        return (0.0, 0.0)
    return (max(0.0, estimate.value - estimate.low), max(0.0, estimate.high - estimate.value))
