"""The tables of figures are those of the files that benchmarks wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.pages import PAGES, SHOWN, filled
from tests.bench.results import read


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_are_those_of_the_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert filled(text) == text, "run `python -m tests.bench.pages`, then `git diff`"


def test_every_case_that_the_readme_names_was_measured() -> None:
    assert {(row["kernel"], row["scenario"]) for row in read("kernels")} >= SHOWN
    assert read("price")
    assert read("change")
