"""Answers: each on a branch of its session's trunk, all decoded together, a token at a time.

An answer begins and ends when it will; none waits for another that is longer. Decoding is greedy.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from streamer.language.cache import side_by_side
from streamer.language.growing import Growing
from streamer.language.reading import Read, read_ahead, read_reduced, read_together
from streamer.language.session import Session, alike
from streamer.model import VideoModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question to one session, about what its trunk holds."""

    session: Session
    prompt: str
    max_new_tokens: int | None = None
    """The longest answer; as Decoding says if None."""


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
    longest: int
    """Tokens that it may have."""
    said: list[int] = field(default_factory=list)


class Decoding(Generic[K]):
    """Answers in the making. Nothing done here can reach a trunk."""

    def __init__(self, model: VideoModel, *, max_new_tokens: int) -> None:
        self.model = model
        self.network = model.model.model.language_model
        self.max_new_tokens = max_new_tokens
        self.rows: list[_Row[K]] = []
        self.contexts = Growing()
        """Of the rows, side by side; layers of one may differ in length."""
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
        order: list[K] = []
        begun: list[Read] = []
        for some in _together(asks):
            sessions, questions = [asks[key].session for key in some], [pieces[key] for key in some]
            order += some
            if sessions[0].stops:
                begun.append(read_reduced(sessions[0], questions[0]))
            elif sessions[0].unread:
                begun.append(read_ahead(sessions, questions))
            else:
                begun.append(read_together(sessions, questions))
        chosen = self._choose(torch.cat([some.last for some in begun]))
        self.contexts.join(side_by_side([some.layers for some in begun]))
        self._chosen += chosen
        self.rows += [
            _Row(
                key=key,
                at=pieces[key].next_base,
                input_tokens=asks[key].session.length + len(pieces[key]),
                longest=asks[key].max_new_tokens or self.max_new_tokens,
            )
            for key in order
        ]

    @torch.inference_mode()
    def step(self) -> dict[K, Answer]:
        """One token more for every answer; those that this ends."""
        ended: dict[K, Answer] = {}
        for row, token in zip(self.rows, self._chosen, strict=True):
            if token != self.model.layout.end_of_turn:
                row.said.append(token)
            if token == self.model.layout.end_of_turn or len(row.said) >= row.longest:
                ended[row.key] = self._answer(row)
        if ended:
            self._keep([n for n, row in enumerate(self.rows) if row.key not in ended])
        if self.rows:
            self._go_on()
        return ended

    def text(self, key: K) -> str:
        """What an answer in the making is so far."""
        [row] = [row for row in self.rows if row.key == key]
        # of a character that is several tokens, the first ones alone are read as this mark
        return self._text(row).rstrip("\ufffd").rstrip()

    def drop(self, keys: set[K]) -> None:
        """Gives up answers."""
        kept = [n for n, row in enumerate(self.rows) if row.key not in keys]
        if len(kept) < len(self.rows):
            self._keep(kept)

    def _keep(self, kept: list[int]) -> None:
        self.rows = [self.rows[n] for n in kept]
        self._chosen = [self._chosen[n] for n in kept]
        self.contexts.keep(kept)

    def _go_on(self) -> None:
        device = self.network.embed_tokens.weight.device
        ids = torch.tensor(self._chosen, device=device)
        positions = torch.tensor([row.at for row in self.rows], device=device)
        self._chosen = self._choose(self.contexts.step(self.network, ids, positions))
        for row in self.rows:
            row.at += 1

    def _choose(self, last: Tensor) -> list[int]:
        """The next tokens, after last hidden states (B, D)."""
        logits = self.model.model.lm_head(self.network.norm(last))
        chosen: list[int] = logits.argmax(-1).tolist()
        return chosen

    def _answer(self, row: _Row[K]) -> Answer:
        return Answer(
            text=self._text(row), output_tokens=len(row.said), input_tokens=row.input_tokens
        )

    def _text(self, row: _Row[K]) -> str:
        text = self.model.layout.tokenizer.decode(row.said, skip_special_tokens=True)
        return text.strip()


def _together(asks: Mapping[K, Ask]) -> Iterator[list[K]]:
    """Whose questions are read in one run, run after run.

    First those of sessions that have not read all yet, one of each; then the others of the same
    sessions, and of those that have.
    """
    first: dict[Session, K] = {}
    later: list[K] = []
    for key, ask in asks.items():
        if ask.session.stops:
            yield [key]
        elif ask.session.unread and ask.session not in first:
            first[ask.session] = key
        else:
            later.append(key)
    for some in alike(first):
        yield [first[session] for session in some]
    if later:
        yield later


def answer(model: VideoModel, asks: Sequence[Ask], *, max_new_tokens: int) -> list[Answer]:
    """Answers to all of them; the trunks stay as they are."""
    decoding: Decoding[int] = Decoding(model, max_new_tokens=max_new_tokens)
    decoding.begin(dict(enumerate(asks)))
    answers: dict[int, Answer] = {}
    while decoding.rows:
        answers |= decoding.step()
    return [answers[n] for n in range(len(asks))]
