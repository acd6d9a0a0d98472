"""EVS: keep the tokens that differ most from the one before at their cell, a fixed share of all.

Paper: Bagrov et al. 2025, arXiv:2510.14624. Differs: one budget for each chunk.
Shapes: [N, D] -> [M, D], M = max(tokens with nothing before, int(N (1 - rate))). Cost: N D.
    Needs: nothing; with space pixel: change. Stage: token.
Raises: BadParameter if a setting is not allowed.

The budget is the chunk's, not each tubelet's: a still tubelet may keep nothing, a busy one most
of its tokens. Features are compared in fp32. Differences are cut off at 0 and rounded to six
places: those of a still picture are noise, and so the earliest tokens stay. A token with a NaN
ranks before all that can be compared; what is kept keeps its position.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kernels import top_k
from operators.base import TemporalPlanner
from operators.history import Before, similarity
from operators.plan import keep_where
from operators.settings import setting
from operators.types import Reduction, Signals, Tokens

UNLIKE = 255.0
"""The difference of a token that cannot be compared: above all that can."""
NEW = 256.0
"""That of a token with nothing before it: above all others."""


@dataclass(frozen=True)
class EVS(TemporalPlanner):
    rate: float = setting(0.5, "the fraction of tokens removed, e.g. 0.75", within="[0, 1)")
    space: Literal["feature", "pixel"] = setting(
        "feature", "what is compared: the tokens, or the pixels of their cells"
    )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"change"} if self.space == "pixel" else ())

    def plan(self, tokens: Tokens, signals: Signals, before: Before) -> Reduction:
        if self.space == "pixel":
            assert signals.change is not None  # among its needs
            difference = signals.change
        else:
            difference = 1 - similarity(tokens, before)
        difference = difference.clamp(min=0).round(decimals=6)
        difference = difference.nan_to_num(nan=UNLIKE, posinf=UNLIKE)
        score = torch.where(before.known, difference, NEW)
        whole = tokens.offsets[[0, -1]]
        budget = retained(whole[1:], (~before.known).sum(), self.rate)
        return keep_where(top_k(score, whole, budget).group >= 0, tokens)


def retained(count: Tensor, fresh: Tensor, rate: Tensor | float) -> Tensor:
    """How many of `count` tokens stay, `fresh` of which have nothing before them; int64, alike in
    shape. The product is cut off in fp64: 2000 (1 - 0.9) makes 199."""
    return torch.maximum(fresh, (count.double() * (1 - rate)).long())
