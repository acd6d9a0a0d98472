"""DTD: drop the tokens that are like the one before at their cell.

Paper: Yao et al. 2025, arXiv:2504.17343, section 3. Differs: the state is carried across chunks.
Shapes: [N, D] -> [M, D], M as the video has it. Cost: N D. Needs: nothing; with space pixel:
    change. Stage: token.
Raises: BadParameter if a setting is not allowed.

Each token is compared with the one before, dropped or not, so a slow drift goes unseen. What has
nothing before it stays, and so does what cannot be compared (NaN).
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


@dataclass(frozen=True)
class DTD(TemporalPlanner):
    threshold: float = setting(
        0.5,
        "the cosine above which a token is dropped; in space pixel the change below which it is, "
        "e.g. 0.1; if relative the fraction dropped of each tubelet",
        within="[-1, 1]",
    )
    space: Literal["feature", "pixel"] = setting(
        "feature", "what is compared: the tokens, or the pixels of their cells"
    )
    relative: bool = setting(False, "true to drop the most alike of each tubelet, so many of them")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"change"} if self.space == "pixel" else ())

    def plan(self, tokens: Tokens, signals: Signals, before: Before) -> Reduction:
        if self.space == "pixel":
            assert signals.change is not None  # among its needs
            likeness, limit = -signals.change, -self.threshold
        else:
            likeness, limit = similarity(tokens, before), self.threshold
        likeness = likeness.where(before.known, torch.nan)  # nothing to compare with
        alike = self._most_alike(likeness, tokens) if self.relative else likeness > limit
        return keep_where(~alike, tokens)

    def _most_alike(self, likeness: Tensor, tokens: Tokens) -> Tensor:
        count = (tokens.offsets.diff().double() * self.threshold).long()
        return (top_k(likeness, tokens.offsets, count).group >= 0) & ~likeness.isnan()
