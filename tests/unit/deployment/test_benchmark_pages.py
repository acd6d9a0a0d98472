"""The tables of figures are those of the files that benchmarks wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.pages import PAGES, TABLES, filled


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_are_those_of_the_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert filled(text) == text, "run `python -m tests.bench.pages`, then `git diff`"


def test_every_table_stands_on_a_page() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    assert [name for name in TABLES if not any(f"<!-- {name} -->" in text for text in texts)] == []
