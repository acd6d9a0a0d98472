"""The operators by name, and how one is built from a config entry."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches

from operators import methods
from operators.base import Operator, Stage
from operators.errors import BadParameter, UnknownOperator

OPERATORS: dict[str, type[Operator]] = {
    cls.__name__.lower(): cls for cls in vars(methods).values() if isinstance(cls, type)
}


def names(stage: Stage | None = None) -> list[str]:
    """Names of all operators, or of those of one stage, sorted."""
    return sorted(name for name, cls in OPERATORS.items() if stage in (None, cls.stage))


def build(name: str, params: Mapping[str, object]) -> Operator:
    """The operator `name` with these settings; what is not given has its default.

    Raises UnknownOperator or BadParameter, each saying what is allowed.
    """
    if name not in OPERATORS:
        raise UnknownOperator(
            f"operator {name!r} does not exist; there are: {', '.join(names())}."
            + _nearest(name, names())
        )
    factory: Callable[..., Operator] = OPERATORS[name]
    known = sorted(field.name for field in fields(OPERATORS[name]))
    for param in params:
        if param not in known:
            raise BadParameter(
                f"{name}.{param}: unknown setting; {name} takes: {', '.join(known)}."
                + _nearest(param, known)
            )
    return factory(**params)


def _nearest(word: str, known: list[str]) -> str:
    close = get_close_matches(str(word), known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
