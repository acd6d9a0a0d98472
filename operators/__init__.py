"""Token reduction methods: each a frozen dataclass of settings, in one file of its own."""

from operators.apply import apply
from operators.base import Operator, PixelOperator, Stage, TokenOperator
from operators.errors import BadParameter, OperatorError, ShapeError, UnknownOperator
from operators.registry import OPERATORS, build, names
from operators.rlt import RLT, RLTState
from operators.tome import ToMe
from operators.types import Reduction, Selection, Tokens

__all__ = [
    "OPERATORS",
    "RLT",
    "BadParameter",
    "Operator",
    "OperatorError",
    "PixelOperator",
    "RLTState",
    "Reduction",
    "Selection",
    "ShapeError",
    "Stage",
    "ToMe",
    "TokenOperator",
    "Tokens",
    "UnknownOperator",
    "apply",
    "build",
    "names",
]
