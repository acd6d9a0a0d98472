"""Token reduction methods: each a frozen dataclass of settings, in one file of its own."""

from operators.apply import apply
from operators.base import (
    Operator,
    PixelOperator,
    Planner,
    Scorer,
    Stage,
    TemporalPlanner,
    TokenOperator,
)
from operators.errors import BadParameter, MissingSignal, OperatorError, ShapeError, UnknownOperator
from operators.history import Before, History
from operators.registry import OPERATORS, build, names
from operators.rlt import RLT, RLTState
from operators.settings import Setting, settings_of
from operators.types import SIGNALS, Mixing, Reduction, Result, Selection, Signals, Tokens

__all__ = [
    "OPERATORS",
    "RLT",
    "SIGNALS",
    "BadParameter",
    "Before",
    "History",
    "MissingSignal",
    "Mixing",
    "Operator",
    "OperatorError",
    "PixelOperator",
    "Planner",
    "RLTState",
    "Reduction",
    "Result",
    "Scorer",
    "Selection",
    "Setting",
    "ShapeError",
    "Signals",
    "Stage",
    "TemporalPlanner",
    "TokenOperator",
    "Tokens",
    "UnknownOperator",
    "apply",
    "build",
    "names",
    "settings_of",
]
