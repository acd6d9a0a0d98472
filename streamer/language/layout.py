"""How visual tokens and text stand in the LLM's context, as Qwen3-VL was trained.

Per tubelet: `<t seconds>` as text, vision start, the kept cells at positions (base, base + h,
base + w), vision end; then base grows by max(H, W). The question and the answer follow as text.
A tubelet in which nothing changed has its time and an empty pair of vision marks: the model is told
that time passed, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class TextTokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...
    def convert_tokens_to_ids(self, tokens: str) -> int: ...
    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """A stretch of context: token ids, their M-RoPE positions, and where the next piece starts."""

    ids: Tensor
    """(L,) int64; visual tokens are video placeholders."""
    positions: Tensor
    """(3, L) int64."""
    next_base: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The marks of one model's prompt."""

    tokenizer: TextTokenizer
    vision_start: int
    vision_end: int
    video: int
    end_of_turn: int

    @classmethod
    def of(cls, tokenizer: TextTokenizer) -> Layout:
        return cls(
            tokenizer=tokenizer,
            vision_start=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
            vision_end=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
            video=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
            end_of_turn=tokenizer.convert_tokens_to_ids("<|im_end|>"),
        )

    def head(self) -> Piece:
        """What stands before the first tubelet of a group."""
        return self._text("<|im_start|>user\n", 0)

    def tubelet(self, seconds: float, cells: Tensor, extent: int, base: int) -> Piece:
        """One tubelet.

        seconds: since the group's start. cells: (N, 2) rows and columns of the kept cells.
        extent: max(H, W) of the grid in cells.
        """
        time = self._ids(f"<{seconds:.1f} seconds>")
        before = torch.arange(base, base + len(time) + 1).expand(3, -1)
        at = base + len(time) + 1
        seen = torch.cat([cells.new_zeros(len(cells), 1), cells], dim=1).T.long().cpu() + at
        after = torch.full((3, 1), at + extent)
        ids = [*time, self.vision_start, *[self.video] * len(cells), self.vision_end]
        return Piece(
            ids=torch.tensor(ids),
            positions=torch.cat([before, seen, after], dim=1),
            next_base=at + extent + 1,
        )

    def question(self, text: str, base: int) -> Piece:
        """The question, up to where the answer begins."""
        return self._text(f"{text}<|im_end|>\n<|im_start|>assistant\n", base)

    def answer(self, text: str, base: int) -> Piece:
        """An answer as it stands in training, with its end."""
        return self._text(f"{text}<|im_end|>", base)

    def token(self, token: int, base: int) -> Piece:
        """One token of an answer."""
        positions = torch.full((3, 1), base)
        return Piece(ids=torch.tensor([token]), positions=positions, next_base=base + 1)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _text(self, text: str, base: int) -> Piece:
        ids = torch.tensor(self._ids(text))
        positions = torch.arange(base, base + len(ids)).expand(3, -1)
        return Piece(ids=ids, positions=positions, next_base=base + len(ids))


def join(pieces: Sequence[Piece]) -> Piece:
    """Pieces one after another."""
    return Piece(
        ids=torch.cat([piece.ids for piece in pieces]),
        positions=torch.cat([piece.positions for piece in pieces], dim=1),
        next_base=pieces[-1].next_base,
    )
