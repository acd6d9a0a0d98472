"""ToMe: merge the most similar pairs of tokens in each segment until a fraction remains.

Paper: Bolya et al. 2023, arXiv:2210.09461, section 3. Differs: applied once after the encoder.
Shapes: [N, D] -> [M, D], M = max(1, round(keep * n)) per segment. Cost: n^2 D / 4. Needs: nothing.
    Stage: token.
Raises: BadParameter if a setting is not allowed.

Similarity is the cosine of the features themselves, since keys are gone after the encoder. A
round can merge at most half of a segment, so a keep below 0.5 takes several. What stays keeps its
order, unlike in the official code, since positions travel with the tokens. Tokens with a NaN
never merge, so a segment that has them may end with more than M.
"""

from dataclasses import dataclass, replace

from kernels import bipartite_match
from operators.apply import apply
from operators.base import NOTHING, Planner
from operators.plan import compose, identity, merge_into
from operators.settings import setting
from operators.types import Reduction, Signals, Tokens


@dataclass(frozen=True)
class ToMe(Planner):
    keep: float = setting(0.5, "the fraction of tokens kept, e.g. 0.25", within="(0, 1]")
    proportional: bool = setting(True, "true where the LLM's attention is to grow with sizes")

    def plan(self, tokens: Tokens, signals: Signals = NOTHING) -> Reduction:
        lengths = tokens.offsets.diff()
        wanted = (lengths.double() * self.keep).round().long().clamp(min=1)
        reduction = identity(tokens.size, tokens.offsets)
        merged = replace(tokens, deepstack=None)
        while True:
            surplus = (merged.offsets.diff() - wanted).clamp(min=0)
            if not surplus.any():  # waits for the device: the number of rounds hangs on it
                return reduction
            match = bipartite_match(merged.data, merged.offsets, surplus)
            step = merge_into(match.target, merged.size, merged.offsets)
            before = merged.num_tokens
            merged, _ = apply(merged, NOTHING, step)
            if merged.num_tokens == before:  # what is left has NaN in it
                return reduction
            reduction = compose(reduction, step)
