"""Operators from configuration."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from operators import RLT, OperatorError, build
from streamer.core import pipeline
from streamer.core.pipeline import build_pipeline, operator_schemas
from streamer.errors import ConfigError


def test_operators_in_order() -> None:
    built = build_pipeline([{"name": "rlt", "threshold": 0.05}, {"name": "tome", "keep": 0.5}])
    assert built.pixel == RLT(threshold=0.05)
    assert built.token == (build("tome", {"keep": 0.5}),)
    assert built.names == ("rlt", "tome")


def test_each_stage_has_its_place() -> None:
    entries = [{"name": name} for name in ("rlt", "evs", "prumerge", "fastv")]
    built = build_pipeline(entries)
    assert built.pixel == RLT()
    assert built.token == (build("evs", {}), build("prumerge", {}))
    assert built.decoder == (build("fastv", {}),)
    assert built.needs == {"attention", "keys"}  # of the encoder; the LLM has attention of its own


def test_what_carries_a_state_is_known() -> None:
    assert build_pipeline([{"name": "dtd"}]).remembers
    assert build_pipeline([{"name": "evs", "space": "pixel"}]).needs == {"change"}
    assert not build_pipeline([{"name": "rlt"}, {"name": "tome"}, {"name": "fastv"}]).remembers


def test_attention_is_proportional_where_an_operator_says_so() -> None:
    assert build_pipeline([{"name": "tome"}]).proportional
    assert not build_pipeline([{"name": "tome", "proportional": False}]).proportional
    assert not build_pipeline([{"name": "rlt"}, {"name": "fastv"}]).proportional


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
        ([{"name": "fastv"}, {"name": "evs"}], r"pipeline\[1\]: evs .* put it before those"),
        (
            [{"name": "fastv", "layer": 2}, {"name": "fastv", "layer": 2}],
            r"pipeline\[1\]: fastv reduces before layer 2, the one ahead of it before layer 2",
        ),
        ([{"name": "rlt"}, {"name": "rlt"}], r"pipeline\[1\]: rlt chooses cells before"),
    ],
)
def test_what_is_wrong_is_named(entries: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_pipeline(entries)


def test_a_signal_that_nobody_gives_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    provided = {**pipeline.PROVIDED, "token": frozenset({"keys"})}
    monkeypatch.setattr(pipeline, "PROVIDED", provided)
    with pytest.raises(ConfigError, match=r"prumerge needs the signal 'attention'.*given: keys"):
        build_pipeline([{"name": "prumerge"}])


def test_an_operator_that_would_do_nothing_inside_the_llm_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tome = type(build("tome", {}))
    monkeypatch.setattr(tome, "stage", "decoder")  # a plan, but no layers
    with pytest.raises(ConfigError, match=r"pipeline\[0\]: tome cannot run inside the LLM"):
        build_pipeline([{"name": "tome"}])


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"pipeline\[0\].*pipeline\[1\]"):
        build_pipeline([{"name": "no"}, {"name": "nor"}])


@pytest.mark.parametrize(
    ("name", "settings", "fits"),
    [
        ("rlt", {"threshold": 0.2, "change": "robust"}, True),
        ("rlt", {"change": "magic"}, False),
        ("rlt", {"treshold": 0.2}, False),
        ("tome", {"keep": 1}, True),
        ("tome", {"keep": 0}, False),
        ("evs", {"rate": 1}, False),
        ("fastv", {"layer": 0}, False),
        ("prumerge", {"ratio": None}, True),
        ("prumerge", {"ratio": 2}, False),
    ],
)
def test_schemas_allow_what_operators_allow(
    name: str, settings: dict[str, object], fits: bool
) -> None:
    assert Draft202012Validator(operator_schemas()[name]).is_valid(settings) == fits
    if fits:
        build(name, settings)
    else:
        with pytest.raises(OperatorError):
            build(name, settings)
