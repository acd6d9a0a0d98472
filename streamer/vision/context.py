"""What kept cells see of their tubelet's other cells: nothing, all of it, or what was stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from streamer.vision.attention import name_of

Context = Literal["kept", "cached", "dense"]
"""kept: the kept cells of a tubelet attend to each other. cached: and to the stored keys and values
of all others. dense: the tower is given every cell of a tubelet that keeps one, and only the kept
ones' tokens go on."""


def shown(keep: Tensor, context: Context) -> Tensor:
    """Which cells the tower is given, of those kept; (T, h, w) bool both."""
    if context != "dense":
        return keep
    return keep.flatten(1).any(1)[:, None, None].expand_as(keep)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Store:
    """Keys and values of a picture's cells in every layer, as each was when it was encoded last.

    Keys are rotated already: the places are the picture's, and stay. Of a whole picture it takes
    layers × 2 × cells × merge² × width × bytes of a number: in Qwen3-VL-8B (27 layers of width
    1152, merge 2, bfloat16) 0.5 MB per cell, so 1 GB where a picture of 1920 × 1080 is not shrunk.
    While the tower runs there are two.
    """

    cells: Tensor
    """(M,) int64, rising: row × width of the grid + column."""
    keys: tuple[Tensor, ...]
    """Per layer (M·merge², heads, channels)."""
    values: tuple[Tensor, ...]

    @classmethod
    def empty(cls, tower: Qwen3VLVisionModel) -> Store:
        """Before anything was encoded."""
        heads, width = tower.config.num_heads, tower.config.hidden_size
        nothing = torch.empty(0, heads, width // heads, dtype=tower.dtype, device=tower.device)
        none = (nothing,) * tower.config.depth
        return cls(
            cells=torch.empty(0, dtype=torch.int64, device=tower.device), keys=none, values=none
        )


class Recall:
    """One call of the tower, in which each tubelet also sees what was stored before it.

    In every layer, keys lie in a table: first those stored, then those of the call. Where a cell's
    last ones are at each tubelet is the same in all layers.
    """

    def __init__(
        self, store: Store, rows: Sequence[Tensor], *, cells: int, patches_per_cell: int
    ) -> None:
        """rows: of each tubelet with kept cells, those, as `Store.cells` has them; cells: of the
        grid."""
        self.store = store
        device = store.cells.device
        last = torch.full((cells,), -1, device=device)
        last[store.cells] = torch.arange(len(store.cells), device=device)
        filled, seen = len(store.cells), []
        for row in rows:
            last[row] = torch.arange(filled, filled + len(row), device=device)
            filled += len(row)
            seen.append(last[last >= 0])
        patch = torch.arange(patches_per_cell, device=device)
        self._seen = (torch.cat(seen)[:, None] * patches_per_cell + patch).flatten()
        self._cells = (last >= 0).nonzero()[:, 0]
        self._left = (last[self._cells, None] * patches_per_cell + patch).flatten()
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self.asking = [len(row) * patches_per_cell for row in rows]
        """Queries of each tubelet."""
        self.answering = [len(row) * patches_per_cell for row in seen]
        """Keys of each tubelet."""
        self.borders = pad(
            torch.tensor(self.answering, device=device).cumsum(0, dtype=torch.int32), (1, 0)
        )
        """Of the keys."""

    def next_layer(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """What the tubelets see in the layer after the one asked for last, tubelet by tubelet.

        key, value: the call's own, (P, heads, channels).
        """
        layer = len(self._keys)
        keys = torch.cat([self.store.keys[layer], key])
        values = torch.cat([self.store.values[layer], value])
        self._keys.append(keys.index_select(0, self._left))
        self._values.append(values.index_select(0, self._left))
        return keys.index_select(0, self._seen), values.index_select(0, self._seen)

    def left(self) -> Store:
        """What there is to see for the next call, once the tower has run."""
        assert len(self._keys) == len(self.store.keys)  # every layer was asked for
        return Store(cells=self._cells, keys=tuple(self._keys), values=tuple(self._values))


@contextmanager
def recalling(tower: Qwen3VLVisionModel) -> Iterator[None]:
    """Within it, a call of the tower takes a `recall`, and attends to what that has stored.

    In one kernel if the tower attends by `varlen`; else tubelet by tubelet.
    """
    before = tower.config._attn_implementation
    attend = _varlen if before == name_of("varlen") else _one_by_one
    # transformers hands an attention whose name has "flash" in it all segments at once
    name = f"flash_recall{attend.__name__}"
    ALL_ATTENTION_FUNCTIONS.register(name, _interface(attend))
    tower.config._attn_implementation = name
    try:
        yield
    finally:
        tower.config._attn_implementation = before


Attend = Callable[[Tensor, Tensor, Tensor, Tensor, Recall, float], Tensor]
"""q `[N, H, D]` and its borders, k and v `[M, H, D]`, which lie as the recall says, scale ->
`[N, H, D]`."""


def _varlen(
    q: Tensor, borders: Tensor, k: Tensor, v: Tensor, recall: Recall, scale: float
) -> Tensor:
    longest = max(recall.asking), max(recall.answering)
    mixed = varlen_attn(q, k, v, borders, recall.borders, *longest, scale=scale)
    assert isinstance(mixed, Tensor)  # a pair only where more is asked for
    return mixed


def _one_by_one(
    q: Tensor, borders: Tensor, k: Tensor, v: Tensor, recall: Recall, scale: float
) -> Tensor:
    lengths = recall.asking, recall.answering, recall.answering
    tubelets = [
        torch.split(x.transpose(0, 1)[None], n, dim=2)
        for x, n in zip((q, k, v), lengths, strict=True)
    ]
    mixed = [
        scaled_dot_product_attention(one, keys, values, scale=scale)[0]
        for one, keys, values in zip(*tubelets, strict=True)
    ]
    return torch.cat(mixed, dim=1).transpose(0, 1)


def _interface(attend: Attend) -> Callable[..., tuple[Tensor, None]]:
    def recalled(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        scaling: float,
        cu_seq_lens_q: Tensor,
        recall: Recall,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """As transformers wants it: `[1, H, N, D]` in, `[1, N, H, D]` out."""
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        seen = recall.next_layer(k, v)
        return attend(q, cu_seq_lens_q, *seen, recall, scaling)[None], None

    return recalled
