"""What is valid now: a token stream read back into one token per cell of the picture.

The decoder beside the encoder's planner: an I-chunk starts it anew, what a P-chunk brings takes the
place of what was there, and everything else stays valid. So the state after any chunk is the same
wherever the reading began, as long as it began at an I-chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamer.errors import WireError
from streamer.wire import ChunkHead, TokenChunk

NEVER = -1
"""`since_t` of a cell that has no token: an operator merged or dropped it in the I-chunk."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Valid:
    """One row per cell, the rows of the grid one after another; never changed, only replaced."""

    grid: tuple[int, int]
    tokens: Tensor
    """(H × W, D) bfloat16."""
    deepstack: Tensor | None
    """(L, H × W, D) bfloat16."""
    size: Tensor
    """(H × W,) float32."""
    since_t: Tensor
    """(H × W,) int32: the tubelet that brought it, counted since the job's start; or NEVER."""
    since_s: Tensor
    """(H × W,) float64: the media time of that tubelet."""

    @classmethod
    def nothing(cls, chunk: TokenChunk) -> Valid:
        """Before an I-chunk: cells without tokens, of the chunk's shapes."""
        cells = chunk.head.grid[0] * chunk.head.grid[1]
        stack = chunk.deepstack
        return cls(
            grid=chunk.head.grid,
            tokens=chunk.tokens.new_zeros(cells, chunk.tokens.shape[1]),
            deepstack=None if stack is None else stack.new_zeros(len(stack), cells, stack.shape[2]),
            size=chunk.size.new_ones(cells),
            since_t=torch.full((cells,), NEVER, dtype=torch.int32),
            since_s=torch.zeros(cells, dtype=torch.float64),
        )

    @property
    def covered(self) -> Tensor:
        """(H × W,) bool: which cells have a token."""
        return self.since_t != NEVER


class TokenState:
    """Follows one token stream, on the CPU."""

    def __init__(self) -> None:
        self.valid: Valid | None = None
        """None until an I-chunk has come."""
        self.last_t = 0
        """The last tubelet that was told, counted since the job's start."""
        self.at_s = 0.0
        """The end of what was told."""
        self.interrupted = False
        """Whether pictures were missing since the last I-chunk: what is valid may be old."""

    def apply(self, chunk: TokenChunk) -> None:
        """Goes on by one chunk, gap or skip; what comes before the first I-chunk says nothing.

        Raises WireError, and changes nothing, for a P-chunk that cannot follow what is there.
        """
        head = chunk.head
        if not head.has_body:
            self.interrupted = True
            self.at_s = head.t1
            return
        if head.kind == "I":
            before = Valid.nothing(chunk)
        elif self.valid is None:
            return
        else:
            before = self.valid
            _check_follows(chunk, before)
        self.valid = _replaced(before, chunk)
        self.interrupted = self.interrupted and head.kind == "P"
        self.last_t = head.tubelet_t + len(head.tubelet_s) - 1
        self.at_s = head.t1

    def lose(self) -> None:
        """What follows cannot be told from here on, until the next I-chunk: one was unreadable."""
        self.valid = None

    def head(self, *, job: str, number: int) -> TokenChunk:
        """All that is valid as an I-chunk of one tubelet at this moment.

        job, number: what it says of where it belongs. It has as many tokens as cells have one.
        """
        if self.valid is None:
            raise ValueError("nothing is valid before the first I-chunk")
        valid = self.valid
        cells = valid.covered.nonzero()[:, 0]
        rows = torch.div(cells, valid.grid[1], rounding_mode="floor")
        now = torch.full_like(cells, self.last_t)
        return TokenChunk(
            head=ChunkHead(
                job=job,
                number=number,
                kind="I",
                t0=self.at_s,
                t1=self.at_s,
                tubelet_s=(self.at_s,),
                tubelet_t=self.last_t,
                grid=valid.grid,
                tokens=len(cells),
                dense=valid.grid[0] * valid.grid[1],
                reason="what was valid here",
            ),
            tokens=valid.tokens[cells],
            position=torch.stack([now, rows, cells % valid.grid[1]], dim=1).int(),
            run=self.last_t - valid.since_t[cells] + 1,
            size=valid.size[cells],
            deepstack=None if valid.deepstack is None else valid.deepstack[:, cells],
        )


def _replaced(before: Valid, chunk: TokenChunk) -> Valid:
    """The last token of every cell that the chunk brings, the one before in all others."""
    head, columns = chunk.head, chunk.head.grid[1]
    cell = chunk.position[:, 1].long() * columns + chunk.position[:, 2].long()
    order = torch.arange(len(cell))
    latest = torch.full((head.grid[0] * columns,), -1).scatter_reduce(0, cell, order, "amax")
    cells = (latest >= 0).nonzero()[:, 0]
    rows = latest[cells]
    times = torch.tensor(head.tubelet_s, dtype=torch.float64)
    tubelet = chunk.position[rows, 0]
    stack = before.deepstack
    if stack is not None and chunk.deepstack is not None:
        stack = stack.index_copy(1, cells, chunk.deepstack[:, rows])
    return Valid(
        grid=head.grid,
        tokens=before.tokens.index_copy(0, cells, chunk.tokens[rows]),
        deepstack=stack,
        size=before.size.index_copy(0, cells, chunk.size[rows]),
        since_t=before.since_t.index_copy(0, cells, tubelet),
        since_s=before.since_s.index_copy(0, cells, times[(tubelet - head.tubelet_t).long()]),
    )


def _check_follows(chunk: TokenChunk, before: Valid) -> None:
    head = chunk.head
    where = f"job {head.job} chunk {head.number}"
    if head.grid != before.grid:
        raise WireError(
            f"{where}: head.grid: {head.grid}, its group's is {before.grid}; "
            "a picture of another size starts with an I-chunk"
        )
    found, known = _shape(chunk.tokens, chunk.deepstack), _shape(before.tokens, before.deepstack)
    if found != known:
        raise WireError(f"{where}: body: (width, layers) {found}, its group's is {known}")


def _shape(tokens: Tensor, deepstack: Tensor | None) -> tuple[int, int]:
    """Width of the tokens, layers of their DeepStack."""
    return tokens.shape[1], 0 if deepstack is None else len(deepstack)
