"""The vision tower on kept cells against the plain transformers tower."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamer.embedded.attention import packed_attention
from streamer.model import VideoModel
from streamer.vision.geometry import Geometry, Grid
from streamer.vision.patches import patchify
from streamer.vision.tower import encode
from tests.unit.streamer.tiny import moving_square, tiny_model

GRID = Grid(h=4, w=5)


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return tiny_model()


def plain(model: VideoModel, frames: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """As transformers' own video processor and tower do it."""
    from transformers import Qwen3VLVideoProcessor

    geometry = model.geometry
    processor = Qwen3VLVideoProcessor(
        patch_size=geometry.patch_size,
        merge_size=geometry.merge_size,
        do_resize=False,
        do_sample_frames=False,
        cap_pixels_per_frame=True,
    )
    given = processor(frames.movedim(3, 1), return_tensors="pt")
    output = model.tower(given["pixel_values_videos"], grid_thw=given["video_grid_thw"])
    return output.pooler_output, output.deepstack_features


def test_all_cells_kept_equals_the_plain_tower(model: VideoModel) -> None:
    frames = torch.from_numpy(moving_square(6))
    tokens, stack = plain(model, frames)
    keep = torch.ones(3, GRID.h, GRID.w, dtype=torch.bool)
    features = encode(model.tower, patchify(frames, keep, model.geometry), GRID, model.geometry)
    assert torch.equal(features.tokens, tokens)
    assert torch.equal(features.deepstack, torch.stack(stack))


def test_a_full_tubelet_is_the_same_beside_thinned_ones(model: VideoModel) -> None:
    frames = torch.from_numpy(moving_square(6))
    tokens, _ = plain(model, frames)
    keep = torch.zeros(3, GRID.h, GRID.w, dtype=torch.bool)
    keep[1] = True
    keep[2, 1, 2] = True
    features = encode(model.tower, patchify(frames, keep, model.geometry), GRID, model.geometry)
    assert features.tokens.shape == (21, 32)
    torch.testing.assert_close(features.tokens[:20], tokens[20:40], atol=1e-5, rtol=1e-5)


def test_streams_of_different_grids_pack_into_one_call(model: VideoModel) -> None:
    wide, tall = (
        torch.from_numpy(moving_square(2)),
        torch.from_numpy(moving_square(2, size=(80, 48))),
    )
    one = Grid(h=5, w=3)
    first = patchify(wide, torch.ones(1, 4, 5, dtype=torch.bool), model.geometry)
    second = patchify(tall, torch.ones(1, 5, 3, dtype=torch.bool), model.geometry)
    together = type(first)(
        pixels=torch.cat([first.pixels, second.pixels]),
        cells=torch.cat([first.cells, second.cells]),
        per_tubelet=[20, 15],
    )
    packed = encode(model.tower, together, [GRID, one], model.geometry)
    alone = [
        encode(model.tower, first, GRID, model.geometry),
        encode(model.tower, second, one, model.geometry),
    ]
    torch.testing.assert_close(
        packed.tokens, torch.cat([a.tokens for a in alone]), atol=1e-5, rtol=1e-5
    )


def test_padded_attention_equals_one_call_per_segment(model: VideoModel) -> None:
    frames = torch.from_numpy(moving_square(8))
    keep = torch.rand(4, 4, 5, generator=torch.Generator().manual_seed(1)) < 0.5
    keep[3] = False
    patches = patchify(frames, keep, model.geometry)
    separate = encode(model.tower, patches, GRID, model.geometry)
    before = model.tower.config._attn_implementation
    with packed_attention(model.tower):
        padded = encode(model.tower, patches, GRID, model.geometry)
    assert model.tower.config._attn_implementation == before
    torch.testing.assert_close(padded.tokens, separate.tokens, atol=1e-5, rtol=1e-5)


def test_nothing_kept_makes_no_call(model: VideoModel) -> None:
    frames = torch.from_numpy(moving_square(2))
    keep = torch.zeros(1, 4, 5, dtype=torch.bool)
    features = encode(model.tower, patchify(frames, keep, model.geometry), GRID, model.geometry)
    assert features.tokens.shape == (0, 32)
    assert features.deepstack.shape == (2, 0, 32)


def test_patches_of_a_mask_that_does_not_match_are_refused(model: VideoModel) -> None:
    frames = torch.from_numpy(moving_square(2))
    with pytest.raises(ValueError, match=r"do not match a keep mask \(2, 4, 5\)"):
        patchify(frames, torch.ones(2, 4, 5, dtype=torch.bool), model.geometry)


@pytest.mark.parametrize(
    ("height", "width", "grid"),
    [(128, 128, (8, 8)), (432, 768, (6, 10)), (1, 5000, (1, 64)), (16, 16, (1, 1)), (9, 3, (1, 1))],
)
def test_grids_keep_the_shape_within_the_budget(
    height: int, width: int, grid: tuple[int, int]
) -> None:
    half = (0.5, 0.5, 0.5)
    geometry = Geometry(patch_size=16, merge_size=1, tubelet=2, mean=half, std=half, max_cells=64)
    fitted = geometry.fit(height, width)
    assert (fitted.h, fitted.w) == grid


def test_grid_equals_the_processors(model: VideoModel) -> None:
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

    rng = np.random.default_rng(0)
    for height, width in rng.integers(100, 3000, (300, 2)).tolist():
        h, w = smart_resize(
            num_frames=2,
            height=height,
            width=width,
            factor=16,
            min_pixels=0,
            max_pixels=2 * 64 * 256,
        )
        fitted = model.geometry.fit(height, width)
        assert (fitted.h * 16, fitted.w * 16) == (h, w)
