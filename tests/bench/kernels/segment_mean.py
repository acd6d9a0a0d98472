"""segment_mean beside a gather where tokens are dropped, a scatter where they merge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from kernels import segment_mean
from tests.bench.kernels.harness import Case, Way
from tests.bench.kernels.implementations import implementations
from tests.bench.kernels.packed import Size, sizes


def scattered(data: Tensor, weight: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Weighted sums by an index as wide as the rows, over the sums of the weights."""
    wide = group[:, None].expand_as(data)
    sums = data.new_zeros(num_groups, data.shape[1]).scatter_add(0, wide, data * weight[:, None])
    return sums / weight.new_zeros(num_groups).scatter_add(0, group, weight)[:, None]


def cases(device: str) -> Iterator[Case]:
    for size in sizes(device):
        yield dropped(size, device)
        yield merged(size, device)


def dropped(size: Size, device: str) -> Case:
    data = size.features(device)
    place = torch.arange(len(data), device=device)
    group = torch.where(place % 4 == 0, place // 4, -1)
    return Case(
        kernel="segment_mean",
        scenario=f"a fourth of {size.title} kept",
        ways={"straightforward": lambda: data[group >= 0], **means(data, group, device)},
        bytes_moved=data.nbytes // 2,
        agree=same_means,
    )


def merged(size: Size, device: str) -> Case:
    data = size.features(device)
    weight, group = weights(data), torch.arange(len(data), device=device) // 2
    return Case(
        kernel="segment_mean",
        scenario=f"pairs of {size.title} merged",
        ways={
            "straightforward": lambda: scattered(data, weight, group, len(data) // 2),
            **means(data, group, device),
        },
        bytes_moved=data.nbytes * 3 // 2,
        agree=same_means,
    )


def weights(data: Tensor) -> Tensor:
    return (1 + torch.arange(len(data), device=data.device) % 3).float()


def means(data: Tensor, group: Tensor, device: str) -> dict[str, Way]:
    weight, num_groups = weights(data), int(group.max()) + 1
    return implementations(lambda: segment_mean(data, weight, group, num_groups), device)


def same_means(results: Mapping[str, object]) -> None:
    expected = results["straightforward"]
    for result in results.values():
        # shares before the sum or after it: two roundings in fp32
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
