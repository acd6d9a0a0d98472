"""What was at each cell before: the memory of operators that look back in time."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from operators.errors import ShapeError
from operators.types import Tokens

MIN_NORM = 1e-8  # as torch's cosine has it: similarity to a token of zeros is 0
BLOCK = 128
"""Rows compared at once on a CPU, so that what lies between stays in its cache."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class History:
    """The last token of every cell that ever had one; C cells."""

    cell: Tensor
    """int64 `[C]`: key of the cell, rising (row and column in one number)."""
    data: Tensor
    """`[C, D]`: its features."""

    def __repr__(self) -> str:
        return f"History({self.data.shape[0]} cells, {self.data.dtype})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Before:
    """For each of N tokens, the one before it at its cell."""

    rows: Tensor
    """`[C+N, D]`: features, of what was remembered and then of the tokens."""
    index: Tensor
    """int64 `[N]`: the row of the one before; of the token itself where there is none."""
    known: Tensor
    """bool `[N]`: there is one."""


def look_back(tokens: Tokens, history: History | None) -> tuple[Before, History]:
    """Finds each token's predecessor, the last one at its cell with a smaller t; and the history
    after these tokens.

    Tokens are in the order of time, as the encoder gives them. Of several at one cell in one
    tubelet (after merging) the last in order is the predecessor of what follows.
    """
    keys, rows = _joined(tokens, history)
    remembered = len(keys) - tokens.num_tokens
    moment = torch.cat([keys.new_full((remembered,), -1), tokens.pos[:, 0].long()])
    cell, order = keys.sort(stable=True)
    moment = moment[order]
    at = torch.arange(len(keys), device=cell.device)
    # Where this cell's present moment begins: the entry just before it is the predecessor.
    fresh = torch.ones_like(cell, dtype=torch.bool)
    fresh[1:] = (cell[1:] != cell[:-1]) | (moment[1:] != moment[:-1])
    begin = torch.where(fresh, at, 0).cummax(0).values
    there = (begin > 0) & (cell[(begin - 1).clamp(min=0)] == cell)
    found, known = torch.empty_like(order), torch.empty_like(there)
    found[order] = order[torch.where(there, begin - 1, at)]
    known[order] = there
    last = torch.ones_like(cell, dtype=torch.bool)
    last[:-1] = cell[1:] != cell[:-1]
    return (
        Before(rows=rows, index=found[remembered:], known=known[remembered:]),
        History(cell=cell[last], data=rows.index_select(0, order[last])),
    )


def similarity(tokens: Tokens, before: Before) -> Tensor:
    """fp32 `[N]`, at most 1: cosine of each token with the one before, 1 where there is none."""
    cosine = torch.ones(tokens.num_tokens, device=tokens.data.device)
    known = before.known.nonzero()[:, 0]
    block = BLOCK if known.device.type == "cpu" else max(1, len(known))
    for part in torch.split(known, block):
        here = tokens.data.index_select(0, part).float()
        there = before.rows.index_select(0, before.index[part]).float()
        norms = vector_norm(here, dim=1).clamp(MIN_NORM) * vector_norm(there, dim=1).clamp(MIN_NORM)
        cosine[part] = (here * there).sum(dim=1) / norms
    return cosine.clamp(max=1)


def _joined(tokens: Tokens, history: History | None) -> tuple[Tensor, Tensor]:
    """Keys and features of what is remembered, then of the tokens."""
    row, column = tokens.pos[:, 1].long(), tokens.pos[:, 2].long()
    keys = (row << 32) | column
    if history is None:
        return keys, tokens.data
    if history.data.shape[1] != tokens.data.shape[1] or history.data.dtype != tokens.data.dtype:
        raise ShapeError(
            f"{history} of width {history.data.shape[1]} is not of the stream of {tokens}; "
            "start afresh with state=None."
        )
    return torch.cat([history.cell, keys]), torch.cat([history.data, tokens.data])
