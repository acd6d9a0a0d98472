"""docs/operators.md, made of the operators themselves: `python -m tests.operators_page` writes it.

Names come from the registry, what an operator does, its paper and its needs from the docstring of
its file, settings from its class.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from operators import OPERATORS, Operator, Setting, names, settings_of

PATH = Path(__file__).parents[1] / "docs" / "operators.md"

HEAD = """\
# Operators

Made of their docstrings and settings, by `python -m tests.operators_page`; a test fails when it is
stale.

A pipeline is a list of operators with their settings, in YAML (`pipeline`), as `--pipeline` or in a
job's request. They run in three stages, in this order: one of stage **pixel** chooses cells before
the vision encoder, those of stage **token** reduce its tokens, and those of stage **decoder**
reduce further inside the LLM. What one needs beside the tokens is computed where it is in the
pipeline.
"""


def said(operator: type[Operator]) -> str:
    """What its file says of it."""
    return " ".join((sys.modules[operator.__module__].__doc__ or "").split())


def line(operator: type[Operator]) -> str:
    """One sentence: what it does."""
    return said(operator).partition(": ")[2].partition(". ")[0]


def paper(operator: type[Operator]) -> str:
    """Authors and year, linked."""
    found = re.search(r"Paper: (.*?), arXiv:(\S+?)[,.] ", said(operator))
    if found:
        return f"[{found[1]}](https://arxiv.org/abs/{found[2]})"
    return "baseline" if "Baseline: " in said(operator) else ""


def needs(operator: type[Operator]) -> str:
    found = re.search(r"Needs: (.*?)\. ", said(operator))
    return found[1] if found else "nothing"


def value(default: object) -> str:
    """As YAML has it."""
    if isinstance(default, bool) or default is None:
        return {True: "true", False: "false", None: "null"}[default]
    return f"{default}"


def page() -> str:
    """The whole text."""
    overview = [
        "| | what it does | stage | needs | paper |",
        "|---|---|---|---|---|",
        *(
            f"| [`{name}`](#{name}) | {line(operator)} | {operator.stage} | {needs(operator)} "
            f"| {paper(operator)} |"
            for name, operator in ((name, OPERATORS[name]) for name in ordered())
        ),
    ]
    return "\n".join([HEAD, *overview, "", *(section(name) for name in ordered())])


def ordered() -> list[str]:
    return [*names("pixel"), *names("token"), *names("decoder")]


def section(name: str) -> str:
    rows = [_row(setting) for setting in settings_of(OPERATORS[name])]
    return "\n".join(
        [f"## {name}", "", "| setting | default | allowed | |", "|---|---|---|---|", *rows, ""]
    )


def _row(setting: Setting) -> str:
    cells = (f"`{setting.name}`", f"`{value(setting.default)}`", setting.allowed, setting.meaning)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
