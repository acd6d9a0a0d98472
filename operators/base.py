"""What an operator is: a frozen dataclass of settings with one method that decides.

Most methods override one thing: `PixelOperator.select` before the encoder; after it, or inside the
LLM, `Scorer.score` (keep the best), `Planner.plan` (merge, or any plan), or
`TemporalPlanner.plan` (compare with what was there before). Shared code carries the plan out.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal

from torch import Tensor

from operators.apply import apply
from operators.errors import MissingSignal, ShapeError
from operators.history import Before, History, look_back
from operators.plan import keep_top
from operators.settings import check_settings
from operators.types import Reduction, Result, Selection, Signals, StateT, Tokens

Stage = Literal["pixel", "token", "decoder"]
NOTHING = Signals()


@dataclass(frozen=True)
class Operator(ABC):
    """Base of all operators. The fields of a subclass are its settings."""

    stage: ClassVar[Stage]

    def __post_init__(self) -> None:
        check_settings(self, self.name)

    @property
    def name(self) -> str:
        """What the registry, YAML and error messages call it."""
        return type(self).__name__.lower()

    @property
    def needs(self) -> frozenset[str]:
        """The fields of Signals it cannot do without."""
        return frozenset()


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
    """Reduces tokens: those of the encoder (stage token) or, between two layers of the LLM, the
    hidden states of a context's visual tokens (stage decoder)."""

    stage: ClassVar[Stage] = "token"
    temporal: ClassVar[bool] = False
    """Whether it carries a state from chunk to chunk; an I-chunk starts without one."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Stage decoder: the layers of the LLM before which it reduces, from 0, rising."""
        return ()

    @property
    def proportional(self) -> bool:
        """Whether attention to what it leaves is to grow with sizes, by + log size."""
        return False

    @abstractmethod
    def reduce(
        self, tokens: Tokens, signals: Signals = NOTHING, state: object | None = None
    ) -> Result:
        """Decide and carry it out.

        Args:
            tokens: of one stream; its segments (tubelets) are reduced each by itself, except by
                operators that look back in time.
            signals: at least the fields in `needs`.
            state: what the chunk before returned; None starts afresh.

        Raises:
            MissingSignal: a field in `needs` is None.
            ShapeError: the state, or a signal, is not of this stream or these tokens.
        """

    def check(self, tokens: Tokens, signals: Signals) -> None:
        """Whether what it needs is there, and is of these tokens."""
        if missing := sorted(self.needs - signals.present):
            raise MissingSignal(
                f"{self.name} needs the signal {missing[0]!r}; given are: "
                f"{', '.join(sorted(signals.present)) or 'none'}."
            )
        for field in signals.present:
            if len(getattr(signals, field)) != tokens.num_tokens:
                raise ShapeError(f"{self.name}: {signals} are not those of {tokens}.")


@dataclass(frozen=True)
class Planner(TokenOperator):
    """Decides from the tokens at hand."""

    @abstractmethod
    def plan(self, tokens: Tokens, signals: Signals = NOTHING) -> Reduction:
        """Decide, without touching the tokens."""

    def reduce(
        self, tokens: Tokens, signals: Signals = NOTHING, state: object | None = None
    ) -> Result:
        self.check(tokens, signals)
        return _carried_out(tokens, signals, self.plan(tokens, signals), None)


@dataclass(frozen=True)
class Scorer(Planner):
    """Keeps the tokens of the highest score in each segment; among equals the earlier one."""

    @abstractmethod
    def score(self, tokens: Tokens, signals: Signals) -> Tensor:
        """fp32 `[N]`: higher is kept. NaN counts as -inf."""

    @abstractmethod
    def budget(self, lengths: Tensor) -> Tensor:
        """int64 `[S]`: how many tokens are left of segments of these lengths, int64 `[S]`."""

    def plan(self, tokens: Tokens, signals: Signals = NOTHING) -> Reduction:
        lengths = tokens.offsets.diff()
        return keep_top(self.score(tokens, signals), tokens, self.budget(lengths))


@dataclass(frozen=True)
class TemporalPlanner(TokenOperator):
    """Decides by comparing each token with the one before it at the same cell.

    That is the last token there was, in this chunk or an earlier one, whether it was kept or not;
    where cells are left out because they did not change, it is the token that is still valid. The
    state is a History: the last features of every cell.
    """

    temporal: ClassVar[bool] = True

    @abstractmethod
    def plan(self, tokens: Tokens, signals: Signals, before: Before) -> Reduction:
        """Decide, without touching the tokens."""

    def reduce(
        self, tokens: Tokens, signals: Signals = NOTHING, state: object | None = None
    ) -> Result:
        self.check(tokens, signals)
        if state is not None and not isinstance(state, History):
            raise ShapeError(f"the state is a {type(state).__name__}; give what reduce returned.")
        before, after = look_back(tokens, state)
        return _carried_out(tokens, signals, self.plan(tokens, signals, before), after)


def _carried_out(
    tokens: Tokens, signals: Signals, reduction: Reduction, state: object | None
) -> Result:
    reduced, left = apply(tokens, signals, reduction)
    return Result(tokens=reduced, signals=left, reduction=reduction, state=state)
