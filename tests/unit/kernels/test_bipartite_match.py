import pytest
import torch
from torch import Tensor

from kernels import Match, bipartite_match, implementation


def ints(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def match(metric: Tensor, lengths: list[int], r: list[int], device: str, **kwargs: bool) -> Match:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return bipartite_match(metric.to(device), offsets.to(device), ints(*r).to(device), **kwargs)


def test_four_tokens_by_hand(device: str) -> None:
    # A = 0, 2; B = 1, 3. Token 0 is nearest to 3 (cosine 1), token 2 to 1 (0.8).
    metric = torch.tensor([[2.0, 0.0], [0.0, 5.0], [3.0, 4.0], [1.0, 0.0]])
    result = match(metric, [4], [1], device)
    assert result.target.tolist() == [3, 1, 2, 3]
    # fp32 rounding of a normalised vector
    assert result.score.tolist() == pytest.approx(
        [1.0, float("-inf"), 0.8, float("-inf")], abs=1e-6
    )
    assert match(metric, [4], [2], device).target.tolist() == [3, 1, 1, 3]
    assert match(metric, [4], [0], device).target.tolist() == [0, 1, 2, 3]


def test_r_is_capped(device: str) -> None:
    metric = torch.ones(7, 4)  # norm 2: cosines are exact, and all are ties
    assert match(metric, [7], [100], device).target.tolist() == [1, 1, 1, 3, 1, 5, 6]
    assert match(metric, [7], [-3], device).target.tolist() == list(range(7))
    protected = match(metric, [7], [100], device, protect_first=True)
    assert protected.target.tolist() == [0, 1, 1, 3, 1, 5, 1]
    both = match(metric, [7], [100], device, protect_first=True, protect_second=True)
    assert both.target.tolist() == [0, 1, 3, 3, 3, 5, 6]


def test_ties_take_the_lower_place(device: str) -> None:
    metric = torch.tensor([[1.0, 0], [0, 1], [0, 1], [0, 1], [0, 1], [1, 0], [1, 0], [1, 0]])
    assert match(metric, [8], [1], device).target.tolist() == [5, 1, 2, 3, 4, 5, 6, 7]
    assert match(metric, [8], [3], device).target.tolist() == [5, 1, 1, 3, 1, 5, 6, 7]


# Triton's interpreter computes with numpy, which warns of what the test is about.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_nan_rows_never_merge_and_are_never_merged_into(device: str) -> None:
    metric = torch.ones(6, 4)
    metric[1, 2] = torch.nan
    metric[4, 0] = torch.inf
    result = match(metric, [6], [3], device)
    assert result.target.tolist() == [3, 1, 3, 3, 4, 5]
    assert match(torch.full((4, 2), torch.nan), [4], [2], device).target.tolist() == [0, 1, 2, 3]


def test_zero_rows_have_similarity_zero(device: str) -> None:
    result = match(torch.zeros(4, 2), [4], [1], device)
    assert result.target.tolist() == [1, 1, 2, 3]
    assert result.score[::2].tolist() == [0.0, 0.0]


def test_protected_alone_is_left_alone(device: str) -> None:
    metric = torch.ones(6, 4)
    result = match(metric, [1, 2, 3, 0], [5, 5, 5, 5], device, protect_first=True)
    assert result.target.tolist() == [0, 1, 2, 3, 4, 4]
    second = match(metric, [2, 3, 1], [5, 5, 5], device, protect_second=True)
    assert second.target.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("lengths", [[1], [33], [0, 5, 0, 1, 70, 2], [131, 64]], ids=str)
@pytest.mark.parametrize("channels", [1, 7, 48], ids="D{}".format)
def test_equals_reference(device: str, lengths: list[int], channels: int) -> None:
    generator = torch.Generator().manual_seed(1)
    # Where D is 1 cosines are 1 or -1, so that nearly all are ties; else none is near one.
    metric = torch.randn(sum(lengths), channels, generator=generator)
    r = [length // 3 for length in lengths]
    for protect_first in (False, True):
        with implementation("reference"):
            expected = match(metric, lengths, r, "cpu", protect_first=protect_first)
        actual = match(metric, lengths, r, device, protect_first=protect_first)
        assert torch.equal(actual.target.cpu(), expected.target)
        # fp32 sums of products in another order
        torch.testing.assert_close(actual.score.cpu(), expected.score, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_is_compared_in_fp32(device: str, dtype: torch.dtype) -> None:
    metric = torch.randn(20, 8, generator=torch.Generator().manual_seed(2)).to(dtype)
    low = match(metric, [20], [5], device)
    assert low.score.dtype == torch.float32
    assert torch.equal(low.target, match(metric.float(), [20], [5], device).target)


def test_segment_alone_equals_it_in_a_batch_non_contiguous(device: str) -> None:
    metric = torch.randn(24, 16, generator=torch.Generator().manual_seed(3))[:, ::2]
    before = metric.clone()
    together = match(metric, [9, 15], [3, 6], device)
    assert torch.equal(metric, before)
    alone = match(metric[9:], [15], [6], device)
    assert torch.equal(together.target[9:], alone.target + 9)
    assert torch.equal(together.score[9:], alone.score)


def test_nothing_in_nothing_out(device: str) -> None:
    assert match(torch.zeros(0, 3), [], [], device).target.shape == (0,)
    assert match(torch.zeros(0, 3), [0, 0], [1, 1], device).score.shape == (0,)


def test_bad_arguments_fail() -> None:
    metric = torch.ones(4, 2)
    with pytest.raises(ValueError, match=r"metric is torch.int64"):
        bipartite_match(metric.long(), ints(0, 4), ints(1))
    with pytest.raises(ValueError, match=r"offsets are torch.int32"):
        bipartite_match(metric, ints(0, 4).int(), ints(1))
    with pytest.raises(ValueError, match=r"r is .*expected int64 \[1\]"):
        bipartite_match(metric, ints(0, 4), ints(1, 2))
    for borders in (ints(0, 3), ints(1, 4), ints(0, 5, 4)):
        with pytest.raises(ValueError, match=r"must run from 0 to 4"):
            bipartite_match(metric, borders, ints(*[1] * (len(borders) - 1)))
