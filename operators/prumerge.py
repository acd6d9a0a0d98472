"""PruMerge: keep the tokens of outstanding attention, each merged with those of the nearest keys.

Paper: Shang et al. 2024, arXiv:2403.15388, section 3. Differs: the budget is each tubelet's own.
Shapes: [N, D] -> [M, D]; per segment as many as stand out (or ratio * n), the evenly spaced ones
    if plus, and one that stands for the rest. Cost: M n K. Needs: attention, keys. Stage: token.
Raises: BadParameter if a setting is not allowed.

As the official code has it, where the paper differs: a kept token is itself plus the sum of its
nearest 32, weighted by their attention as it is; neighbours may be kept tokens too; the last token
is the sum over all that are not kept, and sizes, runs and their mean position are in its slot.
Where nothing stands out the most attended token is kept (if plus, the fixed eighth); a NaN in the
attention makes it the fixed eighth. With nothing left over there is no last token.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import top_k
from operators.base import NOTHING, Planner
from operators.settings import setting
from operators.types import Mixing, Reduction, Signals, Tokens

FIXED = 1 / 8
"""The ratio of the fixed variant, and where attention decides nothing."""


@dataclass(frozen=True)
class PruMerge(Planner):
    plus: bool = setting(False, "true to keep evenly spaced tokens too (PruMerge+)")
    ratio: float | None = setting(
        None,
        "the fraction kept by attention, e.g. 0.125; null keeps those that stand out",
        within="(0, 1]",
    )
    neighbors: int = setting(32, "how many tokens are added to each kept one", within="[0, inf)")
    order: Literal["official", "raster"] = setting(
        "official", "how kept tokens follow each other: by falling attention, or as they came"
    )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"attention", "keys"})

    def plan(self, tokens: Tokens, signals: Signals = NOTHING) -> Reduction:
        assert signals.attention is not None  # among its needs
        assert signals.keys is not None
        group = torch.empty(tokens.num_tokens, dtype=torch.int64, device=tokens.data.device)
        mixings, offsets = [], [0]
        for begin, end in pairwise(tokens.offsets.tolist()):  # waits for the device, as counts do
            attention, keys = signals.attention[begin:end], signals.keys[begin:end]
            entries = self._entries(attention)
            first, last = offsets[-1], offsets[-1] + len(entries)
            group[begin:end] = last
            group[begin + entries] = torch.arange(first, last, device=group.device)
            rest = (group[begin:end] == last).nonzero()[:, 0]
            mixing = merging(attention.nan_to_num(), keys, entries, rest, self.neighbors)
            mixings.append(replace(mixing, slot=mixing.slot + first, source=mixing.source + begin))
            offsets.append(last + (len(rest) > 0))
        return Reduction(
            group=group,
            weight=tokens.size,
            offsets=torch.tensor(offsets, device=group.device),
            mixing=_joined(mixings) if mixings else None,
        )

    def _entries(self, attention: Tensor) -> Tensor:
        """int64 `[m]`: the tokens of a segment that are kept, in their order."""
        n = attention.shape[0]
        if not n:
            return torch.empty(0, dtype=torch.int64, device=attention.device)
        found = outliers(attention) if self.ratio is None else 0
        ratio = self.ratio or (FIXED if self.plus or attention.isnan().any() else 1 / n)
        entries = leaders(attention, found or max(1, int(n * ratio)))
        if self.plus:
            step = n // found if found else int(1 / ratio)
            spaced = spread(n, step, adaptive=found > 0).to(entries.device)
            entries = torch.cat([entries, spaced[~torch.isin(spaced, entries)]])
        return entries if self.order == "official" else entries.sort().values


def outliers(attention: Tensor) -> int:
    """How many values of attention, of any shape, stand out: lie above Q3 + 1.5 (Q3 - Q1).

    The official code counts in a whole batch at once. Where one is NaN none does.
    """
    values = attention.flatten()
    low, high = values.quantile(values.new_tensor([0.25, 0.75]))
    return int((values > high + 1.5 * (high - low)).sum())


def leaders(attention: Tensor, count: int) -> Tensor:
    """int64 `[count]`: places of the highest of attention `[n]`, falling; of equals the earlier."""
    known = torch.where(attention.isnan(), -torch.inf, attention)
    return known.sort(descending=True, stable=True).indices[:count]


def spread(n: int, step: int, *, adaptive: bool) -> Tensor:
    """int64: places among n that PruMerge+ adds where one token in `step` is kept.

    Adaptive, three in each step, from the first place on; fixed, one in the middle of each. Never
    the last place, as in the official code.
    """
    if adaptive:
        return torch.arange(0, max(0, n - 1), max(1, step // 3))
    return torch.arange(step // 2, max(step // 2, n - 1), step)


def merging(
    attention: Tensor, keys: Tensor, entries: Tensor, rest: Tensor, neighbors: int
) -> Mixing:
    """How a segment's outputs are made: slot e of `entries[e]`, and one after them of the `rest`.

    Args:
        attention: fp32 `[n]`.
        keys: fp32 `[n, K]`; near is what has a high cosine.
        entries: int64 `[m]`; one may come twice, and is then its own neighbour (as happens in the
            official PruMerge+ of a fixed ratio).
        rest: int64, the others. If empty there is no slot for them.
        neighbors: how many of all the others each entry takes in.
    """
    m = entries.shape[0]
    others = torch.cat([entries, rest])
    unit = F.normalize(keys.float(), dim=1)
    cosine = unit[entries] @ unit[others].T  # [m, n]
    cosine.nan_to_num_(nan=-2.0).fill_diagonal_(-torch.inf)  # what cannot be compared is far
    n = others.shape[0]
    borders = torch.arange(0, m * n + 1, max(1, n), device=keys.device)
    count = torch.full((m,), min(neighbors, n - 1), device=keys.device)
    near = top_k(cosine.flatten(), borders, count).group.view(m, n) >= 0
    slot, place = near.nonzero(as_tuple=True)
    source = others[place]
    own = torch.arange(m, device=keys.device)
    return Mixing(
        slot=torch.cat([own, slot, torch.full_like(rest, m)]),
        source=torch.cat([entries, source, rest]),
        weight=torch.cat(
            [torch.ones_like(own, dtype=torch.float32), attention[source], attention[rest]]
        ),
    )


def _joined(mixings: list[Mixing]) -> Mixing:
    return Mixing(
        slot=torch.cat([mixing.slot for mixing in mixings]),
        source=torch.cat([mixing.source for mixing in mixings]),
        weight=torch.cat([mixing.weight for mixing in mixings]),
    )
