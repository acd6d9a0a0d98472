import sys
from itertools import pairwise

import pytest

from operators import (
    OPERATORS,
    BadParameter,
    Operator,
    Stage,
    UnknownOperator,
    build,
    names,
    settings_of,
)

from .matrix import MATRIX, configured

STAGES: tuple[Stage, ...] = ("pixel", "token", "decoder")


def test_matrix_has_every_operator_twice() -> None:
    assert set(MATRIX) == set(OPERATORS)
    for name in OPERATORS:
        found = [operator for operator in configured() if operator.name == name]
        assert len(found) >= 2
        assert all(a != b for a, b in pairwise(found))


def test_an_operator_goes_by_the_name_of_its_file() -> None:
    for name, operator in OPERATORS.items():
        assert operator.__module__ == f"operators.{name}"
        assert build(name, {}).name == name
        assert sys.modules[operator.__module__].__doc__


def test_names_by_stage() -> None:
    assert names() == sorted(OPERATORS)
    found = [name for stage in STAGES for name in names(stage)]
    assert sorted(found) == names()
    for stage in STAGES:
        assert all(OPERATORS[name].stage == stage for name in names(stage))


@pytest.mark.parametrize("name", OPERATORS)
def test_build_fills_defaults_and_takes_every_setting(name: str) -> None:
    bare = build(name, {})
    given = {setting.name: getattr(bare, setting.name) for setting in settings_of(OPERATORS[name])}
    assert given == {setting.name: setting.default for setting in settings_of(OPERATORS[name])}
    assert build(name, given) == bare


def test_unknown_operator_names_the_nearest() -> None:
    known = ", ".join(names())
    with pytest.raises(UnknownOperator, match=rf"'tomme' .* {known}\. Did you mean 'tome'\?"):
        build("tomme", {})
    with pytest.raises(UnknownOperator, match=rf"there are: {known}\.$"):
        build("zzz", {})


@pytest.mark.parametrize("name", OPERATORS)
def test_unknown_setting_names_the_nearest(name: str) -> None:
    setting = settings_of(OPERATORS[name])[0].name
    misspelt = setting[0] + setting
    with pytest.raises(BadParameter, match=rf"{name}\.{misspelt}: .* Did you mean '{setting}'\?"):
        build(name, {misspelt: 1})


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("value", ["x", [0.5], {}, float("nan"), float("inf"), 1e9], ids=repr)
def test_bad_setting_fails_by_name(operator: type[Operator], value: object) -> None:
    for setting in settings_of(operator):
        if setting.admits(value):
            continue
        name = operator.__name__.lower()
        with pytest.raises(BadParameter, match=rf"{name}\.{setting.name}: .* is not "):
            build(name, {setting.name: value})
