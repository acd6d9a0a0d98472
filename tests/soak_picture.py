"""Draws docs/soak.svg: latency and memory of four live streams over time.

Run: python -m tests.soak_picture. The figures are those of tests/bench/results/soak.csv.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from tests.bench import results

PATH = Path(__file__).parents[1] / "docs" / "soak.svg"
RAY = "Ray: "
WARM_UP_S = 180.0


def draw(rows: Sequence[Mapping[str, str]], warm_up_s: float = WARM_UP_S) -> None:
    """Latency above, what a session holds between, memory below; the warm-up is shaded."""
    figure = Figure(figsize=(9, 8.4), layout="constrained")
    latency, group, memory = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1.2, 3))
    _lines(latency, rows, "latency", "-")
    _lines(latency, rows, "end to end", ":")
    latency.set(ylabel="ms of a chunk")
    latency.set_title(
        "Four live streams: latency (lines: in the service, dots: from the picture's time)",
        loc="left",
        fontsize=9,
    )
    _lines(group, rows, "group", "-")
    group.set(ylabel="tokens")
    group.set_title("What a session holds at most", loc="left", fontsize=9)
    _grown(memory, [row for row in rows if not row["name"].startswith(RAY)], warm_up_s)
    memory.set(xlabel="minutes", ylabel="MB more than after the warm-up", ylim=(-25, 25))
    memory.set_title("Memory of every process", loc="left", fontsize=9)
    for axes in (latency, group, memory):
        axes.axvspan(0, warm_up_s / 60, color="#888", alpha=0.12, linewidth=0)
        axes.grid(alpha=0.25)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7, frameon=False)
    for axes in (latency, group):
        axes.set_ylim(bottom=0)
    # The same figures give the same file, and text stays text.
    with rc_context({"svg.hashsalt": "soak", "svg.fonttype": "none"}):
        figure.savefig(PATH, metadata={"Date": None})


def _lines(axes: object, rows: Sequence[Mapping[str, str]], series: str, style: str) -> None:
    own = [row for row in rows if row["series"] == series]
    for n, name in enumerate(dict.fromkeys(row["name"] for row in own)):
        points = [
            (float(row["at_s"]) / 60, float(row["value"])) for row in own if row["name"] == name
        ]
        label = f"{name}, {series}" if series == "end to end" else name
        axes.plot(  # type: ignore[attr-defined]  # matplotlib is untyped
            *zip(*points, strict=True), style, linewidth=1, label=label, color=f"C{n % 10}"
        )


def _grown(axes: object, rows: Sequence[Mapping[str, str]], warm_up_s: float) -> None:
    own = [row for row in rows if row["series"] == "memory"]
    for n, name in enumerate(dict.fromkeys(row["name"] for row in own)):
        points = [(float(row["at_s"]), float(row["value"])) for row in own if row["name"] == name]
        began = next((mb for at_s, mb in points if at_s >= warm_up_s), points[-1][1])
        axes.plot(  # type: ignore[attr-defined]  # matplotlib is untyped
            [at_s / 60 for at_s, _ in points],
            [mb - began for _, mb in points],
            linewidth=1,
            linestyle="-" if n < 10 else "--",
            label=f"{name}, {began:.0f} MB",
            color=f"C{n % 10}",
        )


if __name__ == "__main__":
    draw(results.read("soak"))
