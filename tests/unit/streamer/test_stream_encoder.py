"""One stream's frames to its tokens: which are kept, what the head says, what is carried on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from operators import RLT, TokenOperator, build
from streamer.actors.tokenize import encoder_for
from streamer.core.keyframes import KeyframePolicy
from streamer.core.pace import FULL, Thinning
from streamer.core.pipeline import Pipeline
from streamer.model import VideoModel
from streamer.types import FrameChunk, Gap
from streamer.vision.geometry import Grid
from streamer.vision.patches import patchify
from streamer.vision.stream_encoder import StreamEncoder
from streamer.vision.tower import encode
from streamer.wire import TokenChunk
from tests.unit.streamer.fakes import a_job, same_chunk
from tests.unit.streamer.tiny import chunks_of, moving_square, tiny_model

GRID = Grid(h=4, w=5)


def build_token(name: str, **settings: object) -> TokenOperator:
    operator = build(name, settings)
    assert isinstance(operator, TokenOperator)
    return operator


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return tiny_model()


def encoder(
    model: VideoModel,
    *token: TokenOperator,
    threshold: float | None = 0.1,
    policy: KeyframePolicy | None = None,
) -> StreamEncoder:
    pixel = None if threshold is None else RLT(threshold=threshold)
    names = (*(("rlt",) if pixel else ()), *("tome" for _ in token))
    return StreamEncoder(
        model.tower,
        model.geometry,
        job="cam",
        pipeline=Pipeline(pixel=pixel, token=token, names=names),
        policy=policy or KeyframePolicy(),
    )


def encoded(stream: StreamEncoder, chunks: list[FrameChunk]) -> list[TokenChunk]:
    return [stream.encode(chunk) for chunk in chunks]


@pytest.mark.parametrize("threshold", [-1.0, None])
def test_nothing_left_out_is_the_plain_tower(model: VideoModel, threshold: float | None) -> None:
    chunks = chunks_of(moving_square(8))
    for chunk, written in zip(
        chunks, encoded(encoder(model, threshold=threshold), chunks), strict=True
    ):
        keep = torch.ones(2, GRID.h, GRID.w, dtype=torch.bool)
        patches = patchify(torch.from_numpy(chunk.frames), keep, model.geometry)
        dense = encode(model.tower, patches, GRID, model.geometry)
        assert torch.equal(written.tokens, dense.tokens.bfloat16())
        assert written.deepstack is not None
        assert torch.equal(written.deepstack, dense.deepstack.bfloat16())
        assert written.head.tokens == written.head.dense == 40
        assert (written.run == 1).all()


def test_kept_tokens_are_those_of_the_cells_that_changed(model: VideoModel) -> None:
    chunks = chunks_of(moving_square(8))
    first, second = encoded(encoder(model), chunks)
    assert (first.head.kind, second.head.kind) == ("I", "P")
    assert 0 < second.head.tokens < second.head.dense
    # the square stays within rows 1 and 2, 16 pixels each
    assert set(second.position[:, 1].tolist()) == {1, 2}
    keep = torch.zeros(2, GRID.h, GRID.w, dtype=torch.bool)
    at = second.position.long()
    keep[at[:, 0] - 2, at[:, 1], at[:, 2]] = True
    patches = patchify(torch.from_numpy(chunks[1].frames), keep, model.geometry)
    alone = encode(model.tower, patches, GRID, model.geometry)
    assert torch.equal(second.tokens, alone.tokens.bfloat16())


def test_the_head_counts_what_was_done(model: VideoModel) -> None:
    """dense = T·h·w; patches_kept = kept cells × merge²; t goes on from chunk to chunk."""
    stream = encoder(model, build_token("tome", keep=0.5))
    plain = encoded(encoder(model), chunks_of(moving_square(10)))
    merged = encoded(stream, chunks_of(moving_square(10)))
    heads = [chunk.head for chunk in merged]
    assert [h.grid for h in heads] == [(4, 5)] * 3
    assert [h.dense for h in heads] == [40, 40, 20]
    assert [h.patches_kept for h in heads] == [4 * chunk.head.tokens for chunk in plain]
    assert [h.tubelet_t for h in heads] == [0, 2, 4]
    assert [h.tubelet_s for h in heads] == [(0.25, 1.25), (2.25, 3.25), (4.25,)]
    assert {h.operators for h in heads} == {("rlt", "tome")}
    assert [(h.job, h.number, h.t0, h.t1) for h in heads] == [
        *(("cam", 1, 0, 2), ("cam", 2, 2, 4), ("cam", 3, 4, 5))
    ]
    assert [h.reason for h in heads] == ["first", "", ""]
    assert all(h.tokenize_ms > 0 for h in heads)


def test_merging_halves_the_tokens_and_loses_no_cell(model: VideoModel) -> None:
    chunks = chunks_of(moving_square(8))
    plain = encoded(encoder(model), chunks)
    for whole, half in zip(
        plain, encoded(encoder(model, build_token("tome", keep=0.5)), chunks), strict=True
    ):
        first, count = whole.head.tubelet_t, len(whole.head.tubelet_s)
        for t in range(first, first + count):
            before, after = whole.position[:, 0] == t, half.position[:, 0] == t
            kept = int(before.sum())
            assert after.sum() == round(kept / 2)  # of each tubelet, so none moves into another
            assert half.size[after].sum() == kept
            low, high = (f(whole.position[before], dim=0).values for f in (torch.min, torch.max))
            assert ((half.position[after] >= low) & (half.position[after] <= high)).all()
        assert half.head.tokens == len(half.tokens) == len(half.size)
        assert half.head.dense == whole.head.dense
        assert half.deepstack is not None
        assert half.deepstack.shape == (2, half.head.tokens, 32)


def state_of(stream: StreamEncoder) -> tuple[object, ...]:
    assert stream.state is not None
    held = stream.state.operator
    return stream.state.group, stream.state.tubelets, held.front.tolist(), held.open_run.tolist()


@pytest.mark.parametrize(
    "token",
    [
        (),
        (build_token("tome", keep=0.5),),
        (build_token("evs", rate=0.4), build_token("prumerge")),
        (build_token("dtd", threshold=0.02, space="pixel"),),
    ],
    ids=["kept", "merged", "remembered", "change"],
)
@pytest.mark.parametrize("threshold", [0.1, -1.0, None])
def test_replay_leaves_the_state_that_encoding_left(
    model: VideoModel, threshold: float | None, token: tuple[TokenOperator, ...]
) -> None:
    # Given a stream that was encoded, and one that took the same chunks up from where it began
    chunks = chunks_of(moving_square(20))
    one = encoder(model, *token, threshold=threshold)
    two = encoder(model, *token, threshold=threshold)
    for chunk in chunks[:-1]:
        two.replay(chunk, tokens=one.encode(chunk).head.tokens)
        # Then they stand alike after each
        assert state_of(one) == state_of(two)
    # And go on alike
    assert same_chunk(one.encode(chunks[-1]), two.encode(chunks[-1]))


def test_what_operators_leave_counts_towards_a_groups_budget(model: VideoModel) -> None:
    """Merging to a quarter makes groups longer: the LLM is given no more."""
    chunks = chunks_of(moving_square(32))
    policy = KeyframePolicy(interval_s=1e6, budget=4.0, cut_share=1.0)
    quarter = build_token("tome", keep=0.25)
    dense = encoded(encoder(model, threshold=None, policy=policy), chunks)
    merged = encoded(encoder(model, quarter, threshold=None, policy=policy), chunks)
    assert [chunk.head.kind for chunk in dense] == ["I", "P"] * 4
    # Of 80 tokens a group has room for five chunks of ten, the last of which might have had forty.
    assert [chunk.head.kind for chunk in merged] == ["I", *"PPPP", "I", *"PP"]


def test_an_i_chunk_remembers_nothing_of_before(model: VideoModel) -> None:
    """What stays of it must not hang on a group that a reader need not have."""
    chunks = chunks_of(moving_square(12))
    policy = KeyframePolicy(interval_s=4.0)
    for operator in (build_token("evs", rate=0.8), build_token("dtd", threshold=0.5)):
        written = encoded(encoder(model, operator, threshold=None, policy=policy), chunks)
        assert [chunk.head.kind for chunk in written] == ["I", "P", "I"]
        for chunk in (written[0], written[2]):
            assert (chunk.position[:, 0] == chunk.head.tubelet_t).sum() == GRID.cells
        assert (written[1].position[:, 0] == 2).sum() < GRID.cells


def test_a_later_group_taken_up_alone_goes_on_alike(model: VideoModel) -> None:
    policy = KeyframePolicy(interval_s=4.0)
    chunks = chunks_of(moving_square(24))
    one, two = (encoder(model, policy=policy) for _ in range(2))
    written = encoded(one, chunks[:4])
    assert [c.head.kind for c in written] == ["I", "P", "I", "P"]
    for chunk, there in zip(chunks[2:4], written[2:4], strict=True):
        two.replay(chunk, tokens=there.head.tokens, first_tubelet=written[2].head.tubelet_t)
    assert state_of(one) == state_of(two)
    for chunk in chunks[4:]:
        assert same_chunk(one.encode(chunk), two.encode(chunk))


def test_a_gap_has_no_tokens_and_the_next_chunk_stands_alone(model: VideoModel) -> None:
    chunks = chunks_of(moving_square(12))
    stream = encoder(model)
    encoded(stream, chunks[:1])
    gap = stream.gap(Gap(number=2, t0=2.0, t1=4.0, reason="no pictures"))
    after = encoded(stream, [chunks[2]])[0]
    assert (gap.head.kind, gap.head.number, gap.head.reason) == ("gap", 2, "no pictures")
    assert (gap.head.t0, gap.head.t1, gap.head.tokens) == (2.0, 4.0, 0)
    assert len(gap.tokens) == 0
    assert (after.head.kind, after.head.reason, after.head.tubelet_t) == ("I", "gap", 2)
    assert (after.position[:, 0] == 2).sum() == GRID.cells


def test_a_gap_before_the_first_chunk_is_just_a_gap(model: VideoModel) -> None:
    stream = encoder(model)
    stream.gap(Gap(number=1, t0=0.0, t1=2.0, reason="no pictures"))
    [chunk] = encoded(stream, chunks_of(moving_square(4)))
    assert (chunk.head.kind, chunk.head.reason, chunk.head.tubelet_t) == ("I", "first", 0)


def test_the_chunk_after_a_scene_cut_stands_alone(model: VideoModel) -> None:
    frames = moving_square(12)
    frames[6:] = 255 - frames[6:]
    heads = [chunk.head for chunk in encoded(encoder(model), chunks_of(frames))]
    assert [(h.kind, h.reason) for h in heads] == [("I", "first"), ("P", ""), ("I", "cut")]


def test_nothing_that_changed_is_nothing_sent(model: VideoModel) -> None:
    still = np.repeat(moving_square(1), 8, axis=0)
    first, second = encoded(encoder(model), chunks_of(still))
    assert (first.head.tokens, second.head.tokens) == (20, 0)
    assert first.run.tolist() == [2] * 20
    assert second.tokens.shape == (0, 32)
    assert second.head.patches_kept == 0


@pytest.mark.parametrize("frames", [1, 3])
def test_an_odd_frame_is_a_tubelet_with_itself(model: VideoModel, frames: int) -> None:
    clip = moving_square(frames)
    padded = np.concatenate([clip, clip[-1:]])
    [odd] = encoded(encoder(model), chunks_of(clip))
    [even] = encoded(encoder(model), chunks_of(padded))
    assert odd.head.dense == 20 * (frames + 1) // 2
    assert torch.equal(odd.tokens, even.tokens)
    assert odd.head.tubelet_s[-1] == (frames - 1) / 2


def test_pictures_of_any_size_are_fitted_to_the_grid(model: VideoModel) -> None:
    large = np.repeat(np.repeat(moving_square(4), 3, axis=1), 3, axis=2)
    [chunk] = encoded(encoder(model), chunks_of(large))
    h, w = chunk.head.grid
    assert h * w <= model.geometry.max_cells
    assert (h, w) == (7, 8)
    assert (chunk.position[chunk.position[:, 0] == 0].max(0).values[1:] + 1).tolist() == [h, w]


def test_a_change_of_size_starts_a_group(model: VideoModel) -> None:
    stream = encoder(model)
    one, two = chunks_of(moving_square(4))[0], chunks_of(moving_square(8, size=(80, 48)))[1]
    written = encoded(stream, [one, two])
    assert [(c.head.kind, c.head.reason) for c in written] == [("I", "first"), ("I", "resize")]
    assert [c.head.grid for c in written] == [(4, 5), (5, 3)]


def test_a_jobs_settings_reach_its_encoder(model: VideoModel) -> None:
    job = a_job(
        pipeline=({"name": "rlt", "threshold": 0.3}, {"name": "tome", "keep": 0.25}),
        keyframes={"interval_s": 5.0, "budget": 3.0, "cut_share": 0.7},
    )
    stream = encoder_for(replace(model, context="dense"), job)
    assert stream.job == job.id
    assert stream.context == "dense"
    assert stream.pipeline.pixel == RLT(threshold=0.3)
    assert stream.pipeline.token == (build_token("tome", keep=0.25),)
    assert stream.policy == KeyframePolicy(interval_s=5.0, budget=3.0, cut_share=0.7)


# Thinned out


def test_a_higher_threshold_keeps_fewer_cells_and_carries_the_same(model: VideoModel) -> None:
    chunks = chunks_of(faint_and_bright(12))
    plain = encoded(encoder(model), chunks)
    stream = encoder(model)
    stream.encode(chunks[0])
    relaxed = stream.encode(chunks[1], Thinning(threshold=2.0))
    higher = encoder(model, threshold=0.2)
    higher.encode(chunks[0])
    assert same_chunk(relaxed, higher.encode(chunks[1]))
    assert 0 < relaxed.head.tokens < plain[1].head.tokens
    assert relaxed.head.changed < plain[1].head.changed
    # and the next one is as if nothing had been
    assert same_chunk(stream.encode(chunks[2], FULL), plain[2])


@pytest.mark.parametrize("threshold", [-1.0, 0.0, None])
def test_what_keeps_every_cell_goes_on_to(model: VideoModel, threshold: float | None) -> None:
    chunk = chunks_of(moving_square(4))[0]
    plain = encoder(model, threshold=threshold).encode(chunk)
    relaxed = encoder(model, threshold=threshold).encode(chunk, Thinning(threshold=2.0))
    assert same_chunk(plain, relaxed)


@pytest.mark.parametrize(("frames", "left"), [(1, 1), (2, 2), (3, 2), (4, 2), (6, 3), (8, 4)])
def test_half_the_frames_but_a_whole_tubelet(model: VideoModel, frames: int, left: int) -> None:
    [chunk] = chunks_of(moving_square(frames), per_chunk=frames)
    taken = range(0, frames, 2) if left < frames else range(frames)
    assert len(taken) == left
    fewer = replace(chunk, pts=chunk.pts[taken], frames=chunk.frames[taken])
    halved = encoder(model).encode(chunk, Thinning(every=2))
    assert same_chunk(halved, encoder(model).encode(fewer))
    assert (halved.head.t0, halved.head.t1) == (chunk.t0, chunk.t1)


def faint_and_bright(num_frames: int) -> np.ndarray:
    """A still picture, in one corner of which something faint comes and goes, in another bright."""
    frames = np.full((num_frames, 64, 80, 3), 90, dtype=np.uint8)
    for t in range(num_frames):
        frames[t, :16, :16] += 9 * (t // 2 % 2)
        frames[t, 48:, 64:] += 90 * (t // 2 % 2)
    return frames
