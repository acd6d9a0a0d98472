"""What the embedded model is trained on is what it will be given, and training computes."""

from __future__ import annotations

import itertools

import pytest
import torch

from operators import RLT
from streamer.core.pipeline import Pipeline
from streamer.embedded.architecture import build_model, build_processor
from streamer.embedded.attention import packed_attention
from streamer.embedded.batch import Heads, batches, forward
from streamer.embedded.evaluate import report, run
from streamer.embedded.render import render
from streamer.embedded.samples import (
    CHUNK_FRAMES,
    IGNORE,
    group_samples,
    held_out_clip,
    plan_groups,
    trunk_pieces,
)
from streamer.embedded.train import schedule
from streamer.embedded.truth import QUESTION, QUESTIONS
from streamer.embedded.vocabulary import build_tokenizer
from streamer.language.layout import Layout, Piece, join
from streamer.language.session import Session
from streamer.model import VideoModel, geometry_of
from streamer.vision.geometry import Grid
from streamer.wire import TokenChunk
from tests.unit.streamer.tiny import tiny_model, tokens_of


@pytest.fixture(scope="module")
def tiny() -> VideoModel:
    return tiny_model()


@pytest.fixture(scope="module")
def fresh() -> VideoModel:
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    model.config._attn_implementation = "eager"
    geometry = geometry_of(build_processor(), None)
    return VideoModel(model=model, layout=Layout.of(tokenizer), geometry=geometry)


class Recorder(Session):
    """Notes what would be prefilled."""

    def _prefill(self, piece: Piece, chunk: TokenChunk) -> None:
        self.seen = [*getattr(self, "seen", []), piece]
        super()._prefill(piece, chunk)


@pytest.mark.parametrize("seed", [3, 4, 11])
def test_a_training_trunk_is_laid_out_as_a_session_prefills_it(seed: int, tiny: VideoModel) -> None:
    # Given the chunks of a clip, planned for training and encoded by the service
    clip = held_out_clip(seed)
    rendering = render(clip)
    operator = RLT()
    groups = plan_groups(clip, rendering, operator, tiny.geometry)
    chunks = tokens_of(tiny, rendering.frames, pipeline=Pipeline(pixel=operator))
    assert [c.head.kind for c in chunks] == [
        "P" if i else "I" for group in groups for i in range(len(group))
    ]
    # When a session takes them and training lays out the same groups
    session = Recorder(tiny)
    for chunk in chunks:
        session.append(chunk)
    laid: list[Piece] = []
    for group in groups:
        base = tiny.layout.head().next_base
        for planned in group:
            grid = Grid(h=planned.plan.keep.shape[1], w=planned.plan.keep.shape[2])
            pieces = trunk_pieces(
                planned.plan, grid, tiny.layout, group_start_s=group[0].start / 2, base=base
            )
            base = pieces[-1].next_base
            laid.append(join([tiny.layout.head(), *pieces] if planned is group[0] else pieces))
    # Then ids and positions are the same
    for ours, served in zip(laid, session.seen, strict=True):
        assert torch.equal(ours.ids, served.ids)
        assert torch.equal(ours.positions, served.positions)


def test_a_branch_sees_its_part_of_the_trunk_and_itself(fresh: VideoModel) -> None:
    samples = [s for seed in range(6) for s in group_samples(seed, fresh.layout, fresh.geometry)]
    sample = max(samples, key=lambda s: int(s.branch.max()))
    assert int(sample.branch.max()) > 1
    trunk = int((sample.branch == 0).sum())
    for number in range(1, int(sample.branch.max()) + 1):
        mine = sample.branch == number
        assert len(set(sample.limit[mine].tolist())) == 1
        assert 0 < int(sample.limit[mine][0]) <= trunk
        told = sample.labels[mine]
        assert told[0] == IGNORE
        assert told[-1] == fresh.layout.end_of_turn
        text = fresh.layout.tokenizer.decode(sample.ids[mine].tolist(), skip_special_tokens=False)
        assert any(text.startswith(question) for question in (QUESTION, *QUESTIONS))


def test_a_step_has_finite_losses_and_reaches_every_part(fresh: VideoModel) -> None:
    torch.manual_seed(0)
    samples = list(
        itertools.chain.from_iterable(
            group_samples(seed, fresh.layout, fresh.geometry) for seed in range(4)
        )
    )
    heads = Heads(fresh.model.config.vision_config.out_hidden_size)
    total = torch.zeros(())
    with packed_attention(fresh.tower):
        for batch in batches(samples, tokens=1500):
            losses = forward(fresh.model, heads, batch, fresh.geometry)
            total = total + losses.caption + losses.auxiliary
            assert 0 <= losses.exact <= losses.answers
    torch.autograd.backward(total)
    assert torch.isfinite(total)
    without = [
        name
        for name, p in (*fresh.model.named_parameters(), *heads.named_parameters())
        if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert without == []


def test_evaluation_scores_every_chunk(tiny: VideoModel) -> None:
    clips = [held_out_clip(seed) for seed in (1, 2)]
    told = run(tiny, clips, Pipeline())
    assert len(told) == sum(-(-clip.num_frames // CHUNK_FRAMES) for clip in clips)
    assert all(t.tokens == t.dense for t in told)
    lines = report({"dense": told, "kept": told})
    assert any(line.startswith("exact") and "+0.0 pt" in line for line in lines)


def test_the_rate_warms_up_holds_and_falls() -> None:
    assert schedule(0.0) < schedule(0.01) < schedule(0.02) == schedule(0.5) == 1.0
    assert 0.02 <= schedule(1.0) < schedule(0.75) < 1.0
