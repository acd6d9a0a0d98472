"""The tables of figures in README.md and docs, made from tests/bench/results and docs/scores.

python -m tests.bench.pages
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.bench import results, scores

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "evaluation.md")


def kernels() -> Iterator[str]:
    """The best way of each case beside the straightforward one."""
    rows = results.read("kernels")
    yield "| | input | straightforward | ours | | times faster | of copy speed |"
    yield "|---|---|---|---|---|---|---|"
    cases = dict.fromkeys((row["device"], row["kernel"], row["scenario"]) for row in rows)
    for case in cases:
        ways = {
            row["way"]: row
            for row in rows
            if (row["device"], row["kernel"], row["scenario"]) == case
        }
        plain = ways.pop("straightforward")
        best = min(ways.values(), key=lambda row: float(row["ms"]))
        yield (
            f"| `{case[1]}` | {case[2]} | {_ms(plain['ms'])} | {_ms(best['ms'])} | {best['way']} "
            f"| {_times(best['speedup'])} | {float(best['of_copy']):.0%} |"
        )
    yield ""
    yield f"On {_machines(rows)} (`make bench`)."


def price() -> Iterator[str]:
    """Time to tokenize a chunk against what was sent."""
    rows = results.read("price")
    yield "| clip | cells sent | a chunk, kept | dense | of dense |"
    yield "|---|---|---|---|---|"
    for row in rows:
        interval = f"{float(row['low']):.3f} – {float(row['high']):.3f}"
        yield (
            f"| {row['clip']} | {float(row['sent']):.1%} | {_ms(row['kept_ms'])} "
            f"| {_ms(row['dense_ms'])} | {float(row['ratio']):.3f} ({interval}) |"
        )
    yield ""
    yield f"On {_machines(rows)} (`python -m tests.bench.price CLIP …`)."


def change() -> Iterator[str]:
    """What the plain and the robust test send, and how much of what is due that covers."""
    rows = results.read("change")
    yield "| clip | changed | plain sends | of the changed | robust sends | of the changed |"
    yield "|---|---|---|---|---|---|"
    for clip in dict.fromkeys(row["clip"] for row in rows):
        tests = {row["test"]: row for row in rows if row["clip"] == clip}
        sent = " | ".join(
            f"{float(tests[test]['share']):.0%} | {_most(tests[test]['recall_5'])}"
            for test in ("plain", "robust")
        )
        yield f"| {clip} | {float(tests['perfect']['share']):.0%} | {sent} |"
    yield ""
    yield (
        "Changed: cells of which at least 5 % differ from what was sent last, as drawn in rendered "
        "scenes, as an independent detector at full resolution finds it in footage "
        f"(`python -m tests.bench.change_test CLIP …`, {_machines(rows)})."
    )


def speaking() -> Iterator[str]:
    """How often the LLM is asked on change."""
    yield "| clip | chunks | asked about | |"
    yield "|---|---|---|---|"
    for row in results.read("speaking"):
        told = f"{row['moments'].replace('/', ' of ')} moments told" if row["moments"] else ""
        yield f"| {row['clip']} | {row['chunks']} | {float(row['share']):.0%} | {told} |"


def batching() -> Iterator[str]:
    """One captioner, its jobs' answers decoded one by one and together."""
    rows = results.read("batching")
    yield "| jobs | at once | captions/s | per CPU second | p50 | p90 |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        yield (
            f"| {row['jobs']} | {row['batch']} | {float(row['captions_s']):.0f} "
            f"| {float(row['captions_cpu_s']):.0f} | {_ms(row['p50_ms'])} | {_ms(row['p90_ms'])} |"
        )
    yield ""
    yield f"On {_machines(rows)} (`python -m tests.bench.batching`)."


def soak() -> Iterator[str]:
    """What creeps, per 1000 chunks of a job."""
    yield "| | level | per 1000 chunks | 95 % interval | limit |"
    yield "|---|---|---|---|---|"
    for row in results.read("soak_slopes"):
        slope, low, high = (float(row[name]) for name in ("slope", "low", "high"))
        limit = "Ray's own" if row["name"].startswith("Ray: ") else f"± {float(row['limit']):.3g}"
        yield (
            f"| {row['series']}, {row['name']} | {float(row['level']):.0f} {row['unit']} "
            f"| {slope:+.2f} | {low:+.2f} to {high:+.2f} | {limit} |"
        )


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "speaking": speaking,
    "batching": batching,
    "soak": soak,
    "kernels": kernels,
    "price": price,
    "change": change,
    "test scores": scores.against_dense("test"),
    "still scores": scores.against_dense("still"),
    "curves": scores.curves("curves"),
    "contexts": scores.curves("contexts"),
    "facts": scores.facts(("real", "cuts")),
}


def filled(text: str) -> str:
    """The page with every table that it has marks for made anew between them."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, found, rest = text.partition(begin)
        if found:
            _, closed, tail = rest.partition(end)
            if not closed:
                raise ValueError(f"the table {name!r} has no end: {end} is missing")
            text = head + begin + "\n".join(table()) + "\n" + end + tail
    return text


def write() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


def _machines(rows: Sequence[Mapping[str, str]]) -> str:
    return "; ".join(sorted({row["machine"] for row in rows}))


def _ms(text: str) -> str:
    value = float(text)
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.3g} ms" if value >= 0.1 else f"{value * 1000:.3g} µs"


def _most(share: str) -> str:
    """A share that is not rounded up to all."""
    return f"{math.floor(float(share) * 1000) / 10:g} %"


def _times(text: str) -> str:
    value = float(text)
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


if __name__ == "__main__":
    write()
