"""What can go wrong in an operator.

OperatorError
├── BadParameter      a setting is not what the operator allows
├── MissingSignal     an operator needs a signal that is not given
├── ShapeError        a tensor's shape, dtype, device or content is not what the operator takes
└── UnknownOperator   no operator has this name
"""


class OperatorError(ValueError):
    """Base of every error an operator raises on purpose."""


class BadParameter(OperatorError):
    """A setting is unknown or outside what is allowed; the message names `operator.setting`."""


class MissingSignal(OperatorError):
    """An operator needs a signal that is not given; the message names it."""


class ShapeError(OperatorError):
    """A tensor's shape, dtype, device or content does not fit."""


class UnknownOperator(OperatorError):
    """No operator has this name; the message lists those that exist."""
