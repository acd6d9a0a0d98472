import pytest
import torch
from torch import Tensor

from kernels import implementation, segment_mean


def mean(data: Tensor, weight: Tensor, group: Tensor, num_groups: int, device: str) -> Tensor:
    return segment_mean(data.to(device), weight.to(device), group.to(device), num_groups).cpu()


def test_five_rows_by_hand(device: str) -> None:
    data = torch.tensor([[1.0, 2.0], [5.0, 6.0], [9.0, 9.0], [3.0, 3.0], [7.0, 8.0]])
    weight = torch.tensor([1.0, 3.0, 1.0, 2.0, 2.0])
    group = torch.tensor([1, 1, -1, 0, 0])
    assert mean(data, weight, group, 2, device).tolist() == [[5.0, 5.5], [4.0, 5.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("n", "channels"), [(1, 1), (33, 5), (200, 3), (20, 1100)], ids=str)
def test_equals_fp64(device: str, n: int, channels: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(n, channels, generator=generator).to(dtype)
    weight = torch.rand(n, generator=generator) + 0.1
    num_groups = n // 4 + 1
    group = torch.randint(-1, num_groups, (n,), generator=generator)
    group[:num_groups] = torch.arange(num_groups)
    onehot = (group[None, :] == torch.arange(num_groups)[:, None]).double() * weight
    expected = onehot @ data.double() / onehot.sum(1, keepdim=True)
    actual = mean(data, weight, group, num_groups, device)
    assert actual.dtype == dtype
    # fp32 sums of at most 200 terms; below that, one rounding to the output's dtype
    rtol, atol = {
        torch.float32: (1e-5, 1e-6),
        torch.float16: (1e-3, 1e-6),
        torch.bfloat16: (8e-3, 1e-6),
    }[dtype]
    torch.testing.assert_close(actual.double(), expected, rtol=rtol, atol=atol)
    with implementation("reference"):
        reference = mean(data, weight, group, num_groups, "cpu")
    torch.testing.assert_close(actual, reference, rtol=rtol, atol=atol)


def test_a_group_of_one_returns_its_row_bit_for_bit(device: str) -> None:
    data = torch.randn(50, 7, generator=torch.Generator().manual_seed(1))
    weight = torch.rand(50, generator=torch.Generator().manual_seed(2)) * 9 + 0.01
    order = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    out = mean(data, weight, order, 50, device)
    assert torch.equal(out[order], data)


def test_what_is_dropped_or_weighs_nothing_is_not_read(device: str) -> None:
    data = torch.tensor([[torch.nan], [torch.inf], [4.0]])
    group = torch.tensor([-1, 0, 0])
    assert mean(data, torch.tensor([1.0, 0.0, 2.0]), group, 1, device).tolist() == [[4.0]]


def test_a_group_without_weight_is_nan(device: str) -> None:
    group = torch.tensor([0, 2])
    out = mean(torch.ones(2, 1), torch.tensor([1.0, 0.0]), group, 3, device)
    assert out.isnan().flatten().tolist() == [False, True, True]


def test_nan_stays_in_its_group(device: str) -> None:
    data = torch.tensor([[torch.nan], [1.0], [3.0]])
    out = mean(data, torch.ones(3), torch.tensor([0, 1, 1]), 2, device)
    assert out[0].isnan().all()
    assert out[1].tolist() == [2.0]


def test_nothing_in_nothing_out(device: str) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert mean(torch.zeros(0, 3), torch.zeros(0), none, 0, device).shape == (0, 3)
    assert mean(torch.zeros(0, 3), torch.zeros(0), none, 2, device).isnan().all()
    assert mean(torch.zeros(4, 0), torch.ones(4), none.new_zeros(4), 1, device).shape == (1, 0)


def test_non_contiguous_input_is_left_alone(device: str) -> None:
    data = torch.randn(6, 8, generator=torch.Generator().manual_seed(4)).to(device)[:, ::2]
    group = torch.tensor([0, 0, 1, 1, 1, -1], device=device)
    weight = torch.arange(1.0, 13.0, device=device)[::2]
    before = data.clone()
    out = segment_mean(data, weight, group, 2)
    assert torch.equal(data, before)
    assert torch.equal(out, segment_mean(data.contiguous(), weight.contiguous(), group, 2))


def test_many_threads_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    generator = torch.Generator().manual_seed(2)
    data, weight = torch.randn(60, 33, generator=generator), torch.rand(60, generator=generator)
    group = torch.randint(-1, 9, (60,), generator=generator)
    with implementation("native"):
        alone = segment_mean(data, weight, group, 9)
        monkeypatch.setattr("kernels._native.PART", 1)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
        torch.testing.assert_close(
            segment_mean(data, weight, group, 9), alone, rtol=0, atol=0, equal_nan=True
        )


def test_gradients_pass_on_a_cpu() -> None:
    data = torch.ones(3, 2, requires_grad=True)
    total = segment_mean(data, torch.ones(3), torch.tensor([0, 0, 1]), 2).sum()
    [gradient] = torch.autograd.grad(total, data)
    assert gradient.tolist() == [[0.5, 0.5], [0.5, 0.5], [1, 1]]


def test_bad_arguments_fail() -> None:
    data, weight, group = torch.ones(2, 3), torch.ones(2), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"data is torch.float64"):
        segment_mean(data.double(), weight, group, 1)
    with pytest.raises(ValueError, match=r"weight is .*expected float32 \[2\]"):
        segment_mean(data, weight[:1], group, 1)
    with pytest.raises(ValueError, match=r"group is torch.int32"):
        segment_mean(data, weight, group.int(), 1)
    with pytest.raises(ValueError, match=r"allowed are -1 \(dropped\) to 0"):
        segment_mean(data, weight, group + 1, 1)
    with pytest.raises(ValueError, match="num_groups is -1"):
        segment_mean(data, weight, group, -1)
