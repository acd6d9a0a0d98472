"""Answers: each on a branch of its session's trunk, all decoded together, a token at a time.

An answer begins and ends when it will; none waits for another that is longer. Decoding is greedy.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from streamer.language.session import Session
from streamer.model import VideoModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question to one session, about what its trunk holds."""

    session: Session
    prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was generated, greedily."""

    text: str
    output_tokens: int
    input_tokens: int
    """The context it was read from: trunk and question."""


K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class _Row(Generic[K]):
    """One answer in the making."""

    key: K
    at: int
    """Position of its next token."""
    input_tokens: int
    said: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Branches:
    """Contexts side by side, padded on the left: keys and values per layer, and what is real."""

    layers: list[tuple[Tensor, Tensor]]
    """Per layer two (B, H, L, D)."""
    mask: Tensor
    """(B, L), 1 where there is a token."""

    def beside(self, other: _Branches) -> _Branches:
        """Both, as one batch."""
        length = max(self.mask.shape[1], other.mask.shape[1])
        a, b = self._padded(length), other._padded(length)
        pairs = zip(a.layers, b.layers, strict=True)
        return _Branches(
            [(torch.cat([k, k2]), torch.cat([v, v2])) for (k, v), (k2, v2) in pairs],
            torch.cat([a.mask, b.mask]),
        )

    def only(self, rows: list[int]) -> _Branches:
        """Some of them, without the padding that none of these needs."""
        mask = self.mask[rows]
        first = int(mask.any(0).int().argmax())
        return _Branches(
            [(k[rows, :, first:], v[rows, :, first:]) for k, v in self.layers], mask[:, first:]
        )

    def _padded(self, length: int) -> _Branches:
        pad = length - self.mask.shape[1]
        if not pad:
            return self
        return _Branches(
            [
                (functional.pad(k, (0, 0, pad, 0)), functional.pad(v, (0, 0, pad, 0)))
                for k, v in self.layers
            ],
            functional.pad(self.mask, (pad, 0)),
        )


class Decoding(Generic[K]):
    """Answers in the making. The trunks are copied: nothing done here can reach them."""

    def __init__(self, model: VideoModel, *, max_new_tokens: int) -> None:
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.rows: list[_Row[K]] = []
        self._branches: _Branches | None = None
        self._chosen: list[int] = []
        """The token chosen last for every row, not yet part of what it said."""

    @torch.inference_mode()
    def begin(self, asks: Mapping[K, Ask]) -> None:
        """Reads the questions, each at the end of its trunk."""
        if not asks:
            return
        sessions = [ask.session for ask in asks.values()]
        pieces = [self.model.layout.question(ask.prompt, ask.session.base) for ask in asks.values()]
        widest = max(len(piece) for piece in pieces)
        pads = [widest - len(piece) for piece in pieces]
        ids = torch.stack(
            [functional.pad(p.ids, (pad, 0)) for p, pad in zip(pieces, pads, strict=True)]
        )
        positions = torch.stack(
            [functional.pad(p.positions, (pad, 0)) for p, pad in zip(pieces, pads, strict=True)],
            dim=1,
        )
        fresh = torch.stack([(torch.arange(widest) >= pad).long() for pad in pads])
        branches, chosen = self._forward(ids, positions, fresh, _trunks(sessions))
        if self._branches is not None:
            branches = self._branches.beside(branches)
        self._branches = branches
        self._chosen += chosen
        self.rows += [
            _Row(key=key, at=piece.next_base, input_tokens=ask.session.length + len(piece))
            for (key, ask), piece in zip(asks.items(), pieces, strict=True)
        ]

    @torch.inference_mode()
    def step(self) -> dict[K, Answer]:
        """One token more for every answer; those that this ends."""
        ended: dict[K, Answer] = {}
        for row, token in zip(self.rows, self._chosen, strict=True):
            if token != self.model.layout.end_of_turn:
                row.said.append(token)
            if token == self.model.layout.end_of_turn or len(row.said) == self.max_new_tokens:
                ended[row.key] = self._answer(row)
        if ended:
            self._keep([n for n, row in enumerate(self.rows) if row.key not in ended])
        if self.rows:
            self._go_on()
        return ended

    def drop(self, keys: set[K]) -> None:
        """Gives up answers."""
        kept = [n for n, row in enumerate(self.rows) if row.key not in keys]
        if len(kept) < len(self.rows):
            self._keep(kept)

    def _keep(self, kept: list[int]) -> None:
        self.rows = [self.rows[n] for n in kept]
        self._chosen = [self._chosen[n] for n in kept]
        assert self._branches is not None
        self._branches = self._branches.only(kept) if kept else None

    def _go_on(self) -> None:
        assert self._branches is not None
        ids = torch.tensor(self._chosen)[:, None]
        positions = torch.tensor([row.at for row in self.rows]).expand(3, -1)[:, :, None]
        fresh = torch.ones_like(ids)
        self._branches, self._chosen = self._forward(ids, positions, fresh, self._branches)
        for row in self.rows:
            row.at += 1

    def _forward(
        self, ids: Tensor, positions: Tensor, fresh: Tensor, before: _Branches
    ) -> tuple[_Branches, list[int]]:
        """Reads (B, n) tokens after what came before; the contexts then, and the next tokens."""
        network = self.model.model
        device = network.device
        cache = DynamicCache(config=network.config.text_config)
        for layer, (keys, values) in enumerate(before.layers):
            cache.update(keys, values, layer)
        mask = torch.cat([before.mask, fresh], dim=1)
        hidden = network.model(
            input_ids=ids.to(device),
            position_ids=positions.to(device),
            attention_mask=mask.to(device),
            past_key_values=cache,
            use_cache=True,
        )[0]
        chosen: list[int] = network.lm_head(hidden[:, -1]).argmax(-1).tolist()
        return _Branches([(layer.keys, layer.values) for layer in cache.layers], mask), chosen

    def _answer(self, row: _Row[K]) -> Answer:
        text = self.model.layout.tokenizer.decode(row.said, skip_special_tokens=True)
        return Answer(text=text.strip(), output_tokens=len(row.said), input_tokens=row.input_tokens)


def answer(model: VideoModel, asks: Sequence[Ask], *, max_new_tokens: int) -> list[Answer]:
    """Answers to all of them; the trunks stay as they are."""
    decoding: Decoding[int] = Decoding(model, max_new_tokens=max_new_tokens)
    decoding.begin(dict(enumerate(asks)))
    answers: dict[int, Answer] = {}
    while decoding.rows:
        answers |= decoding.step()
    return [answers[n] for n in range(len(asks))]


def _trunks(sessions: Sequence[Session]) -> _Branches:
    """The sessions' trunks side by side."""
    longest = max(session.length for session in sessions)
    pads = [longest - session.length for session in sessions]
    layers = []
    for n in range(len(sessions[0].cache.layers)):
        trunks = [session.cache.layers[n] for session in sessions]
        keys, values = (
            torch.cat(
                [
                    functional.pad(tensor, (0, 0, pad, 0))
                    for tensor, pad in zip(tensors, pads, strict=True)
                ]
            )
            for tensors in ([t.keys for t in trunks], [t.values for t in trunks])
        )
        layers.append((keys, values))
    mask = torch.stack([(torch.arange(longest) >= pad).long() for pad in pads])
    return _Branches(layers, mask)
