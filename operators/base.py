"""What an operator is: a frozen dataclass of settings with one method that decides."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal

from torch import Tensor

from operators.apply import apply
from operators.types import Reduction, Selection, StateT, Tokens

Stage = Literal["pixel", "token", "decoder"]


@dataclass(frozen=True)
class Operator(ABC):
    """Base of all operators. The fields of a subclass are its settings."""

    stage: ClassVar[Stage]


@dataclass(frozen=True)
class PixelOperator(Operator, Generic[StateT]):
    """Chooses cells before the vision encoder sees them."""

    stage: ClassVar[Stage] = "pixel"

    @abstractmethod
    def select(
        self, frames: Tensor, state: StateT | None, *, tubelet: int, cell: int
    ) -> Selection[StateT]:
        """Choose cells of `frames`, uint8 `[T, H, W, 3]`.

        `state` is what the chunk before returned; None starts afresh, with nothing dropped in the
        first tubelet.
        """


@dataclass(frozen=True)
class TokenOperator(Operator):
    """Reduces the encoder's tokens."""

    stage: ClassVar[Stage] = "token"

    @abstractmethod
    def plan(self, tokens: Tokens) -> Reduction:
        """Decide, without touching the tokens."""

    def reduce(self, tokens: Tokens) -> Tokens:
        """Decide and carry it out."""
        return apply(tokens, self.plan(tokens))
