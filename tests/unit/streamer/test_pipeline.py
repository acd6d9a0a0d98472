"""Operators from configuration."""

from __future__ import annotations

import pytest

from operators import RLT, ToMe
from streamer.core.pipeline import build_pipeline
from streamer.errors import ConfigError


def test_operators_in_order() -> None:
    built = build_pipeline([{"name": "rlt", "threshold": 0.05}, {"name": "tome", "keep": 0.5}])
    assert built.pixel == RLT(threshold=0.05)
    assert built.token == (ToMe(keep=0.5),)
    assert built.names == ("rlt", "tome")


def test_none_is_dense() -> None:
    assert build_pipeline([]).pixel is None


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"name": "rtl"}], r"pipeline\[0\]: operator 'rtl' does not exist.*Did you mean 'rlt'"),
        ([{"name": "rlt", "threshold": float("nan")}], r"pipeline\[0\]: rlt.threshold: nan"),
        ([{"name": "rlt", "treshold": 1}], r"rlt.treshold: unknown setting.*'threshold'"),
        ([{"threshold": 1}], r"pipeline\[0\]: an entry needs a name"),
        ([{"name": "tome"}, {"name": "rlt"}], r"pipeline\[1\]: rlt chooses cells before"),
        ([{"name": "rlt"}, {"name": "rlt"}], r"pipeline\[1\]: rlt chooses cells before"),
    ],
)
def test_what_is_wrong_is_named(entries: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_pipeline(entries)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"pipeline\[0\].*pipeline\[1\]"):
        build_pipeline([{"name": "no"}, {"name": "nor"}])
