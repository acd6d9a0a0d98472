import math

import pytest
import torch
from torch import Tensor

from kernels import RunLength, implementation, run_length, use_triton


def video(*shape: int, seed: int = 0) -> Tensor:
    """Noise in which about half of the pixels of a frame repeat the frame before."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    stays = torch.rand(shape[1:4], generator=generator) < 0.5
    for t in range(1, shape[1]):
        frames[:, t, stays[t]] = frames[:, t - 1, stays[t]]
    return frames


def assert_same(a: RunLength, b: RunLength) -> None:
    # Exact: sums are integers, and what follows them rounds alike in both.
    assert torch.equal(a.keep.cpu(), b.keep.cpu())
    assert torch.equal(a.run.cpu(), b.run.cpu())
    assert torch.equal(a.distance.cpu(), b.distance.cpu())


def test_one_pixel_by_hand(device: str) -> None:
    # Grey levels of a 1 x 2 video, one frame per tubelet. Right: +51, same, -51.
    grey = torch.tensor([[[10, 10]], [[10, 61]], [[10, 61]], [[10, 10]]], dtype=torch.uint8)
    frames = grey[None, ..., None].expand(1, 4, 1, 2, 3).to(device)
    result = run_length(frames, tubelet=1, cell=1, threshold=0.1)
    assert result.keep[0, :, 0].tolist() == [
        [True, True],
        [False, True],
        [False, False],
        [False, True],
    ]
    assert result.run[0, :, 0].tolist() == [[4, 1], [0, 2], [0, 0], [0, 1]]
    moved = 0.2 * (1 / 0.229 + 1 / 0.224 + 1 / 0.225) / 3  # 0.885
    assert result.distance[0, 0, 0].tolist() == [math.inf, math.inf]
    # fp32 rounding of three products
    assert result.distance[0, 1:, 0, 1].tolist() == pytest.approx([moved, 0, moved], rel=1e-6)
    assert result.distance[0, 1:, 0, 0].tolist() == [0, 0, 0]


def test_last_frame_is_compared_with_the_first_of_the_tubelet_before(device: str) -> None:
    frames = torch.zeros(1, 6, 2, 2, 3, dtype=torch.uint8, device=device)
    frames[:, 2] = 200  # a flash in the first frame of tubelet 1
    plain = run_length(frames, tubelet=2, cell=2, threshold=0.1)
    assert plain.keep.flatten().tolist() == [True, False, True]
    symmetric = run_length(frames, tubelet=2, cell=2, threshold=0.1, symmetric=True)
    assert symmetric.keep.flatten().tolist() == [True, True, True]


@pytest.mark.parametrize("symmetric", [False, True], ids=["plain", "symmetric"])
@pytest.mark.parametrize(
    ("shape", "tubelet", "cell"),
    [
        ((1, 1, 1, 1, 3), 1, 1),
        ((2, 6, 12, 8, 3), 2, 4),
        ((1, 8, 33, 11, 3), 4, 11),
        ((1, 3, 40, 80, 3), 1, 40),  # several loads per cell
        ((1, 2, 2, 10, 3), 1, 1),  # several blocks of columns
    ],
    ids=str,
)
def test_equals_reference(
    device: str,
    shape: tuple[int, ...],
    tubelet: int,
    cell: int,
    symmetric: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if use_triton(torch.zeros(1, device=device)):
        from kernels.run_length import kernel

        monkeypatch.setattr(kernel, "SCAN_BLOCK", 16)
    frames = video(*shape)
    front = video(shape[0], 1, *shape[2:], seed=1)[:, 0]
    for first in (None, front):
        with implementation("reference"):
            expected = run_length(
                frames,
                tubelet=tubelet,
                cell=cell,
                threshold=1.0,
                front=first,
                symmetric=symmetric,
            )
        actual = run_length(
            frames.to(device),
            tubelet=tubelet,
            cell=cell,
            threshold=1.0,
            front=None if first is None else first.to(device),
            symmetric=symmetric,
        )
        assert_same(actual, expected)


def test_distance_equals_that_of_normalised_frames(device: str) -> None:
    frames = video(1, 4, 8, 8, 3)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)
    x = frames.double() / 255 / std
    expected = (x[:, 3] - x[:, 0]).abs().view(1, 2, 4, 2, 4, 3).mean(dim=(2, 4, 5))
    actual = run_length(frames.to(device), tubelet=2, cell=4, threshold=0.1).distance[:, 1]
    # fp32 rounding of three products against fp64
    torch.testing.assert_close(actual.cpu().double(), expected, rtol=1e-6, atol=0)


def test_equal_distance_is_dropped_and_negative_threshold_keeps(device: str) -> None:
    frames = torch.full((1, 4, 2, 2, 3), 9, dtype=torch.uint8, device=device)
    front = frames[:, 0]
    assert not run_length(frames, tubelet=2, cell=2, threshold=0, front=front).keep.any()
    for threshold in (-1, -1e-60):
        assert run_length(frames, tubelet=2, cell=2, threshold=threshold, front=front).keep.all()
    first = run_length(frames, tubelet=2, cell=2, threshold=1e60)
    assert first.keep.flatten().tolist() == [True, False]


def test_channel_weight_sets_the_domain(device: str) -> None:
    frames = torch.zeros(1, 2, 2, 2, 3, dtype=torch.uint8, device=device)
    frames[:, 1] = torch.tensor([3, 6, 9], dtype=torch.uint8)
    result = run_length(frames, tubelet=1, cell=2, threshold=5.9, channel_weight=(1, 1, 1))
    # fp32 rounding of three products
    assert result.distance[0, 1].item() == pytest.approx(6, rel=1e-6)
    assert result.keep.all()


def test_empty_and_non_contiguous(device: str) -> None:
    none = run_length(video(2, 0, 4, 4, 3).to(device), tubelet=2, cell=2, threshold=0.1)
    assert none.keep.shape == (2, 0, 2, 2)
    assert run_length(
        torch.zeros(0, 2, 4, 4, 3, dtype=torch.uint8, device=device),
        tubelet=2,
        cell=2,
        threshold=0.1,
    ).run.shape == (0, 1, 2, 2)
    wide = video(1, 8, 4, 12, 3).to(device)
    view = wide[:, ::2, :, 2:10]
    assert not view.is_contiguous()
    assert_same(
        run_length(view, tubelet=2, cell=2, threshold=1.0),
        run_length(view.contiguous(), tubelet=2, cell=2, threshold=1.0),
    )


def test_clips_do_not_touch_each_other_and_input_stays(device: str) -> None:
    frames = video(3, 4, 4, 4, 3).to(device)
    before = frames.clone()
    together = run_length(frames, tubelet=2, cell=2, threshold=1.0)
    assert torch.equal(frames, before)
    for i in range(3):
        alone = run_length(frames[i : i + 1], tubelet=2, cell=2, threshold=1.0)
        assert torch.equal(alone.distance[0], together.distance[i])
        assert torch.equal(alone.run[0], together.run[i])


@pytest.mark.parametrize("threshold", [math.nan, math.inf, "0.1", True, None], ids=str)
def test_bad_threshold_fails(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"not a finite number.*0\.1"):
        run_length(video(1, 2, 2, 2, 3), tubelet=1, cell=1, threshold=threshold)


def test_bad_shapes_fail() -> None:
    frames = video(1, 4, 4, 4, 3)
    with pytest.raises(ValueError, match=r"4 x 4 x 4 .*tubelet=3"):
        run_length(frames, tubelet=3, cell=2, threshold=0.1)
    with pytest.raises(ValueError, match="cell=3"):
        run_length(frames, tubelet=2, cell=3, threshold=0.1)
    with pytest.raises(ValueError, match="cell=0"):
        run_length(frames, tubelet=2, cell=0, threshold=0.1)
    with pytest.raises(ValueError, match=r"float32.*expected uint8"):
        run_length(frames.float(), tubelet=2, cell=2, threshold=0.1)
    with pytest.raises(ValueError, match="front is"):
        run_length(frames, tubelet=2, cell=2, threshold=0.1, front=frames[:, 0, :2])
