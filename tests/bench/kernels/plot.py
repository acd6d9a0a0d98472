"""One picture of all kernels: how many times faster than the straightforward way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

PLOT = Path(__file__).parents[3] / "docs" / "kernels.svg"
COLOURS = {"reference": "#9db4c0", "native": "#2a6fdb", "ours": "#2a6fdb", "triton": "#3a9d5d"}


def draw(rows: Sequence[Mapping[str, str]]) -> None:
    """Bars by kernel and scenario, on a logarithmic axis; the straightforward way is 1."""
    import matplotlib as mpl

    mpl.use("svg")
    # The same figures give the same file, and text stays text.
    mpl.rcParams.update({"svg.hashsalt": "kernels", "svg.fonttype": "none"})
    from matplotlib import pyplot

    shown = [row for row in rows if row["way"] != "straightforward"]
    figure, axes = pyplot.subplots(figsize=(7.5, 0.6 + 0.2 * len(shown)))
    for at, row in enumerate(shown):
        axes.barh(-at, float(row["speedup"]), color=COLOURS.get(row["way"], "#c77d2b"))
        axes.text(float(row["speedup"]) * 1.05, -at, row["way"], fontsize=6, va="center")
    titles = [f"{row['kernel']}, {row['scenario']} ({row['device']})" for row in shown]
    first = [at for at, title in enumerate(titles) if title not in titles[:at]]
    axes.set_yticks([-at for at in first], [titles[at] for at in first], fontsize=7)
    axes.set_xscale("log")
    axes.axvline(1, color="#888", linewidth=1)
    axes.set_xlabel("times faster than the straightforward way")
    axes.set_title("; ".join(sorted({row["machine"] for row in rows})), fontsize=8)
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})
    pyplot.close(figure)
