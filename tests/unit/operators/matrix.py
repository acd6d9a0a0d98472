"""Every operator with two settings or more, and one under which it changes nothing."""

from collections.abc import Mapping
from typing import NamedTuple

from operators import Operator, build

Settings = Mapping[str, object]


class Row(NamedTuple):
    settings: tuple[Settings, ...]
    neutral: Settings


MATRIX = {
    "dtd": Row(({}, {"space": "pixel", "threshold": 0.3}, {"relative": True}), {"threshold": 1}),
    "evs": Row(({}, {"space": "pixel", "rate": 0.75}), {"rate": 0}),
    "fastv": Row(({}, {"layer": 3, "drop": 0.75}), {"drop": 0}),
    "framedrop": Row(({}, {"every": 3}), {"every": 1}),
    "prumerge": Row(({}, {"plus": True}), {"ratio": 1, "neighbors": 0, "order": "raster"}),
    "randomdrop": Row(({}, {"keep": 0.2, "seed": 7}), {"keep": 1}),
    "rlt": Row(
        (
            {},
            {"threshold": 0.5, "symmetric": True},
            {"change": "robust", "anchor": "head", "symmetric": True},
            {"anchor": "head", "refresh": 2},
        ),
        {"threshold": -1},
    ),
    "tome": Row(({}, {"keep": 0.2}), {"keep": 1}),
}


def configured() -> list[Operator]:
    """Every operator under every setting of its row."""
    return [build(name, given) for name, row in MATRIX.items() for given in row.settings]


def neutral() -> list[Operator]:
    return [build(name, row.neutral) for name, row in MATRIX.items()]
