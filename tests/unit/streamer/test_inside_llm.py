"""Operators inside the LLM, and sizes in its attention, against a plain run of the same layers.

The plain run has no cache, no batch and no gather: every token goes through every layer, and from
an operator's layer on a mask hides what it dropped.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

from operators import RLT, Planner, Reduction, Scorer, Signals, Stage, Tokens
from operators.base import NOTHING
from operators.fastv import FastV
from operators.tome import ToMe
from streamer.core.pipeline import Pipeline
from streamer.errors import ConfigError
from streamer.language.decoding import Answer, Ask, Decoding, answer
from streamer.language.layout import Piece, join
from streamer.language.reading import read_reduced, read_together
from streamer.language.session import Session
from streamer.model import VideoModel
from streamer.wire import TokenChunk
from tests.unit.streamer.tiny import joined, moving_square, tiny_model, tokens_of

PROMPT = "Describe what happens."
WORDS = 10


@dataclass(frozen=True)
class Pyramid(Scorer):
    """Half of what is left, before each of two layers."""

    stage: ClassVar[Stage] = "decoder"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"attention"})

    @property
    def layers(self) -> tuple[int, ...]:
        return (1, 2)

    def score(self, tokens: Tokens, signals: Signals) -> Tensor:
        assert signals.attention is not None
        return signals.attention

    def budget(self, lengths: Tensor) -> Tensor:
        return (lengths + 1) // 2


@dataclass(frozen=True)
class Pairs(Planner):
    """Neighbours become one, which counts as two."""

    stage: ClassVar[Stage] = "decoder"

    @property
    def layers(self) -> tuple[int, ...]:
        return (1,)

    @property
    def proportional(self) -> bool:
        return True

    def plan(self, tokens: Tokens, signals: Signals = NOTHING) -> Reduction:
        n = tokens.num_tokens
        return Reduction(
            group=torch.arange(n) // 2, weight=tokens.size, offsets=torch.tensor([0, (n + 1) // 2])
        )


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return tiny_model()


@pytest.fixture(scope="module")
def chunks(model: VideoModel) -> list[TokenChunk]:
    return encoded(model, 12)


def encoded(model: VideoModel, num_frames: int) -> list[TokenChunk]:
    """Tokens with sizes from 1 to 4, as after merging."""
    found = tokens_of(model, moving_square(num_frames), pipeline=Pipeline(pixel=RLT(threshold=0.1)))
    return [replace(c, size=1.0 + torch.arange(len(c.tokens)) % 4) for c in found]


def session_of(model: VideoModel, chunks: list[TokenChunk], *operators: Planner) -> Session:
    session = Session(model, Pipeline(decoder=operators))
    for chunk in chunks:
        session.append(chunk)
    return session


# The plain run


@dataclass(frozen=True)
class Stream:
    """The whole context as one sequence, and which of it are visual tokens."""

    piece: Piece
    visual: Tensor
    tokens: Tensor
    deepstack: Tensor
    size: Tensor
    asked: int
    """Length of trunk and question."""


def stream_of(model: VideoModel, chunks: list[TokenChunk], said: list[int]) -> Stream:
    layout = model.layout
    pieces = [layout.head()]
    for chunk in chunks:
        for j, seconds in enumerate(chunk.head.tubelet_s):
            cells = chunk.position[chunk.position[:, 0] == chunk.head.tubelet_t + j, 1:]
            extent, base = max(chunk.head.grid), pieces[-1].next_base
            pieces.append(layout.tubelet(seconds - chunks[0].head.t0, cells, extent, base))
    pieces.append(layout.question(PROMPT, pieces[-1].next_base))
    asked = sum(len(piece) for piece in pieces)
    base = pieces[-1].next_base
    if said:
        ids, at = torch.tensor(said), torch.arange(base, base + len(said))
        pieces.append(Piece(ids=ids, positions=at.expand(3, -1), next_base=base + len(said)))
    piece = join(pieces)
    return Stream(
        piece=piece,
        visual=(piece.ids == layout.video).nonzero()[:, 0],
        tokens=torch.cat([c.tokens for c in chunks]).float(),
        deepstack=torch.cat([c.deepstack for c in chunks if c.deepstack is not None], 1).float(),
        size=torch.cat([c.size for c in chunks]),
        asked=asked,
    )


@dataclass
class Plain:
    """Between two layers of the plain run."""

    hidden: Tensor
    """[L, D]."""
    bias: Tensor
    """[L] of every key."""
    visual: Tensor
    """Places of the visual tokens that are left."""
    deepstack: Tensor
    """[layers, N, D] of those."""
    size: Tensor
    attention: Tensor
    """[L] of the question's last token in the layer ahead."""


Change = Callable[[Plain], None]


def plain_logits(
    model: VideoModel, stream: Stream, changes: dict[int, Change], *, proportional: bool = False
) -> Tensor:
    """[L, V] of the whole context; `changes` happen before their layers."""
    network = model.model.model.language_model
    ids, length = stream.piece.ids, len(stream.piece)
    hidden = network.embed_tokens(ids)
    hidden[stream.visual] = stream.tokens
    bias = torch.zeros(length)
    if proportional:
        bias[stream.visual] = stream.size.log()
    now = Plain(hidden, bias, stream.visual, stream.deepstack, stream.size, torch.zeros(length))
    rotary = network.rotary_emb(hidden[None], stream.piece.positions[:, None])
    causal = torch.full((length, length), -1e30).triu(1)
    with eager(network):
        for n, layer in enumerate(network.layers):
            if n in changes:
                changes[n](now)
            mixed, weights = layer.self_attn(
                layer.input_layernorm(now.hidden)[None],
                position_embeddings=rotary,
                attention_mask=(causal + now.bias)[None, None],
            )
            now.attention = weights[0].mean(0)[stream.asked - 1]
            now.hidden = now.hidden + mixed[0]
            now.hidden = now.hidden + layer.mlp(layer.post_attention_layernorm(now.hidden))
            if n < len(now.deepstack):
                now.hidden[now.visual] += now.deepstack[n]
    logits: Tensor = model.model.lm_head(network.norm(now.hidden))
    return logits


@contextmanager
def eager(network: Qwen3VLTextModel) -> Iterator[None]:
    """Attention that tells its weights."""
    before = network.config._attn_implementation
    network.config._attn_implementation = "eager"
    try:
        yield
    finally:
        network.config._attn_implementation = before


def hide_but(keep: Callable[[int], int]) -> Change:
    """Hides all visual tokens but the `keep(n)` that are attended to most."""

    def change(now: Plain) -> None:
        best = now.attention[now.visual].topk(keep(len(now.visual))).indices.sort().values
        now.bias[now.visual] = -1e30
        now.bias[now.visual[best]] = 0.0
        now.visual, now.deepstack = now.visual[best], now.deepstack[:, best]

    return change


def merge_pairs(now: Plain) -> None:
    first, second = now.visual[0::2], now.visual[1::2]
    both = len(second)  # the last one may be alone
    a, b = now.size[0::2].clone(), now.size[1::2]
    share = b / (a[:both] + b)
    now.hidden[first[:both]] = torch.lerp(
        now.hidden[first[:both]], now.hidden[second], share[:, None]
    )
    stack = now.deepstack[:, 0::2].clone()
    stack[:, :both] = torch.lerp(stack[:, :both], now.deepstack[:, 1::2], share[:, None])
    a[:both] += b
    now.bias[second] = -1e30
    now.bias[first] = a.log()
    now.visual, now.deepstack, now.size = first, stack, a


CASES: dict[str, tuple[Planner, dict[int, Change]]] = {
    "fastv before layer 1": (FastV(layer=1), {1: hide_but(lambda n: round(n * 0.5))}),
    "fastv before layer 2": (FastV(layer=2, drop=0.8), {2: hide_but(lambda n: round(n * 0.2))}),
    "fastv that keeps nothing": (FastV(layer=1, drop=1.0), {1: hide_but(lambda n: 0)}),
    "pyramid": (Pyramid(), {n: hide_but(lambda n: (n + 1) // 2) for n in (1, 2)}),
    "pairs": (Pairs(), {1: merge_pairs}),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Planner, dict[int, Change]]:
    return CASES[request.param]


# Reduced contexts


@torch.inference_mode()
def test_an_answer_is_that_of_a_run_that_hides_what_was_dropped(
    model: VideoModel, chunks: list[TokenChunk], case: tuple[Planner, dict[int, Change]]
) -> None:
    """The question's last token, and every token generated after it."""
    operator, changes = case
    session = session_of(model, chunks, operator)
    piece = model.layout.question(PROMPT, session.base)
    read = read_reduced(session, piece)
    decoding: Decoding[int] = Decoding(model, max_new_tokens=WORDS)
    decoding.begin({0: Ask(session=session, prompt=PROMPT)})
    row = decoding.rows[0]
    while decoding.rows:
        decoding.step()
    stream = stream_of(model, chunks, row.said)
    logits = plain_logits(model, stream, changes, proportional=operator.proportional)
    network = model.model.model.language_model
    ours = model.model.lm_head(network.norm(read.last))[0]
    torch.testing.assert_close(ours, logits[stream.asked - 1], atol=1e-5, rtol=1e-5)
    assert logits[stream.asked - 1 : -1].argmax(1).tolist() == row.said
    assert len(row.said) == WORDS


@torch.inference_mode()
def test_dropping_changes_the_answer(model: VideoModel, chunks: list[TokenChunk]) -> None:
    """Or the other tests would see nothing."""
    piece = model.layout.question(PROMPT, session_of(model, chunks).base)
    last = [
        read_reduced(session_of(model, chunks, operator), piece).last
        for operator in (FastV(layer=1, drop=0.0), *(operator for operator, _ in CASES.values()))
    ]
    assert all((a - b).abs().max() > 1e-3 for n, a in enumerate(last) for b in last[:n])


@torch.inference_mode()
def test_dropping_nothing_is_the_plain_context(model: VideoModel, chunks: list[TokenChunk]) -> None:
    plain, session = session_of(model, chunks), session_of(model, chunks, FastV(drop=0.0))
    piece = model.layout.question(PROMPT, plain.base)
    together, reduced = read_together([plain], [piece]), read_reduced(session, piece)
    torch.testing.assert_close(reduced.last, together.last, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(reduced.layers, together.layers, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.values, theirs.values, atol=1e-5, rtol=1e-5)


def test_layers_from_the_operator_on_hold_what_is_left(
    model: VideoModel, chunks: list[TokenChunk]
) -> None:
    session = session_of(model, chunks, FastV(layer=1, drop=0.75))
    assert len(session.layers) == 1
    assert session.length == session_of(model, chunks).length
    decoding: Decoding[int] = Decoding(model, max_new_tokens=WORDS)
    decoding.begin({0: Ask(session=session, prompt=PROMPT)})
    visual = sum(chunk.head.tokens for chunk in chunks)
    whole = session.length + len(model.layout.question(PROMPT, session.base))
    lengths = [whole, *[whole - visual + round(visual * 0.25)] * 2]
    assert decoding.contexts.lengths == lengths
    decoding.step()
    assert decoding.contexts.lengths == [n + 1 for n in lengths]


def test_a_question_leaves_a_waiting_trunk_untouched(
    model: VideoModel, chunks: list[TokenChunk]
) -> None:
    session = session_of(model, chunks, Pyramid())
    before = [span.hidden.clone() for span in session.waiting]
    first = ask(model, session)
    assert ask(model, session, "Where is it?") != first
    assert ask(model, session) == first
    assert all(torch.equal(a.hidden, b) for a, b in zip(session.waiting, before, strict=True))


def test_a_waiting_trunk_in_pieces_equals_one_at_once(
    model: VideoModel, chunks: list[TokenChunk], case: tuple[Planner, dict[int, Change]]
) -> None:
    session = session_of(model, [], case[0])
    for n, chunk in enumerate(chunks, start=1):
        session.append(chunk)
        assert len(session.waiting) == n  # read at once
    at_once = session_of(model, [joined(chunks)], case[0])
    assert len(session.waiting) == len(chunks) > len(at_once.waiting) == 1
    assert ask(model, session) == ask(model, at_once)


def test_a_waiting_trunk_that_is_read_late_equals_one_that_is_read_at_once(
    model: VideoModel, chunks: list[TokenChunk], case: tuple[Planner, dict[int, Change]]
) -> None:
    late, at_once = session_of(model, chunks, case[0]), session_of(model, [joined(chunks)], case[0])
    assert len(late.waiting) == 1
    assert ask(model, late) == ask(model, at_once)


def test_an_i_chunk_restarts_a_waiting_trunk(model: VideoModel, chunks: list[TokenChunk]) -> None:
    session = session_of(model, [*chunks, chunks[0]], FastV(layer=1))
    assert ask(model, session) == ask(model, session_of(model, chunks[:1], FastV(layer=1)))


def test_contexts_of_all_kinds_are_answered_together_as_they_are_singly(model: VideoModel) -> None:
    sessions = [
        session_of(model, encoded(model, 4 * n), *operators)
        for n, operators in enumerate(
            ((), (FastV(layer=1),), (Pairs(),), (FastV(drop=0.9),), (), (Pyramid(),)), start=1
        )
    ]
    asks = [
        Ask(session=session, prompt=prompt)
        for session, prompt in zip(
            sessions, (PROMPT, "What?", "Which way?", PROMPT, "How many things?", "?"), strict=True
        )
    ]
    together = answer(model, asks, max_new_tokens=WORDS)
    assert together == [answer(model, [one], max_new_tokens=WORDS)[0] for one in asks]
    assert len({a.text for a in together}) == len(asks)


def test_a_trunk_without_visual_tokens_is_answered(model: VideoModel) -> None:
    """What is left of a group whose I-chunk was broken, when nothing changed since."""
    still = moving_square(1).repeat(8, axis=0)
    [_, unchanged] = tokens_of(model, still, pipeline=Pipeline(pixel=RLT(threshold=0.1)))
    assert unchanged.head.tokens == 0
    for operator, _ in CASES.values():
        assert ask(model, session_of(model, [unchanged], operator)).output_tokens


@pytest.mark.parametrize("layer", [3, 40])
def test_a_layer_that_the_model_does_not_have_is_refused(model: VideoModel, layer: int) -> None:
    with pytest.raises(ConfigError, match=f"fastv reduces before layer {layer}, this model's are"):
        session_of(model, [], FastV(layer=layer))


# Sizes


def sized(model: VideoModel, chunks: list[TokenChunk]) -> Session:
    session = Session(model, Pipeline(token=(ToMe(proportional=True),)))
    for chunk in chunks:
        session.append(chunk)
    return session


@torch.inference_mode()
def test_tokens_count_as_often_as_their_sizes_say(
    model: VideoModel, chunks: list[TokenChunk]
) -> None:
    session = sized(model, chunks)
    piece = model.layout.question(PROMPT, session.base)
    read = read_together([session], [piece])
    decoding: Decoding[int] = Decoding(model, max_new_tokens=WORDS)
    decoding.begin({0: Ask(session=session, prompt=PROMPT)})
    row = decoding.rows[0]
    while decoding.rows:
        decoding.step()
    stream = stream_of(model, chunks, row.said)
    logits = plain_logits(model, stream, {}, proportional=True)
    network = model.model.model.language_model
    ours = model.model.lm_head(network.norm(read.last))[0]
    torch.testing.assert_close(ours, logits[stream.asked - 1], atol=1e-5, rtol=1e-5)
    assert logits[stream.asked - 1 : -1].argmax(1).tolist() == row.said
    assert (logits - plain_logits(model, stream, {})).abs().max() > 0.01


def test_sizes_of_one_change_nothing_to_the_bit(
    model: VideoModel, chunks: list[TokenChunk]
) -> None:
    ones = [replace(chunk, size=torch.ones_like(chunk.size)) for chunk in chunks]
    for ours, plain in zip(sized(model, ones).layers, session_of(model, ones).layers, strict=True):
        assert torch.equal(ours.keys, plain.keys)
        assert torch.equal(ours.values, plain.values)


def test_sizes_count_only_where_an_operator_wants_them(
    model: VideoModel, chunks: list[TokenChunk]
) -> None:
    ones = [replace(chunk, size=torch.ones_like(chunk.size)) for chunk in chunks]
    for a, b in zip(session_of(model, chunks).layers, session_of(model, ones).layers, strict=True):
        assert torch.equal(a.keys, b.keys)


def ask(model: VideoModel, session: Session, prompt: str = PROMPT) -> Answer:
    return answer(model, [Ask(session=session, prompt=prompt)], max_new_tokens=WORDS)[0]


def test_answers_that_come_and_go_are_as_they_are_alone(model: VideoModel) -> None:
    """Sessions with and without operators inside join, end and are given up at any time."""
    kinds = [
        Pipeline(pixel=RLT()),
        Pipeline(pixel=RLT(), token=(ToMe(keep=0.4),)),
        Pipeline(pixel=RLT(), decoder=(FastV(layer=1, drop=0.9),)),
        Pipeline(token=(ToMe(keep=0.4),), decoder=(FastV(layer=2, drop=1.0),)),
        Pipeline(decoder=(Pyramid(),)),
    ]
    streams = [tokens_of(model, moving_square(16), pipeline=pipeline) for pipeline in kinds]
    rng = random.Random(0)
    decoding: Decoding[int] = Decoding(model, max_new_tokens=WORDS)
    alone: dict[int, Answer] = {}
    told: dict[int, Answer] = {}
    for moment in range(60):
        if moment < 40 and rng.random() < 0.4:
            asks = {}
            for _ in range(rng.randint(1, 3)):
                kind = rng.randrange(len(kinds))
                session = Session(model, kinds[kind])
                for chunk in streams[kind][: rng.randint(1, 4)]:
                    session.append(chunk)
                key = len(alone)
                asks[key] = Ask(session=session, prompt=rng.choice([PROMPT, "Which way?"]))
                [alone[key]] = answer(model, [asks[key]], max_new_tokens=WORDS)
            decoding.begin(asks)
        if decoding.rows and rng.random() < 0.1:
            decoding.drop({given_up := rng.choice(decoding.rows).key})
            told[given_up] = alone[given_up]
        if decoding.rows:
            told |= decoding.step()
    assert len(alone) > 20
    assert told == alone
