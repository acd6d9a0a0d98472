"""The caption session against a plain run of the same model, and against itself in pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from operators import RLT
from streamer.core.pipeline import Pipeline
from streamer.language.decoding import Ask, answer
from streamer.language.session import Session
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
    session = session_of(model, chunks)
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
