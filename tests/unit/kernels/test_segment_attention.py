import os
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from kernels import implementation, segment_attention

# One rounding of the result, and in Triton one of each share, to the dtype; fp32: sums in
# another order.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def borders(lengths: list[int], device: str) -> Tensor:
    return torch.tensor([0, *lengths], device=device).cumsum(0)


def random(n: int, heads: int, channels: int, *, seed: int, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, heads, channels, generator=generator).to(device)


def attend(qkv: Iterable[Tensor], offsets: Tensor) -> Tensor:
    q, k, v = qkv
    return segment_attention(q, k, v, offsets)


def test_two_segments_by_hand(device: str) -> None:
    # Token 0 is alone; 1 and 2 see each other with logits ln 3 and 0, so 3/4 and 1/4.
    q = torch.tensor([5.0, 1.0, 1.0], device=device).view(3, 1, 1)
    k = torch.tensor([2.0, 3.0, 1.0], device=device).log().view(3, 1, 1)
    v = torch.tensor([7.0, 4.0, 8.0], device=device).view(3, 1, 1)
    offsets = borders([1, 2], device)
    out = segment_attention(q, k, v, offsets, scale=1.0)
    # fp32 rounding of an exponential
    assert out.flatten().tolist() == pytest.approx([7.0, 5.0, 5.0], rel=1e-6)
    # With sizes 1 and 3 the shares are 3 : 3.
    size = torch.tensor([9.0, 1.0, 3.0], device=device)
    sized = segment_attention(q, k, v, offsets, size=size, scale=1.0)
    assert sized.flatten().tolist() == pytest.approx([7.0, 6.0, 6.0], rel=1e-6)


@pytest.mark.parametrize("lengths", [[1], [33, 64], [0, 5, 0, 1, 130, 2, 0]], ids=str)
@pytest.mark.parametrize("channels", [16, 32, 72, 128], ids="D{}".format)
def test_equals_dense_fp64(device: str, lengths: list[int], channels: int) -> None:
    n = sum(lengths)
    q, k, v = (random(n, 2, channels, seed=seed, device=device) for seed in range(3))
    size = torch.rand(n, generator=torch.Generator().manual_seed(4)) * 8 + 0.5
    offsets = borders(lengths, device)
    segment = torch.repeat_interleave(torch.tensor(lengths))
    apart = segment[:, None] != segment[None, :]
    for sizes in (None, size):
        logits = torch.einsum("nhd,mhd->hnm", q.cpu().double(), k.cpu().double())
        logits = logits * channels**-0.5 + (0.0 if sizes is None else sizes.double().log())
        shares = logits.masked_fill(apart, -torch.inf).softmax(-1)
        expected = torch.einsum("hnm,mhd->nhd", shares, v.cpu().double())
        out = segment_attention(
            q, k, v, offsets, size=None if sizes is None else sizes.to(device)
        ).cpu()
        torch.testing.assert_close(out.double(), expected, rtol=0, atol=TOLERANCE[out.dtype])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shared", [1, 2, 4], ids="K{}".format)
def test_grouped_heads_and_low_precision(device: str, dtype: torch.dtype, shared: int) -> None:
    if dtype is torch.bfloat16 and os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16 as integers")
    lengths = [70, 0, 3]
    q = random(73, 4, 32, seed=0, device=device).to(dtype)
    k, v = (random(73, shared, 32, seed=seed, device=device).to(dtype) for seed in (1, 2))
    out = segment_attention(q, k, v, borders(lengths, device))
    assert out.dtype == dtype
    with implementation("reference"):
        wide = [x.float().cpu().repeat_interleave(4 // x.shape[1], dim=1) for x in (q, k, v)]
        expected = segment_attention(wide[0], wide[1], wide[2], borders(lengths, "cpu"))
    torch.testing.assert_close(out.float().cpu(), expected, rtol=0, atol=TOLERANCE[dtype])


def test_a_key_of_size_n_counts_as_n_equal_keys(device: str) -> None:
    q, k, v = (random(5, 2, 16, seed=seed, device=device) for seed in range(3))
    size = torch.tensor([1.0, 3.0, 1.0, 2.0, 1.0], device=device)
    repeats = size.long()
    merged = segment_attention(q, k, v, borders([5], device), size=size)
    spread = attend((x.repeat_interleave(repeats, dim=0) for x in (q, k, v)), borders([8], device))
    torch.testing.assert_close(
        merged.repeat_interleave(repeats, dim=0), spread, rtol=0, atol=TOLERANCE[torch.float32]
    )


def test_segment_alone_equals_it_in_a_batch(device: str) -> None:
    q, k, v = (random(90, 2, 32, seed=seed, device=device) for seed in range(3))
    together = segment_attention(q, k, v, borders([17, 73], device))
    alone = segment_attention(q[17:], k[17:], v[17:], borders([73], device))
    assert torch.equal(together[17:], alone)


def test_views_of_one_projection_are_read_in_place(device: str) -> None:
    qkv = random(40, 6, 16, seed=0, device=device).view(40, 3, 2, 16)
    before = qkv.clone()
    offsets = borders([40], device).int()
    out = attend(qkv.unbind(1), offsets)
    assert torch.equal(qkv, before)
    assert torch.equal(out, attend((x.contiguous() for x in qkv.unbind(1)), offsets))
    sparse = attend((x[:, :, ::2] for x in qkv.unbind(1)), offsets)
    tight = attend((x[:, :, ::2].contiguous() for x in qkv.unbind(1)), offsets)
    torch.testing.assert_close(sparse, tight, rtol=0, atol=TOLERANCE[torch.float32])


def test_large_logits_do_not_overflow(device: str) -> None:
    q = torch.full((3, 1, 16), 1e4, device=device)
    k = torch.stack([q[0], -q[0], q[0]])
    v = torch.arange(3.0, device=device)[:, None, None].expand(3, 1, 16)
    out = segment_attention(q, k, v, borders([3], device))
    assert torch.equal(out, torch.ones_like(out))


def test_nan_stays_in_its_segment(device: str) -> None:
    q, k, v = (random(9, 1, 16, seed=seed, device=device) for seed in range(3))
    k[0] = torch.nan
    out = segment_attention(q, k, v, borders([4, 5], device))
    assert out[:4].isnan().all()
    assert out[4:].isfinite().all()


def test_nothing_in_nothing_out(device: str) -> None:
    none = torch.zeros(0, 2, 16, device=device)
    assert segment_attention(none, none, none, borders([], device)).shape == (0, 2, 16)
    assert segment_attention(none, none, none, borders([0, 0], device)).shape == (0, 2, 16)


def test_bad_arguments_fail() -> None:
    q, offsets = torch.ones(4, 2, 16), torch.tensor([0, 4])
    with pytest.raises(ValueError, match=r"q is torch.float64"):
        segment_attention(q.double(), q, q, offsets)
    with pytest.raises(ValueError, match=r"D from 1 to 128"):
        attend([torch.ones(4, 2, 129)] * 3, offsets)
    with pytest.raises(ValueError, match=r"v is .*K a divisor of 2"):
        segment_attention(q, q, q[:, :1], offsets)
    with pytest.raises(ValueError, match=r"k is torch.float16"):
        segment_attention(q, q.half(), q.half(), offsets)
    with pytest.raises(ValueError, match=r"offsets are torch.float32"):
        segment_attention(q, q, q, offsets.float())
    with pytest.raises(ValueError, match=r"must run from 0 to 4"):
        segment_attention(q, q, q, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"size is .*expected float32 \[4\]"):
        segment_attention(q, q, q, offsets, size=torch.ones(3))
    with pytest.raises(ValueError, match=r"size has 0.0; every size must be above 0"):
        segment_attention(q, q, q, offsets, size=torch.zeros(4))
