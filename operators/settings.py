"""What a setting may be: declared beside its default, checked alike for every operator.

    keep: float = setting(0.5, "the fraction of tokens kept, e.g. 0.25", within="(0, 1]")

The kind (a number, a whole number, true or false, one of some words, None) is the annotation's.
"""

import reprlib
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from operators.errors import BadParameter

T = TypeVar("T")
MEANING, WITHIN = "meaning", "within"


def setting(default: T, meaning: str, *, within: str | None = None) -> T:
    """A field of an operator, `meaning` this; a number lies in the interval `within`."""
    return field(default=default, metadata={MEANING: meaning, WITHIN: within})


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting of an operator, for those who describe or check it."""

    name: str
    default: object
    meaning: str
    kinds: tuple[Any, ...]
    """Types, or the words that are allowed: any one of them."""
    within: str | None

    @property
    def allowed(self) -> str:
        """In words, as error messages and the documentation have it."""
        if bool in self.kinds:
            return "true or false"
        words = [repr(kind) for kind in self.kinds if isinstance(kind, str)]
        if words:
            return "one of " + ", ".join(words)
        number = "a whole number" if int in self.kinds else "a number"
        number += f" in {self.within}" if self.within else ""
        return f"{number}, or null" if NoneType in self.kinds else number

    def admits(self, value: object) -> bool:
        if isinstance(value, bool):
            return bool in self.kinds
        if isinstance(value, int | float):
            fits = float in self.kinds or (int in self.kinds and isinstance(value, int))
            finite = int in self.kinds or abs(value) <= sys.float_info.max  # NaN is not, either
            return fits and finite and _inside(value, self.within)
        return value in self.kinds if isinstance(value, str) else type(value) in self.kinds


def settings_of(operator: type) -> list[Setting]:
    """The settings of a class of operators, in the order of its fields."""
    hints = get_type_hints(operator)
    return [_setting(declared, hints[declared.name]) for declared in fields(operator)]


def check_settings(operator: object, name: str) -> None:
    """Raises BadParameter, naming `name.setting`, for the first one that is not allowed."""
    for known in settings_of(type(operator)):
        value = getattr(operator, known.name)
        if not known.admits(value):
            raise BadParameter(
                f"{name}.{known.name}: {reprlib.repr(value)} is not {known.allowed}; "
                f"{known.name} is {known.meaning}"
            )


def _setting(declared: "Field[Any]", hint: Any) -> Setting:
    return Setting(
        name=declared.name,
        default=None if declared.default is MISSING else declared.default,
        meaning=declared.metadata.get(MEANING, ""),
        kinds=tuple(_kinds(hint)),
        within=declared.metadata.get(WITHIN),
    )


def _kinds(hint: Any) -> Iterator[Any]:
    """Of `float | None` and `Literal["a", "b"]` the types, and the words."""
    parts = get_args(hint)
    for part in parts:
        yield from _kinds(part)
    if not parts:
        yield hint


def _inside(value: float, interval: str | None) -> bool:
    if interval is None:
        return True
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = value > low or (value == low and interval[0] == "[")
    below = value < high or (value == high and interval[-1] == "]")
    return above and below
