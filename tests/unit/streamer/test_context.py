"""What kept cells see of the others, against one masked attention over the whole group."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from operators import RLT, Result, Signals, TokenOperator, Tokens
from operators.base import NOTHING
from operators.prumerge import PruMerge
from streamer.core.keyframes import KeyframePolicy
from streamer.core.pipeline import Pipeline
from streamer.model import load_model
from streamer.types import FrameChunk, Gap
from streamer.vision import context as contexts
from streamer.vision.attention import set_attention
from streamer.vision.context import Context, Store, shown
from streamer.vision.geometry import Geometry, Grid
from streamer.vision.patches import patchify
from streamer.vision.stream_encoder import StreamEncoder
from streamer.vision.tower import Features, encode
from streamer.wire import TokenChunk
from tests.unit.streamer.fakes import same_chunk
from tests.unit.streamer.tiny import chunks_of, moving_square, tiny_model

GRID = Grid(h=4, w=5)
CONTEXTS: tuple[Context, ...] = ("kept", "cached", "dense")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Eye:
    """A tower and how it cuts pictures up."""

    tower: Qwen3VLVisionModel
    geometry: Geometry

    def pictures(self, tubelets: int) -> Tensor:
        """A square that crosses a grid of 4 × 5 cells."""
        cell = self.geometry.cell_px
        size = (GRID.h * cell, GRID.w * cell)
        return torch.from_numpy(moving_square(2 * tubelets, size=size))

    def encode(self, frames: Tensor, keep: Tensor, **given: Any) -> Features:
        patches = patchify(frames, keep, self.geometry, dtype=self.tower.dtype)
        return encode(self.tower, patches, GRID, self.geometry, **given)


def an_eye(*, merge: int = 2, hidden_size: int = 24) -> Eye:
    model = tiny_model()
    settings = {"spatial_merge_size": merge, "hidden_size": hidden_size}
    config = Qwen3VLVisionConfig(**{**model.tower.config.to_dict(), **settings})
    torch.manual_seed(0)
    tower = Qwen3VLVisionModel._from_config(config, attn_implementation="sdpa")
    tower = tower.eval().requires_grad_(False)
    for parameter in tower.parameters():  # the default init is so small that nothing would show
        parameter.mul_(3.0)
    return Eye(tower=tower, geometry=replace(model.geometry, merge_size=merge))


@pytest.fixture(scope="module")
def eye() -> Eye:
    return an_eye()


def some_kept(tubelets: int, *, first: float = 1.0) -> Tensor:
    """A third of the cells at random, none in one tubelet, all in another; and of the first one a
    share."""
    dice = torch.rand(tubelets, GRID.h, GRID.w, generator=torch.Generator().manual_seed(3))
    keep = dice < 0.3
    keep[0] = dice[0] < first
    keep[3], keep[5] = False, True
    return keep


def chunk_by_chunk(eye: Eye, frames: Tensor, keep: Tensor, per_chunk: int) -> Features:
    store = Store.empty(eye.tower)
    found = []
    for start in range(0, len(keep), per_chunk):
        part = keep[start : start + per_chunk]
        seen = frames[2 * start : 2 * (start + per_chunk)]
        found.append(eye.encode(seen, part, store=store))
        assert found[-1].store is not None
        store = found[-1].store
    return Features(
        tokens=torch.cat([f.tokens for f in found]),
        deepstack=torch.cat([f.deepstack for f in found], dim=1),
        store=store,
    )


def last_kept(keep: Tensor) -> Tensor:
    """(N, N) bool: whether one kept cell of a group sees another, by definition."""
    at = keep.nonzero().tolist()
    return torch.tensor(
        [
            [u == max((s for s in range(t + 1) if keep[s, y, x]), default=-1) for u, y, x in at]
            for t, _, _ in at
        ]
    )


@contextmanager
def masked(tower: Qwen3VLVisionModel, sees: Tensor) -> Iterator[None]:
    """All tokens of a call in one attention, whatever tubelet they are of."""

    def attend(
        _: Any, q: Tensor, k: Tensor, v: Tensor, *__: Any, **___: Any
    ) -> tuple[Tensor, None]:
        return scaled_dot_product_attention(q, k, v, attn_mask=sees).transpose(1, 2), None

    ALL_ATTENTION_FUNCTIONS.register("flash_masked_in_a_test", attend)
    tower.config._attn_implementation = "flash_masked_in_a_test"
    try:
        yield
    finally:
        tower.config._attn_implementation = "sdpa"


@pytest.mark.parametrize("merge", [1, 2])
@pytest.mark.parametrize("per_chunk", [1, 2, 8])
@pytest.mark.parametrize("first", [1.0, 0.5], ids=["whole", "half"])
def test_chunk_by_chunk_is_one_masked_attention(merge: int, per_chunk: int, first: float) -> None:
    eye, keep = an_eye(merge=merge), some_kept(8, first=first)
    frames = eye.pictures(8)
    sees = last_kept(keep)
    for dim in (0, 1):
        sees = sees.repeat_interleave(merge**2, dim=dim)
    with masked(eye.tower, sees):
        expected = eye.encode(frames, keep)
    actual = chunk_by_chunk(eye, frames, keep, per_chunk)
    # three layers of fp32 sums in another order, up to 20
    torch.testing.assert_close(actual.tokens, expected.tokens, rtol=0, atol=1e-4)
    torch.testing.assert_close(actual.deepstack, expected.deepstack, rtol=0, atol=1e-4)
    # and it is not the same as seeing one's own tubelet alone
    alone = eye.encode(frames, keep)
    assert (alone.tokens - expected.tokens).abs().max() > 0.1


def test_what_is_stored_is_as_it_was_encoded_last(eye: Eye) -> None:
    keep, frames = some_kept(8), eye.pictures(8)
    store = chunk_by_chunk(eye, frames[:10], keep[:5], 2).store
    assert store is not None
    assert store.cells.tolist() == list(range(20))
    again = eye.encode(frames[8:10], keep[3:4], store=store)  # the tubelet that keeps none
    assert again.store is store
    assert again.tokens.shape == (0, 32)
    whole = eye.encode(frames[10:12], keep[5:6], store=store).store
    fresh = eye.encode(frames[10:12], keep[5:6], store=Store.empty(eye.tower)).store
    assert whole is not None
    assert fresh is not None
    for one, other in zip((*whole.keys, *whole.values), (*fresh.keys, *fresh.values), strict=True):
        assert torch.equal(one, other)
    taken = sum(x.nbytes for x in (*whole.keys, *whole.values))
    assert taken == 3 * 2 * 20 * 4 * 24 * 4  # layers, both, cells, patches, width, bytes


def test_a_tower_is_left_as_it_was(eye: Eye) -> None:
    keep, frames = some_kept(6), eye.pictures(6)
    before = eye.encode(frames, keep)
    store = chunk_by_chunk(eye, frames, keep, 2).store
    assert store is not None
    with pytest.raises(IndexError):  # it fails in its second layer
        eye.encode(frames, keep, store=replace(store, keys=store.keys[:1]))
    assert eye.tower.config._attn_implementation == "sdpa"
    assert torch.equal(eye.encode(frames, keep).tokens, before.tokens)


def plain_varlen(
    q: Tensor, k: Tensor, v: Tensor, at: Tensor, of: Tensor, *longest: int, scale: float
) -> Tensor:
    """What torch promises of varlen_attn, which runs on a GPU only."""
    assert longest == (int(at.diff().max()), int(of.diff().max()))
    parts = zip(
        torch.split(q.transpose(0, 1), at.diff().tolist(), dim=1),
        torch.split(k.transpose(0, 1), of.diff().tolist(), dim=1),
        torch.split(v.transpose(0, 1), of.diff().tolist(), dim=1),
        strict=True,
    )
    mixed = [scaled_dot_product_attention(a, b, c, scale=scale) for a, b, c in parts]
    return torch.cat(mixed, dim=1).transpose(0, 1)


def test_one_kernel_for_all_tubelets_sees_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    eye, keep = an_eye(), some_kept(8)
    frames = eye.pictures(8)
    expected = chunk_by_chunk(eye, frames, keep, 2)
    called = []

    def noted(*given: Any, **named: Any) -> Tensor:
        called.append(named)
        return plain_varlen(*given, **named)

    monkeypatch.setattr(contexts, "varlen_attn", noted)
    set_attention(eye.tower, "varlen")
    actual = chunk_by_chunk(eye, frames, keep, 2)
    assert len(called) == 3 * 4  # layers and chunks
    torch.testing.assert_close(actual.tokens, expected.tokens, rtol=0, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("way", ["sdpa", "varlen"])
def test_a_gpu_sees_the_same(way: Any) -> None:
    if not torch.cuda.is_available():
        if "gpu" in os.environ.get("REQUIRE", "").split(","):
            pytest.fail("REQUIRE=gpu, and there is no CUDA device")
        pytest.skip("no CUDA device")
    eye, keep = an_eye(hidden_size=128), some_kept(8)
    frames = eye.pictures(8)
    expected = chunk_by_chunk(eye, frames, keep, 2)
    dtype = torch.bfloat16 if way == "varlen" else torch.float32
    there = Eye(tower=eye.tower.to("cuda", dtype), geometry=eye.geometry)
    set_attention(there.tower, way)
    frames, keep = frames.cuda(), keep.cuda()
    actual = chunk_by_chunk(there, frames, keep, 2)
    # in bf16, torch's own attention on a CPU ends up to 0.52 from fp32
    atol = 1.0 if way == "varlen" else 1e-3
    torch.testing.assert_close(actual.tokens.float().cpu(), expected.tokens, rtol=0, atol=atol)
    # and all cells at once are as without a store, bit for bit
    everything = torch.ones_like(keep)
    plain = there.encode(frames, everything)
    assert torch.equal(chunk_by_chunk(there, frames, everything, 8).tokens, plain.tokens)


# In a stream


def test_a_model_is_loaded_with_its_context() -> None:
    assert load_model("embedded", device="cpu", context="cached").context == "cached"
    assert load_model("embedded", device="cpu").context == "kept"


def encoder(
    eye: Eye,
    context: Context,
    *token: TokenOperator,
    threshold: float | None = 0.1,
    policy: KeyframePolicy | None = None,
) -> StreamEncoder:
    return StreamEncoder(
        eye.tower,
        eye.geometry,
        job="cam",
        pipeline=Pipeline(
            pixel=None if threshold is None else RLT(threshold=threshold), token=token
        ),
        policy=policy or KeyframePolicy(),
        context=context,
    )


def encoded(stream: StreamEncoder, chunks: list[FrameChunk]) -> list[TokenChunk]:
    return [stream.encode(chunk) for chunk in chunks]


def kept_of(chunk: TokenChunk) -> Tensor:
    keep = torch.zeros(len(chunk.head.tubelet_s), GRID.h, GRID.w, dtype=torch.bool)
    at = chunk.position.long()
    keep[at[:, 0] - chunk.head.tubelet_t, at[:, 1], at[:, 2]] = True
    return keep


@pytest.mark.parametrize("context", ["cached", "dense"])
@pytest.mark.parametrize("threshold", [-1.0, None])
def test_where_all_is_kept_context_changes_nothing(
    eye: Eye, context: Context, threshold: float | None
) -> None:
    chunks = chunks_of(moving_square(12))
    kept = encoded(encoder(eye, "kept", threshold=threshold), chunks)
    other = encoded(encoder(eye, context, threshold=threshold), chunks)
    for one, two in zip(kept, other, strict=True):
        assert one.head.tokens == 40
        assert same_chunk(one, two)


def test_dense_sends_the_kept_tokens_of_whole_pictures(eye: Eye) -> None:
    chunks = chunks_of(moving_square(12))
    kept = encoded(encoder(eye, "kept"), chunks)
    for chunk, thin, written in zip(
        chunks, kept, encoded(encoder(eye, "dense"), chunks), strict=True
    ):
        keep = kept_of(thin)
        frames = torch.from_numpy(chunk.frames)
        whole = eye.encode(frames, torch.ones_like(keep))
        assert torch.equal(written.tokens, whole.tokens[keep.flatten()].bfloat16())
        assert written.deepstack is not None
        assert torch.equal(written.deepstack, whole.deepstack[:, keep.flatten()].bfloat16())
        assert torch.equal(written.position, thin.position)
        assert written.head.patches_kept == keep.numel() * 4
    assert kept[1].head.tokens < kept[1].head.dense


def test_the_tower_is_shown_no_tubelet_that_keeps_nothing() -> None:
    keep = torch.zeros(3, 2, 2, dtype=torch.bool)
    keep[1, 0, 1] = True
    assert shown(keep, "dense").flatten(1).sum(1).tolist() == [0, 4, 0]
    assert torch.equal(shown(keep, "kept"), keep)
    assert torch.equal(shown(keep, "cached"), keep)


def test_cached_goes_on_from_what_the_chunk_before_left(eye: Eye) -> None:
    chunks = chunks_of(moving_square(12))
    stream, store = encoder(eye, "cached"), Store.empty(eye.tower)
    for chunk in chunks:
        written = stream.encode(chunk)
        there = eye.encode(torch.from_numpy(chunk.frames), kept_of(written), store=store)
        assert torch.equal(written.tokens, there.tokens.bfloat16())
        assert there.store is not None
        store = there.store
    assert written.head.kind == "P"
    assert 0 < written.head.tokens < written.head.dense
    assert written.head.patches_kept == 4 * written.head.tokens


def test_an_i_chunk_sees_nothing_of_before(eye: Eye) -> None:
    policy = KeyframePolicy(interval_s=4.0)
    chunks = chunks_of(moving_square(16))
    stream = encoder(eye, "cached", policy=policy)
    written = encoded(stream, chunks[:3])
    stream.gap(Gap(number=4, t0=6.0, t1=8.0, reason="no pictures"))
    written += encoded(stream, chunks[3:])
    assert [chunk.head.kind for chunk in written] == ["I", "P", "I", "I"]
    for chunk, group in zip((chunks[2], chunks[3]), written[2:], strict=True):
        alone = encoder(eye, "cached", policy=policy).encode(chunk)
        assert torch.equal(group.tokens, alone.tokens)


def test_a_picture_of_another_size_starts_afresh(eye: Eye) -> None:
    one, two = chunks_of(moving_square(4))[0], chunks_of(moving_square(8, size=(80, 48)))[1]
    stream = encoder(eye, "cached")
    assert [c.head.reason for c in encoded(stream, [one, two])] == ["first", "resize"]


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_stream_that_is_taken_up_goes_on_alike(eye: Eye, context: Context) -> None:
    chunks = chunks_of(moving_square(20))
    one, two = encoder(eye, context), encoder(eye, context)
    for chunk in chunks[:3]:
        two.replay(chunk, tokens=one.encode(chunk).head.tokens)
    for chunk in chunks[3:]:
        assert same_chunk(one.encode(chunk), two.encode(chunk))


def test_nothing_that_changed_is_no_call(eye: Eye) -> None:
    still = np.repeat(moving_square(1), 8, axis=0)
    for context in CONTEXTS:
        stream = encoder(eye, context)
        first, second = chunks_of(still)
        stream.encode(first)
        calls: list[object] = []
        hook = eye.tower.register_forward_hook(lambda *given: calls.append(given))  # noqa: B023
        try:
            written = stream.encode(second)
        finally:
            hook.remove()
        assert (written.head.tokens, written.head.patches_kept, calls) == (0, 0, [])


@pytest.mark.parametrize("context", CONTEXTS)
def test_kept_cells_share_out_one(eye: Eye, context: Context) -> None:
    """`attention` is among the cells that the tower is given; operators get it of the kept ones."""
    seen: list[Tensor] = []

    class Noted(PruMerge):
        def reduce(
            self, tokens: Tokens, signals: Signals = NOTHING, state: object | None = None
        ) -> Result:
            assert signals.attention is not None
            seen.append(signals.attention)
            return super().reduce(tokens, signals, state)

    stream = encoder(eye, context, Noted())
    plain = encoded(encoder(eye, context), chunks_of(moving_square(8)))
    encoded(stream, chunks_of(moving_square(8)))
    assert [len(x) for x in seen] == [chunk.head.tokens for chunk in plain]
    last = seen[1][plain[1].position[:, 0] == 3]
    total = float(last.sum())
    assert 0 < total < 0.9 if context == "dense" else total == pytest.approx(1, abs=1e-5)
