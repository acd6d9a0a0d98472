"""What operators are told of kept cells, beside their features."""

from __future__ import annotations

import pytest
import torch

from streamer.model import VideoModel
from streamer.vision.geometry import Grid
from streamer.vision.patches import patchify
from streamer.vision.signals import attention_and_keys, last_block, pixel_change
from streamer.vision.tower import encode
from tests.unit.streamer.tiny import moving_square, tiny_model

GRID = Grid(h=4, w=5)


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return tiny_model()


def test_attention_and_keys_by_hand() -> None:
    # One tubelet of two one-patch cells, width 4: the second query looks at the second key only.
    query = torch.tensor([[0.0, 0, 0, 0], [0, 40, 0, 0]])
    key = torch.tensor([[1.0, 0, 0, 0], [0, 2, 0, 0]])
    qkv = torch.cat([query, key, torch.zeros(2, 4)], dim=1)
    attention, keys = attention_and_keys(qkv, [2], 1)
    assert attention.tolist() == pytest.approx([0.25, 0.75])
    assert torch.equal(keys, key)
    # The same two as patches of one cell
    attention, keys = attention_and_keys(qkv, [0, 1], 2)
    assert attention.tolist() == pytest.approx([1.0])
    assert keys.tolist() == [[0.5, 1, 0, 0]]


def test_each_tubelet_shares_out_one(model: VideoModel) -> None:
    frames = torch.from_numpy(moving_square(6))
    keep = torch.zeros(3, GRID.h, GRID.w, dtype=torch.bool)
    keep[0] = True
    keep[2, 1:3] = True
    patches = patchify(frames, keep, model.geometry)
    features = encode(model.tower, patches, GRID, model.geometry, signals=True)
    attention, keys = features.signals.attention, features.signals.keys
    assert attention is not None
    assert keys is not None
    assert attention.shape == (30,)
    assert keys.shape == (30, 24)
    assert (attention > 0).all()
    assert float(attention[:20].sum()) == pytest.approx(1, abs=1e-5)
    assert float(attention[20:].sum()) == pytest.approx(1, abs=1e-5)
    # Asking changes nothing, and leaves no hook behind
    plain = encode(model.tower, patches, GRID, model.geometry)
    assert torch.equal(plain.tokens, features.tokens)
    assert plain.signals.present == frozenset()
    assert not model.tower.blocks[-1].attn.qkv._forward_hooks


def test_the_hook_goes_away_when_the_tower_fails(model: VideoModel) -> None:
    with pytest.raises(RuntimeError), last_block(model.tower):
        raise RuntimeError
    assert not model.tower.blocks[-1].attn.qkv._forward_hooks


def test_nothing_kept_has_signals_of_nothing(model: VideoModel) -> None:
    frames = torch.from_numpy(moving_square(2))
    patches = patchify(frames, torch.zeros(1, GRID.h, GRID.w, dtype=torch.bool), model.geometry)
    features = encode(model.tower, patches, GRID, model.geometry, signals=True)
    assert features.signals.present == {"attention", "keys"}
    assert features.signals.keys is not None
    assert features.signals.keys.shape == (0, 24)


def test_change_is_between_a_tubelets_last_frame_and_the_first_before(model: VideoModel) -> None:
    frames = torch.zeros(4, 64, 80, 3, dtype=torch.uint8)
    frames[3, :16, 16:32] = 51  # a fifth of the range, in the last frame of the second tubelet
    change = pixel_change(frames, None, model.geometry)
    assert change.shape == (2, 4, 5)
    assert torch.isinf(change[0]).all()
    assert float(change[1, 0, 1]) == pytest.approx(0.2)
    assert float(change[1].sum()) == pytest.approx(0.2)
    before = torch.full((64, 80, 3), 255, dtype=torch.uint8)
    assert pixel_change(frames, before, model.geometry)[0].flatten().tolist() == pytest.approx(
        [1.0] * 20
    )
