"""The caption session against a plain run of the same model, and against itself in pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from transformers import DynamicCache
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

from operators import RLT
from streamer.core.pipeline import Pipeline
from streamer.language.cache import LayerCache
from streamer.language.decoding import Answer, Ask, Decoding, answer
from streamer.language.layers import run_layers
from streamer.language.session import Session, read
from streamer.language.span import Span
from streamer.model import VideoModel
from streamer.wire import TokenChunk
from tests.unit.streamer.tiny import joined, moving_square, tiny_model
from tests.unit.streamer.tiny import tokens_of as encode

PROMPT = "Describe what happens."


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return tiny_model()


def tokens_of(model: VideoModel, frames: np.ndarray, threshold: float = 0.1) -> list[TokenChunk]:
    return encode(model, frames, pipeline=Pipeline(pixel=RLT(threshold=threshold)))


def session_of(model: VideoModel, chunks: list[TokenChunk]) -> Session:
    session = Session(model)
    for chunk in chunks:
        session.append(chunk)
    return session


def trunk(session: Session) -> list[torch.Tensor]:
    return [t for layer in session.layers for t in (layer.keys, layer.values)]


def test_dense_context_equals_transformers_own_run(model: VideoModel) -> None:
    """Ids, M-RoPE positions and features as the plain processor and model lay them out."""
    frames = moving_square(4)
    [chunk] = tokens_of(model, frames, threshold=-1.0)
    session = session_of(model, [chunk])
    layout = model.layout
    text = "<|im_start|>user\n" + "".join(
        f"<{t} seconds><|vision_start|>{'<|video_pad|>' * 20}<|vision_end|>" for t in (0.2, 1.2)
    )
    ids = torch.tensor([layout.tokenizer.encode(text, add_special_tokens=False)])
    positions, _ = model.model.model.get_rope_index(
        ids,
        mm_token_type_ids=(ids == layout.video).int() * 2,
        video_grid_thw=torch.tensor([[2, 8, 10]]),
    )
    from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

    assert chunk.deepstack is not None
    cache = DynamicCache(config=model.model.config.text_config)
    model.model.model(
        input_ids=ids,
        position_ids=positions,
        past_key_values=cache,
        mm_encoder_outputs={
            "video": BaseModelOutputWithDeepstackFeatures(
                pooler_output=[chunk.tokens.float()],
                deepstack_features=[[layer] for layer in chunk.deepstack.float()],
            )
        },
    )
    assert session.length == ids.shape[1]
    plain = [t for layer in cache.layers for t in (layer.keys, layer.values)]
    for ours, theirs in zip(trunk(session), plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_incremental_equals_one_shot(model: VideoModel) -> None:
    chunks = tokens_of(model, moving_square(16))
    assert [c.head.kind for c in chunks] == ["I", "P", "P", "P"]
    assert 0 < chunks[1].head.tokens < chunks[1].head.dense
    session = Session(model)
    for chunk in chunks:
        session.append(chunk)
        read([session])
    whole = joined(chunks)
    for ours, once in zip(trunk(session), trunk(session_of(model, [whole])), strict=True):
        torch.testing.assert_close(ours, once, atol=1e-4, rtol=1e-4)


def test_a_question_leaves_the_trunk_untouched(model: VideoModel) -> None:
    session = session_of(model, tokens_of(model, moving_square(8)))
    before = [t.clone() for t in trunk(session)]
    first = answer(model, [Ask(session=session, prompt=PROMPT)], max_new_tokens=12)
    answer(model, [Ask(session=session, prompt="Where is it?")], max_new_tokens=12)
    again = answer(model, [Ask(session=session, prompt=PROMPT)], max_new_tokens=12)
    assert first == again
    assert first[0].output_tokens > 0
    for now, then in zip(trunk(session), before, strict=True):
        assert torch.equal(now, then)


def test_three_sessions_batched_say_what_they_say_singly(model: VideoModel) -> None:
    clips = [moving_square(n) for n in (4, 12, 20)]
    sessions = [session_of(model, tokens_of(model, clip)) for clip in clips]
    asks = [
        Ask(session=session, prompt=prompt)
        for session, prompt in zip(
            sessions, (PROMPT, "What?", "Which way does the largest moving thing go?"), strict=True
        )
    ]
    assert len({session.length for session in sessions}) == 3
    together = answer(model, asks, max_new_tokens=16)
    singly = [answer(model, [ask], max_new_tokens=16)[0] for ask in asks]
    assert together == singly
    assert len({a.text for a in together}) > 1


def test_an_i_chunk_restarts_the_trunk(model: VideoModel) -> None:
    chunks = tokens_of(model, moving_square(8))
    session = session_of(model, chunks)
    session.append(chunks[0])
    fresh = session_of(model, chunks[:1])
    for again, first in zip(trunk(session), trunk(fresh), strict=True):
        assert torch.equal(again, first)


def test_a_chunk_in_which_nothing_changed_costs_only_its_times(model: VideoModel) -> None:
    still = np.repeat(moving_square(1), 8, axis=0)
    chunks = tokens_of(model, still)
    assert chunks[1].head.tokens == 0
    session = session_of(model, chunks[:1])
    before = session.length
    session.append(chunks[1])
    text = "<2.2 seconds><|vision_start|><|vision_end|><3.2 seconds><|vision_start|><|vision_end|>"
    assert session.length - before == len(
        model.layout.tokenizer.encode(text, add_special_tokens=False)
    )


@pytest.mark.parametrize("read_before", [0, 1, 3])
def test_what_nobody_asked_about_is_read_later_as_it_would_have_been_before(
    model: VideoModel, read_before: int
) -> None:
    # Given a trunk of which some chunks are read one by one, and the others together
    chunks = tokens_of(model, moving_square(16))
    session, at_once = Session(model), Session(model)
    for n, chunk in enumerate(chunks):
        session.append(chunk)
        if n < read_before:
            read([session])
        at_once.append(chunk)
        read([at_once])
    assert session.length == at_once.length
    # Then it is the same
    for late, early in zip(trunk(session), trunk(at_once), strict=True):
        torch.testing.assert_close(late, early, atol=1e-4, rtol=1e-4)
    assert session.length == session.layers[0].length


def test_an_i_chunk_drops_what_nobody_asked_about(
    model: VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two groups that nobody asked about
    chunks = tokens_of(model, moving_square(8))
    session = session_of(model, [*chunks, *chunks])
    lengths: list[int] = []
    run = network_run(lengths)
    monkeypatch.setattr("streamer.language.session.run_layers", run)
    # When somebody asks, then only the second is read, once
    assert session.layers[0].length == session.length
    assert lengths == [session.length]


def network_run(lengths: list[int]) -> Callable[..., tuple[Span, list[LayerCache]]]:
    """run_layers, which notes down how wide its spans are."""

    def run(
        network: Qwen3VLTextModel, span: Span, before: Sequence[LayerCache]
    ) -> tuple[Span, list[LayerCache]]:
        lengths.append(span.hidden.shape[1])
        return run_layers(network, span, before)

    return run


def test_trunks_read_side_by_side_equal_those_read_singly(
    model: VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given sessions that have read something, nothing or all, and took up I- and P-chunks since
    clip = tokens_of(model, moving_square(20))

    def sessions() -> list[Session]:
        found = []
        for read_first, taken in ((0, 1), (1, 2), (2, 5), (1, 3), (3, 3), (0, 4)):
            session = Session(model)
            for chunk in clip[:read_first]:
                session.append(chunk)
            read([session])
            for chunk in clip[read_first:taken]:
                session.append(chunk)
            found.append(session)
        return found

    together, singly = sessions(), sessions()
    widths: list[int] = []
    monkeypatch.setattr("streamer.language.session.run_layers", network_run(widths))
    # When they are read side by side, then in fewer runs
    read(together)
    assert len(widths) < 5
    for session in singly:
        read([session])
    # And each is as it is alone
    for ours, alone in zip(together, singly, strict=True):
        assert ours.length == alone.length == ours.layers[0].length
        for a, b in zip(trunk(ours), trunk(alone), strict=True):
            torch.testing.assert_close(a, b, atol=3e-5, rtol=1e-5)  # sums in another order
        biases = zip(ours.layers, alone.layers, strict=True)
        assert all(torch.equal(a.bias, b.bias) for a, b in biases)


def test_each_answer_has_its_own_longest_length(model: VideoModel) -> None:
    sessions = [session_of(model, tokens_of(model, moving_square(4))) for _ in range(3)]
    asks = [
        Ask(session=session, prompt=PROMPT, max_new_tokens=longest)
        for session, longest in zip(sessions, (3, None, 7), strict=True)
    ]
    answers = answer(model, asks, max_new_tokens=5)
    assert [said.output_tokens for said in answers] == [3, 5, 7]
    assert answers[2].text.startswith(answers[1].text)
    assert answers[1].text.startswith(answers[0].text)


def test_answers_that_begin_and_end_at_any_time_are_what_they_are_alone(model: VideoModel) -> None:
    """Their contexts' buffers are made anew when rows come and go, and when their room is used."""
    # Given answers longer than the room of a buffer, which begin one after another
    asks = {
        n: Ask(
            session=session_of(model, tokens_of(model, moving_square(4 * n))),
            prompt=PROMPT,
            max_new_tokens=longest,
        )
        for n, longest in ((1, 70), (2, 9), (3, 40), (4, 1))
    }
    decoding: Decoding[int] = Decoding(model, max_new_tokens=5)
    answers: dict[int, Answer] = {}
    for step in range(200):
        if step % 3 == 0 and step // 3 + 1 in asks:
            decoding.begin({step // 3 + 1: asks[step // 3 + 1]})
        so_far = {row.key: decoding.text(row.key) for row in decoding.rows}
        ended = decoding.step()
        assert all(ended[n].text.startswith(so_far[n]) for n in ended)
        answers |= ended
        if len(answers) == len(asks):
            break
    # Then each is what it is alone
    assert not decoding.rows
    assert answers == {n: answer(model, [one], max_new_tokens=5)[0] for n, one in asks.items()}
    assert answers[1].output_tokens == 70


def test_half_a_character_is_not_told(model: VideoModel) -> None:
    # Given an answer whose characters are several tokens each
    session = session_of(model, tokens_of(model, moving_square(4)))
    decoding: Decoding[int] = Decoding(model, max_new_tokens=5)
    decoding.begin({1: Ask(session=session, prompt=PROMPT)})
    [row] = decoding.rows
    text = "a 😀 grün"
    ids = model.layout.tokenizer.encode(text, add_special_tokens=False)
    # Then what it is so far is what it begins with, at any time
    told = []
    for n in range(len(ids) + 1):
        row.said = ids[:n]
        told.append(decoding.text(1))
    assert all(text.startswith(so_far) for so_far in told)
    assert told[-1] == text
    assert told.count("a") > 2


def test_questions_to_what_is_unread_are_answered_as_they_are_to_what_is_read(
    model: VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given sessions of unlike lengths, of which some have read a part, with one or two questions
    clip = tokens_of(model, moving_square(20))

    def asks() -> list[Ask]:
        found = []
        for n, (read_first, taken) in enumerate(((0, 1), (1, 2), (2, 5), (3, 3), (0, 4))):
            session = session_of(model, clip[:read_first])
            read([session])
            for chunk in clip[read_first:taken]:
                session.append(chunk)
            found += [
                Ask(session=session, prompt=prompt) for prompt in (PROMPT, "Why?")[: 1 + n % 2]
            ]
        return found

    def answers(asks: list[Ask]) -> list[Answer]:
        return answer(model, asks, max_new_tokens=12)

    before, unread = asks(), asks()
    read([ask.session for ask in before])
    runs: list[int] = []
    monkeypatch.setattr("streamer.language.session.run_layers", network_run(runs))
    # When they are answered, then as ever
    assert answers(unread) == answers(before)
    # And what was unread was read together with the first question, which is in no trunk
    assert 0 < len(runs) < 4
    for ours, theirs in zip(unread, before, strict=True):
        assert ours.session.layers[0].length == ours.session.length == theirs.session.length
        for a, b in zip(trunk(ours.session), trunk(theirs.session), strict=True):
            torch.testing.assert_close(a, b, atol=3e-5, rtol=1e-5)  # sums in another order


def test_what_is_unread_is_bounded(model: VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.language.session.UNREAD", 100)
    session = Session(model)
    for chunk in tokens_of(model, moving_square(20)):
        session.append(chunk)
        assert session.unread <= 100
    assert session.length > 100
