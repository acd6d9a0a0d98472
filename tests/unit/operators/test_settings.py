from dataclasses import dataclass
from typing import Literal

import pytest

from operators import BadParameter
from operators.settings import check_settings, setting, settings_of


@dataclass(frozen=True)
class Lamp:
    level: float = setting(0.5, "how bright it is", within="[0, 1)")
    count: int | None = setting(None, "how many there are", within="[1, inf)")
    colour: Literal["red", "green"] = setting("red", "what is seen")
    speed: float = setting(1.0, "how fast it blinks")
    on: bool = setting(True, "true while it burns")


@pytest.mark.parametrize(
    "lamp",
    [
        Lamp(),
        Lamp(level=0),
        Lamp(level=0.999),
        Lamp(count=1),
        Lamp(count=10**400),
        Lamp(count=10**9, colour="green", on=False),
    ],
    ids=repr,
)
def test_what_is_allowed(lamp: Lamp) -> None:
    check_settings(lamp, "lamp")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"level": 1}, "lamp.level: 1 is not a number in [0, 1); level is how bright it is"),
        ({"level": -1}, "lamp.level: -1 is not a number in [0, 1); level is how bright it is"),
        (
            {"speed": 10**400},
            "lamp.speed: 100000000000000000...0000000000000000000 is not a number; "
            "speed is how fast it blinks",
        ),
        ({"level": True}, "lamp.level: True is not a number in [0, 1); level is how bright it is"),
        ({"level": "1"}, "lamp.level: '1' is not a number in [0, 1); level is how bright it is"),
        ({"level": None}, "lamp.level: None is not a number in [0, 1); level is how bright it is"),
        (
            {"count": 1.5},
            "lamp.count: 1.5 is not a whole number in [1, inf), or null; "
            "count is how many there are",
        ),
        (
            {"count": 0},
            "lamp.count: 0 is not a whole number in [1, inf), or null; count is how many there are",
        ),
        (
            {"colour": "blue"},
            "lamp.colour: 'blue' is not one of 'red', 'green'; colour is what is seen",
        ),
        ({"colour": 1}, "lamp.colour: 1 is not one of 'red', 'green'; colour is what is seen"),
        ({"on": 1}, "lamp.on: 1 is not true or false; on is true while it burns"),
    ],
    ids=str,
)
def test_what_is_not(given: dict[str, object], message: str) -> None:
    with pytest.raises(BadParameter) as caught:
        check_settings(Lamp(**given), "lamp")  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_they_are_told_in_order() -> None:
    assert [(s.name, s.default) for s in settings_of(Lamp)] == [
        ("level", 0.5),
        ("count", None),
        ("colour", "red"),
        ("speed", 1.0),
        ("on", True),
    ]
