from functools import partial

import pytest
import torch
from torch import Tensor

from kernels import implementation, patchify, run_length
from kernels._dispatch import choose

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Grey levels as they are.
plain = partial(patchify, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
usual = partial(patchify, mean=MEAN, std=STD)


def video(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def test_two_cells_by_hand(device: str) -> None:
    # One tubelet of two frames, 2 x 4 pixels; two cells of 2 x 2 patches of one pixel.
    red = torch.tensor([[[0, 1, 2, 3], [4, 5, 6, 7]], [[8, 9, 10, 11], [12, 13, 14, 15]]])
    frames = torch.stack([red, red + 20, red + 40], dim=3).to(torch.uint8).to(device)
    index = torch.tensor([1, 0], device=device)
    rows = plain(frames, index, tubelet=2, patch=1, merge=2)
    assert rows.tolist() == [
        [2, 10, 22, 30, 42, 50],
        [3, 11, 23, 31, 43, 51],
        [6, 14, 26, 34, 46, 54],
        [7, 15, 27, 35, 47, 55],
        [0, 8, 20, 28, 40, 48],
        [1, 9, 21, 29, 41, 49],
        [4, 12, 24, 32, 44, 52],
        [5, 13, 25, 33, 45, 53],
    ]


def test_every_grey_level_is_normalised_as_written(device: str) -> None:
    frames = torch.arange(256, dtype=torch.uint8, device=device).view(1, 16, 16, 1)
    index = torch.tensor([0], device=device)
    out = usual(frames.expand(-1, -1, -1, 3), index, tubelet=1, patch=16, merge=1)
    mean, std = torch.tensor(MEAN)[:, None] * 255, torch.tensor(STD)[:, None] * 255
    # Exact: IEEE says how a difference and a quotient round.
    assert torch.equal(out.cpu().view(3, 256), (torch.arange(256.0) - mean) / std)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("shape", "tubelet", "patch", "merge"),
    [
        ((1, 1, 1, 3), 1, 1, 1),
        ((4, 6, 9, 3), 2, 3, 1),
        ((3, 14, 28, 3), 1, 7, 2),
        ((4, 12, 6, 3), 4, 2, 3),
        ((2, 32, 32, 3), 2, 16, 2),  # several blocks per patch
    ],
    ids=str,
)
def test_equals_reference(
    device: str, shape: tuple[int, ...], tubelet: int, patch: int, merge: int, dtype: torch.dtype
) -> None:
    frames = video(*shape)
    cell = patch * merge
    places = (shape[0] // tubelet) * (shape[1] // cell) * (shape[2] // cell)
    generator = torch.Generator().manual_seed(1)
    for index in (torch.arange(places), torch.randperm(places, generator=generator)[::2]):
        call = partial(usual, tubelet=tubelet, patch=patch, merge=merge, dtype=dtype)
        with implementation("reference"):
            expected = call(frames, index)
        actual = call(frames.to(device), index.to(device))
        assert actual.dtype == dtype
        # Exact: every value is rounded in the same three steps. Triton's interpreter alone cuts
        # bfloat16 off where a GPU rounds: less than one part in 2**7.
        interpreted = device == "cpu" and choose(actual, native=True) == "triton"
        rtol = 2**-7 if interpreted and dtype == torch.bfloat16 else 0
        torch.testing.assert_close(actual.cpu(), expected, rtol=rtol, atol=0)


def test_takes_what_run_length_keeps_of_many_streams(device: str) -> None:
    frames = video(2, 4, 4, 6, 3).to(device)
    kept = run_length(frames, tubelet=2, cell=2, threshold=1.2)
    index = kept.index[: int(kept.count)]
    rows = plain(frames.flatten(0, 1), index, tubelet=2, patch=1, merge=2)
    b, t, y, x = kept.keep.nonzero().T
    first = frames[b, t * 2, y * 2, x * 2]  # [N, 3]: a cell's first pixel in its first frame
    assert torch.equal(rows.view(-1, 4, 3, 2)[:, 0, :, 0], first.float())


def test_nothing_and_non_contiguous(device: str) -> None:
    frames = video(4, 4, 12, 3).to(device)[::2, :, 2:10]
    call = partial(usual, tubelet=2, patch=2, merge=2)
    none = torch.empty(0, dtype=torch.int64, device=device)
    assert call(frames, none).shape == (0, 24)
    index = torch.tensor([0, 7, 1, 7], device=device)[::2]
    assert torch.equal(call(frames, index), call(frames.contiguous(), index.contiguous()))


def test_many_threads_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    frames, index = video(2, 8, 8, 3), torch.arange(16)
    with implementation("native"):
        alone = usual(frames, index, tubelet=2, patch=1, merge=2)
        monkeypatch.setattr("kernels._native.PART", 1)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
        assert torch.equal(usual(frames, index, tubelet=2, patch=1, merge=2), alone)


def test_bad_settings_fail() -> None:
    call = partial(usual, video(2, 4, 8, 3), torch.tensor([0]), tubelet=2, patch=2, merge=2)
    with pytest.raises(ValueError, match=r"2 x 4 x 8 .*tubelet=3"):
        call(tubelet=3)
    with pytest.raises(ValueError, match="of the cell, 6 pixels"):
        call(patch=3)
    with pytest.raises(ValueError, match=r"merge=0.*at least 1"):
        call(merge=0)
    with pytest.raises(ValueError, match="must not be 0"):
        call(std=(1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="float16 is not one of"):
        call(dtype=torch.float16)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.tensor([0, 2]), "from 0 to 2; allowed are 0 to 1"),
        (torch.tensor([-1]), "from -1 to -1"),
        (torch.tensor([0.0]), r"float32.*expected int64 \[N\]"),
    ],
    ids=str,
)
def test_bad_index_fails(index: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        usual(video(2, 4, 8, 3), index, tubelet=2, patch=2, merge=2)


def test_bad_frames_fail() -> None:
    with pytest.raises(ValueError, match=r"float32.*expected uint8"):
        usual(torch.zeros(2, 4, 8, 3), torch.tensor([0]), tubelet=2, patch=2, merge=2)
