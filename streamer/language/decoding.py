"""Answers: each on a branch of its session's trunk, all decoded together, a token at a time.

An answer begins and ends when it will; none waits for another that is longer. Decoding is greedy.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from streamer.language.cache import LayerCache, side_by_side
from streamer.language.layers import run_layers
from streamer.language.reading import read_reduced, read_together
from streamer.language.session import Session
from streamer.language.span import text_span
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


class Decoding(Generic[K]):
    """Answers in the making. Caches never change: nothing done here can reach a trunk."""

    def __init__(self, model: VideoModel, *, max_new_tokens: int) -> None:
        self.model = model
        self.network = model.model.model.language_model
        self.max_new_tokens = max_new_tokens
        self.rows: list[_Row[K]] = []
        self._layers: list[LayerCache] = []
        """The contexts of the rows, side by side; layers of one may differ in length."""
        self._chosen: list[int] = []
        """The token chosen last for every row, not yet part of what it said."""

    @torch.inference_mode()
    def begin(self, asks: Mapping[K, Ask]) -> None:
        """Reads the questions, each at the end of its trunk."""
        if not asks:
            return
        pieces = {
            key: self.model.layout.question(ask.prompt, ask.session.base)
            for key, ask in asks.items()
        }
        alone = [key for key, ask in asks.items() if ask.session.stops]
        together = [key for key in asks if key not in alone]
        read = [read_reduced(asks[key].session, pieces[key]) for key in alone]
        if together:
            sessions = [asks[key].session for key in together]
            read.append(read_together(sessions, [pieces[key] for key in together]))
        contexts = [self._layers] if self.rows else []
        contexts += [some.layers for some in read]
        self._layers = [side_by_side(caches) for caches in zip(*contexts, strict=True)]
        self._chosen += self._choose(torch.cat([some.last for some in read]))
        self.rows += [
            _Row(
                key=key,
                at=pieces[key].next_base,
                input_tokens=asks[key].session.length + len(pieces[key]),
            )
            for key in alone + together
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
        self._layers = [cache.only(kept) for cache in self._layers] if kept else []

    def _go_on(self) -> None:
        layout = self.model.layout
        pieces = [
            layout.token(token, row.at) for row, token in zip(self.rows, self._chosen, strict=True)
        ]
        span, self._layers = run_layers(self.network, text_span(self.network, pieces), self._layers)
        self._chosen = self._choose(span.hidden[:, -1])
        for row in self.rows:
            row.at += 1

    def _choose(self, last: Tensor) -> list[int]:
        """The next tokens, after last hidden states (B, D)."""
        logits = self.model.model.lm_head(self.network.norm(last))
        chosen: list[int] = logits.argmax(-1).tolist()
        return chosen

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
