import pytest
import torch
from torch import Tensor

from kernels import TopK, implementation, top_k


def ints(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def best(score: Tensor, lengths: list[int], k: list[int], device: str) -> TopK:
    offsets = ints(0, *lengths).cumsum(0)
    return top_k(score.to(device), offsets.to(device), ints(*k).to(device))


def test_two_segments_by_hand(device: str) -> None:
    score = torch.tensor([0.5, -2.0, 3.0, 1.0, 7.0, 9.0, 8.0])
    kept = best(score, [4, 3], [2, 1], device)
    assert kept.group.tolist() == [-1, -1, 0, 1, -1, 2, -1]
    assert kept.offsets.tolist() == [0, 2, 3]


def test_among_equals_the_earlier_wins(device: str) -> None:
    score = torch.tensor([1.0, 0.0, -0.0, 0.0, 1.0, -1.0])
    assert best(score, [6], [4], device).group.tolist() == [0, 1, 2, -1, 3, -1]
    assert best(torch.zeros(5), [5], [2], device).group.tolist() == [0, 1, -1, -1, -1]


def test_k_is_capped(device: str) -> None:
    kept = best(torch.arange(6.0), [2, 0, 3, 1], [9, 4, -1, 0], device)
    assert kept.group.tolist() == [0, 1, -1, -1, -1, -1]
    assert kept.offsets.tolist() == [0, 2, 2, 2, 2]


def test_nan_counts_as_minus_infinity(device: str) -> None:
    score = torch.tensor([torch.nan, -torch.inf, 1.0, torch.inf, -torch.nan])
    assert best(score, [5], [2], device).group.tolist() == [-1, -1, 0, 1, -1]
    assert best(score, [5], [3], device).group.tolist() == [0, -1, 1, 2, -1]
    assert best(score, [5], [5], device).group.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("lengths", [[1], [33], [0, 5, 0, 1, 70, 2], [2500, 1024]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_equals_reference(device: str, lengths: list[int], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    n = sum(lengths)
    few = torch.randint(-3, 3, (n,), generator=generator)  # nearly all are ties
    wide = torch.randn(n, generator=generator) * 10.0 ** torch.randint(
        -9, 9, (n,), generator=generator
    )
    for score in (few.to(dtype), wide.to(dtype)):
        for share in (0.0, 0.1, 0.5, 1.0):
            k = [round(length * share) for length in lengths]
            with implementation("reference"):
                expected = best(score, lengths, k, "cpu")
            kept = best(score, lengths, k, device)
            assert torch.equal(kept.group.cpu(), expected.group)
            assert torch.equal(kept.offsets.cpu(), expected.offsets)


def test_non_contiguous_input_is_left_alone(device: str) -> None:
    score = torch.randn(60, generator=torch.Generator().manual_seed(1)).to(device)[::2]
    before = score.clone()
    kept = top_k(score, ints(0, 30).to(device), ints(7).to(device))
    assert torch.equal(score, before)
    assert torch.equal(kept.group, best(before, [30], [7], device).group)


def test_nothing_in_nothing_out(device: str) -> None:
    assert best(torch.zeros(0), [], [], device).offsets.tolist() == [0]
    kept = best(torch.zeros(0), [0, 0], [1, 1], device)
    assert (kept.group.tolist(), kept.offsets.tolist()) == ([], [0, 0, 0])


def test_many_threads_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    generator = torch.Generator().manual_seed(2)
    score, offsets = torch.randn(90, generator=generator), torch.tensor([0, 30, 30, 70, 90])
    k = torch.tensor([3, 1, 40, 5])
    with implementation("native"):
        alone = top_k(score, offsets, k)
        monkeypatch.setattr("kernels._native.PART", 1)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
        assert torch.equal(top_k(score, offsets, k).group, alone.group)


def test_bad_arguments_fail() -> None:
    score = torch.ones(4)
    with pytest.raises(ValueError, match=r"score is torch.int64"):
        top_k(score.long(), ints(0, 4), ints(1))
    with pytest.raises(ValueError, match=r"offsets are torch.int32"):
        top_k(score, ints(0, 4).int(), ints(1))
    with pytest.raises(ValueError, match=r"k is .*expected int64 \[1\]"):
        top_k(score, ints(0, 4), ints(1, 2))
    for borders in (ints(0, 3), ints(1, 4), ints(0, 5, 4)):
        with pytest.raises(ValueError, match=r"must run from 0 to 4"):
            top_k(score, borders, ints(*[1] * (len(borders) - 1)))
