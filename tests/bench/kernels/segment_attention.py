"""Attention inside the segments of packed patches: in a loop, and all at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kernels import segment_attention
from streamer.vision.attention import flex, varlen
from tests.bench.kernels.harness import Case, Way
from tests.bench.kernels.implementations import implementations

HEADS, CHANNELS = 16, 64
"""Of Qwen3-VL-2B's vision tower."""
SCALE = CHANNELS**-0.5


def straightforward(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, size: Tensor | None
) -> Tensor:
    """As transformers does it: one call per segment."""
    bias = None if size is None else size.log().to(q.dtype)
    out = []
    for start, end in pairwise(offsets.tolist()):
        queries, keys, values = (x[None, start:end].transpose(1, 2) for x in (q, k, v))
        mask = None if bias is None else bias[None, None, None, start:end]
        mixed = scaled_dot_product_attention(queries, keys, values, mask, scale=SCALE)
        out.append(mixed[0].transpose(0, 1))
    return torch.cat(out)


def cases(device: str) -> Iterator[Case]:
    streams, large = (8, 1) if device == "cpu" else (64, 16)
    yield case("8 × 196", [196] * 8, device)
    yield case(f"{2 * streams} × 784", [784] * (2 * streams), device)
    kept = torch.randint(1, 157, (128,), generator=torch.Generator().manual_seed(0)).tolist()
    yield case("128 × 1 – 156", kept, device)
    yield case("128 × 1 – 156, with sizes", kept, device, sized=True)
    if device != "cpu":
        yield case(f"{2 * large} × 8160", [8160] * (2 * large), device)


def case(scenario: str, lengths: list[int], device: str, *, sized: bool = False) -> Case:
    generator = torch.Generator(device).manual_seed(0)
    n, longest = sum(lengths), max(lengths)
    qkv = torch.randn(n, 3, HEADS, CHANNELS, generator=generator, device=device)
    q, k, v = (qkv if device == "cpu" else qkv.bfloat16()).unbind(1)
    offsets = torch.tensor([0, *lengths], device=device).cumsum(0, dtype=torch.int32)
    size = torch.rand(n, generator=generator, device=device) * 7 + 1 if sized else None

    ways: dict[str, Way] = {
        "straightforward": lambda: straightforward(q, k, v, offsets, size),
        **implementations(
            lambda: segment_attention(q, k, v, offsets, size=size), device, native=False
        ),
    }
    if device != "cpu" and not sized:
        ways["varlen"] = lambda: varlen(q, k, v, offsets, longest, SCALE)
        ways["flex"] = lambda: flex(q, k, v, offsets, longest, SCALE)
    return Case(
        kernel="segment_attention",
        scenario=scenario,
        ways=ways,
        bytes_moved=4 * q.nbytes,
        agree=same_values,
    )


def same_values(results: Mapping[str, object]) -> None:
    expected = results["straightforward"]
    assert isinstance(expected, Tensor)
    # fp32 sums in another order; in bf16 shares and results are rounded, here and there
    atol = 1e-5 if expected.dtype == torch.float32 else 3e-2
    for result in results.values():
        torch.testing.assert_close(result, expected, rtol=0, atol=atol)
