"""What the embedded model is trained on is what it will be given, and training computes."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from operators import RLT
from streamer.core.pipeline import Pipeline
from streamer.embedded.architecture import build_model, build_processor, start_from
from streamer.embedded.attention import packed_attention
from streamer.embedded.batch import Heads, batches, encode_samples, forward
from streamer.embedded.clips import TEST, TRAIN, VALIDATION, held_out_clip
from streamer.embedded.render import render
from streamer.embedded.samples import (
    IGNORE,
    group_samples,
    plan_groups,
    sample_of,
    trunk_pieces,
)
from streamer.embedded.scene import SHOT_FRAMES, random_clip
from streamer.embedded.train import (
    RUNS,
    TRAINING_SEED,
    VALIDATION_SEED,
    Settings,
    backgrounds,
    main,
    schedule,
    train,
)
from streamer.embedded.truth import QUESTION, QUESTIONS
from streamer.embedded.vocabulary import build_tokenizer
from streamer.evaluation.rendered import TEST_SEED
from streamer.language.layout import Layout, Piece, join
from streamer.language.session import Session
from streamer.model import VideoModel, geometry_of, load_model
from streamer.vision.geometry import Grid
from streamer.wire import TokenChunk
from tests.servers.need import free_port
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
            for cached in (False, True):
                losses = forward(fresh.model, heads, batch, fresh.geometry, cached=cached)
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


def test_cached_training_sees_what_a_cached_stream_sees() -> None:
    # Given a tower whose weights are large enough to show what it sees
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    with torch.no_grad():
        for weight in model.model.visual.parameters():
            weight.mul_(3)
    seeing = VideoModel(
        model=model.eval(),
        layout=Layout.of(tokenizer),
        geometry=geometry_of(build_processor(), None),
        context="cached",
    )
    # And the groups of a clip of which some cells are left out
    clip = held_out_clip(4)
    rendering = render(clip)
    rng = np.random.default_rng(0)
    groups = plan_groups(clip, rendering, RLT(), seeing.geometry)
    samples = [sample_of(clip, rendering, g, seeing.layout, seeing.geometry, rng) for g in groups]
    sent = [n for s in samples for n in s.patches.per_tubelet]
    assert any(0 < n < s.grid.cells for s in samples for n in s.patches.per_tubelet), sent
    assert all(s.told.all() for s in samples)
    # When the service encodes the clip with a cached context, and training does
    chunks = tokens_of(seeing, rendering.frames, pipeline=Pipeline(pixel=RLT()))
    served = torch.cat([chunk.tokens for chunk in chunks]).float()
    with packed_attention(seeing.tower), torch.no_grad():
        cached, kept = (
            encode_samples(model, samples, seeing.geometry, cached=way).tokens
            for way in (True, False)
        )
    # Then tokens are the same, but for the wire's rounding, and those without a cache are not
    size = served.abs().mean()
    assert (cached - served).abs().max() < 0.05 * size
    assert (kept - served).abs().max() > 0.2 * size


def test_training_validation_and_test_share_nothing() -> None:
    assert TRAINING_SEED + (RUNS << 32) < VALIDATION_SEED < TEST_SEED
    ends = [*TRAIN.textures, *VALIDATION.textures, *TEST.textures]
    assert ends == sorted(ends)
    assert not any(thing.extra for s in held_out_clip(7).shots for thing in s.things)


def test_each_run_has_backgrounds_of_its_own() -> None:
    seen = [backgrounds(seed) for seed in range(RUNS)]
    assert seen[0] == TRAIN.textures
    assert [stop for _, stop in seen[:-1]] == [start for start, _ in seen[1:]]
    assert seen[-1][1] <= VALIDATION.textures[0]


def test_a_seed_that_would_draw_held_out_backgrounds_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", "--out", "x", "--minutes", "1", "--seed", str(RUNS)]
    monkeypatch.setattr("sys.argv", given)
    with pytest.raises(SystemExit):
        main()
    assert "--seed: 64 is not one of 0 to 63" in capsys.readouterr().err


def test_shots_may_follow_each_other_in_quick_succession() -> None:
    clip = random_clip(5, "cuts", size=(96, 160), num_frames=16)
    lengths = [shot.num_frames for shot in clip.shots]
    assert sum(lengths) == 16
    assert len(lengths) > 2
    assert set(lengths[:-1]) <= set(SHOT_FRAMES)
    assert "cuts" in TRAIN.kinds
    assert "cuts" not in TEST.kinds


def test_a_larger_model_starts_as_the_smaller_one(fresh: VideoModel, tmp_path: Path) -> None:
    # Given a checkpoint with fewer layers and words
    tokenizer = build_tokenizer()
    small = build_model(tokenizer, vision_layers=2, text_layers=3)
    small.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    # When the model starts from it
    grown = build_model(tokenizer)
    start_from(grown, tokenizer, tmp_path)
    # Then it says the same
    ids = torch.tensor([tokenizer.encode("Describe what happens.")])
    with torch.no_grad():
        torch.testing.assert_close(grown(ids).logits, small(ids).logits, atol=1e-4, rtol=1e-4)
    pixels, one = torch.randn(60, 1536), torch.tensor([[1, 6, 10]])
    with torch.no_grad():
        expected, seen = (m.model.visual(pixels, one).pooler_output for m in (small, grown))
    torch.testing.assert_close(seen, expected, atol=1e-4, rtol=1e-4)


def test_the_rate_warms_up_holds_and_falls() -> None:
    assert schedule(0.0) < schedule(0.01) < schedule(0.02) == schedule(0.5) == 1.0
    assert 0.02 <= schedule(1.0) < schedule(0.75) < 1.0


def test_of_a_crowd_only_the_camera_is_taught(fresh: VideoModel) -> None:
    # Given a crowd before a still camera
    clip = random_clip(3, "still", size=(96, 160), num_frames=8, busy=True)
    rendering = render(clip)
    assert any(thing.extra for thing in clip.shots[0].things)
    groups = plan_groups(clip, rendering, RLT(), fresh.geometry)
    # When it becomes training samples
    rng = np.random.default_rng(0)
    sample = sample_of(clip, rendering, groups[0], fresh.layout, fresh.geometry, rng)
    # Then the caption is taught up to its first sentence, and may go on
    told = sample.labels[(sample.branch == 1) & (sample.labels != IGNORE)]
    text = fresh.layout.tokenizer.decode(told.tolist(), skip_special_tokens=False)
    assert text == "The camera is still."
    # And cells of the crowd are neither background nor anything that has a name
    assert (sample.cells.colour == IGNORE).any()


def test_a_run_logs_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a run of some steps
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    threads = torch.get_num_threads()
    short = Settings(
        out=tmp_path, minutes=0.03, workers=1, clips=1, report_s=0.2, validation=1, cached=0.5
    )
    try:
        train(0, short)
        first = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        # When it is resumed
        train(0, replace(short, minutes=0.06, resume=True))
    finally:
        torch.set_num_threads(threads)
    # Then it counts on, in its own time, and leaves a checkpoint that loads
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[: len(first)] == first
    assert len(lines) > len(first) > 0
    assert lines[len(first)]["step"] > first[-1]["step"]
    assert 0.03 <= lines[len(first)]["minutes"] <= lines[-1]["minutes"]
    assert load_model(str(tmp_path / "checkpoint"), device="cpu").model.dtype == torch.float32
