"""The share of cells kept, over time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from streamer.inspection.walk import Choice


def plot_shares(choices: Sequence[Choice], path: Path, *, title: str) -> None:
    """A line for each operator, dots at its I-chunks; the ending of `path` is the format."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for name in dict.fromkeys(choice.name for choice in choices):
        own = [choice for choice in choices if choice.name == name]
        mean = sum(choice.kept for choice in own) / sum(choice.dense for choice in own)
        [line] = axes.plot(
            [choice.t for choice in own],
            [choice.share for choice in own],
            drawstyle="steps-mid",
            linewidth=1.2,
            label=f"{name}: {mean:.1%} of all",
        )
        starts = [c for i, c in enumerate(own) if c.kind == "I" and c.chunk != own[i - 1].chunk]
        axes.plot(
            [choice.t for choice in starts or own[:1]],
            [choice.share for choice in starts or own[:1]],
            "o",
            markersize=3.5,
            color=line.get_color(),
        )
    axes.set_title(title, loc="left", parse_math=False)
    axes.set(xlabel="media time, s", ylabel="share of cells kept", ylim=(0, 1.05))
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False)
    # The same shares give the same file; text stays text, in whatever script the title is.
    same = rc_context({"svg.hashsalt": "share", "svg.fonttype": "none"})
    with same, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, metadata={"Date": None})
