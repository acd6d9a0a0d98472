"""docs/operators.md is that of this version, and every operator's file says what it must."""

import pytest

from operators import OPERATORS, Operator, build
from tests.operators_page import PATH, line, needs, page, paper, said

from .matrix import MATRIX

every = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


def test_the_page_is_that_of_the_code() -> None:
    hint = "run `python -m tests.operators_page`, then `git diff`"
    assert PATH.read_text(encoding="utf-8") == page(), hint


@every
def test_its_file_says_what_it_does_and_where_it_is_from(operator: type[Operator]) -> None:
    assert said(operator).startswith(f"{operator.__name__}: ")
    assert line(operator)
    assert paper(operator)
    assert f"Stage: {operator.stage}." in said(operator)
    for part in ("Differs: ", "Shapes: ", "Raises: "):
        assert part in said(operator)


@pytest.mark.parametrize("name", MATRIX)
def test_its_file_says_what_it_needs(name: str) -> None:
    row = MATRIX[name]
    for given in (*row.settings, row.neutral):
        for signal in build(name, given).needs:
            assert signal in needs(OPERATORS[name])
