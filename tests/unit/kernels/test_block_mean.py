import pytest
import torch

from kernels import block_mean, implementation


def test_two_blocks_by_hand(device: str) -> None:
    picture = torch.zeros(1, 2, 4, 3, dtype=torch.uint8)
    picture[0, :, :2, 0] = torch.tensor([[1, 2], [3, 5]])
    picture[0, :, 2:, 2] = 255
    means = block_mean(picture.to(device), 2)
    assert means.dtype == torch.float32
    assert means.cpu().tolist() == [[[[2.75, 0]], [[0, 0]], [[0, 255]]]]


@pytest.mark.parametrize(
    ("shape", "block"), [((1, 1, 1), 1), ((3, 21, 14), 7), ((2, 64, 96), 4), ((2, 256, 128), 128)]
)
def test_equals_the_reference_bit_for_bit(
    device: str, shape: tuple[int, int, int], block: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)
    with implementation("reference"):
        expected = block_mean(frames, block)
    assert torch.equal(block_mean(frames.to(device), block).cpu(), expected)


def test_white_stays_white(device: str) -> None:
    frames = torch.full((1, 128, 128, 3), 255, dtype=torch.uint8, device=device)
    assert block_mean(frames, 128).flatten().tolist() == [255, 255, 255]


def test_nothing_in_nothing_out(device: str) -> None:
    frames = torch.zeros(0, 8, 8, 3, dtype=torch.uint8, device=device)
    assert block_mean(frames, 4).shape == (0, 3, 2, 2)


def test_non_contiguous_input_is_left_alone(device: str) -> None:
    generator = torch.Generator().manual_seed(1)
    wide = torch.randint(0, 256, (4, 8, 16, 3), dtype=torch.uint8, generator=generator).to(device)
    frames, before = wide[::2, :, :8], wide.clone()
    assert torch.equal(block_mean(frames, 4), block_mean(frames.contiguous(), 4))
    assert torch.equal(wide, before)


def test_many_threads_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    generator = torch.Generator().manual_seed(2)
    frames = torch.randint(0, 256, (3, 20, 12, 3), dtype=torch.uint8, generator=generator)
    with implementation("native"):
        alone = block_mean(frames, 4)
        monkeypatch.setattr("kernels._native.PART", 1)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
        assert torch.equal(block_mean(frames, 4), alone)


def test_bad_arguments_fail() -> None:
    frames = torch.zeros(2, 8, 12, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"block=129 is not in \[1, 128\]"):
        block_mean(frames, 129)
    with pytest.raises(ValueError, match=r"8 x 12 do not make whole blocks of 3"):
        block_mean(frames, 3)
    with pytest.raises(ValueError, match=r"frames are torch.float32 .* expected uint8"):
        block_mean(frames.float(), 4)
    with pytest.raises(ValueError, match=r"\[8, 12, 3\]; expected uint8 \[T, H, W, 3\]"):
        block_mean(frames[0], 4)
