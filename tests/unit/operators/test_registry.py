import math

import pytest

from operators import (
    OPERATORS,
    RLT,
    BadParameter,
    OperatorError,
    ToMe,
    UnknownOperator,
    build,
    names,
)


def test_names_by_stage() -> None:
    assert names() == sorted(OPERATORS)
    assert names("pixel") == ["rlt"]
    assert names("token") == ["tome"]
    assert names("decoder") == []


def test_build_fills_defaults() -> None:
    assert build("rlt", {}) == RLT(threshold=0.1, symmetric=False)
    assert build("rlt", {"threshold": -1}) == RLT(threshold=-1)
    assert build("tome", {"keep": 0.25}) == ToMe(keep=0.25)


def test_unknown_operator_names_the_nearest() -> None:
    with pytest.raises(UnknownOperator, match=r"'tomme' .* rlt, tome\. Did you mean 'tome'\?"):
        build("tomme", {})
    with pytest.raises(UnknownOperator, match=r"there are: rlt, tome\.$"):
        build("zzz", {})


def test_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(BadParameter, match=r"rlt\.treshold: .* Did you mean 'threshold'\?"):
        build("rlt", {"treshold": 0.1})


@pytest.mark.parametrize(
    ("name", "param", "value", "message"),
    [
        ("rlt", "threshold", math.nan, r"rlt\.threshold: nan is not a number; threshold is the "),
        ("rlt", "threshold", math.inf, r"rlt\.threshold: inf is not finite; .*−1 keeps everything"),
        ("rlt", "threshold", "0.1", r"rlt\.threshold: '0\.1' is not a number"),
        ("rlt", "threshold", True, r"rlt\.threshold: True is not a number"),
        ("rlt", "threshold", None, r"rlt\.threshold: None is not a number"),
        ("rlt", "symmetric", 1, r"rlt\.symmetric: 1 is not true or false"),
        ("tome", "keep", 1.5, r"tome\.keep: 1\.5 is not in \(0, 1\]; keep is the fraction"),
        ("tome", "keep", 0, r"tome\.keep: 0 is not in \(0, 1\]"),
        ("tome", "keep", math.nan, r"tome\.keep: nan is not a number"),
        ("tome", "keep", [0.5], r"tome\.keep: \[0\.5\] is not a number"),
    ],
    ids=str,
)
def test_bad_setting_fails(name: str, param: str, value: object, message: str) -> None:
    with pytest.raises(BadParameter, match=message) as caught:
        build(name, {param: value})
    assert isinstance(caught.value, OperatorError)
