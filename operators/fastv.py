"""FastV: inside the LLM, keep the visual tokens that its last token attends to most.

Paper: Chen et al. 2024, arXiv:2403.06764, section 4. Differs: no random choice before layer 0.
Shapes: [N, D] -> [M, D], M = n (1 - drop) of each segment, halves to even. Cost: N log N.
    Needs: attention. Stage: decoder.
Raises: BadParameter if a setting is not allowed; a layer of 0 is not, since there is no attention
    before it to choose by.

The paper's text ranks by the attention of all later tokens; its code, and this, by that of the
last one alone. Text is never dropped, and what stays keeps its position: gaps remain gaps.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from operators.base import Scorer, Stage
from operators.settings import setting
from operators.types import Signals, Tokens


@dataclass(frozen=True)
class FastV(Scorer):
    stage: ClassVar[Stage] = "decoder"

    layer: int = setting(
        2,
        "the layer, from 0, before which tokens are dropped, by the layer ahead",
        within="[1, inf)",
    )
    drop: float = setting(0.5, "the fraction of tokens removed", within="[0, 1]")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"attention"})

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.layer,)

    def score(self, tokens: Tokens, signals: Signals) -> Tensor:
        assert signals.attention is not None  # among its needs
        return signals.attention

    def budget(self, lengths: Tensor) -> Tensor:
        return (lengths.double() * (1 - self.drop)).round().long()  # halves to even
