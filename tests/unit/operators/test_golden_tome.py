"""ToMe against arrays made by other code than ours: see the README beside them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kernels import bipartite_match, segment_mean

from .golden import Arrays, files, folders
from .vit import attention, depth, linear, mlp, norm

HEADS = 4
PATCH = 4


@dataclass(frozen=True, kw_only=True)
class Merge:
    """One merge of a batch [B, T, ...] into [B, T', ...], in the official order of outputs."""

    group: Tensor  # [B, T], slot of each token in its row
    kept: int  # T'

    def mean(self, x: Tensor, weight: Tensor) -> Tensor:
        """x [B, T, C], weight [B, T] -> [B, T', C]"""
        rows = torch.arange(x.shape[0], device=x.device)[:, None] * self.kept
        flat = (rows + self.group).flatten()
        out = segment_mean(x.flatten(0, 1), weight.flatten(), flat, len(x) * self.kept)
        return out.view(len(x), self.kept, -1)

    def sum(self, x: Tensor) -> Tensor:
        """x [B, T, C] -> [B, T', C]"""
        out = x.new_zeros(x.shape[0], self.kept, x.shape[2])
        return out.scatter_add(1, self.group[..., None].expand_as(x), x)

    def source(self) -> Tensor:
        """[B, T', T], 1 where a token went into a slot"""
        slots = torch.arange(self.kept, device=self.group.device)
        return (self.group[:, None, :] == slots[None, :, None]).float()

    def unmerge(self, y: Tensor) -> Tensor:
        """y [B, T', C] -> [B, T, C]"""
        return y.gather(1, self.group[..., None].expand(-1, -1, y.shape[2]))


def merge(
    metric: Tensor,
    r: int,
    *,
    cls: bool = False,
    distill: bool = False,
    swap: bool | None = None,
) -> Merge:
    """Plan with our kernel. `swap` puts the distillation token second; default: as there is one."""
    swap = distill if swap is None else swap
    b, t, d = metric.shape
    offsets = torch.arange(0, b * t + 1, t, device=metric.device)
    match = bipartite_match(
        metric.reshape(b * t, d),
        offsets,
        torch.full((b,), r, device=metric.device),
        protect_first=cls,
        protect_second=distill,
    )
    target = match.target.view(b, t) - offsets[:-1, None]
    score = match.score.view(b, t)
    groups = []
    for row in range(b):
        slots = official_order(target[row], score[row], cls=cls, swap=swap)
        slot_of = torch.full((t,), -1, device=metric.device)
        slot_of[slots] = torch.arange(len(slots), device=metric.device)
        groups.append(slot_of[target[row]])
    return Merge(group=torch.stack(groups), kept=len(slots))


def official_order(target: Tensor, score: Tensor, *, cls: bool, swap: bool) -> Tensor:
    """Places of the tokens that stay: A by falling score (with CLS by place), then B."""
    places = torch.arange(len(target), device=target.device)
    stays = target == places
    a, b = places[stays & (places % 2 == 0)], places[places % 2 == 1]
    if not cls:
        a = a[score[a].argsort(descending=True, stable=True)]
    if swap:
        return torch.cat([a[:1], b[:1], a[1:], b[1:]])
    return torch.cat([a, b])


def kth_merge(metric: Tensor, k: int) -> Merge:
    """The official variant that the product does not use: every k-th token takes in the others."""
    t = metric.shape[1] // k * k  # the remainder is dropped
    unit = metric[:, :t] / metric[:, :t].norm(dim=-1, keepdim=True)
    places = torch.arange(t, device=metric.device)
    taker = places % k == k - 1
    best = (unit @ unit[:, taker].transpose(1, 2)).argmax(dim=-1)
    return Merge(group=torch.where(taker, places // k, best), kept=t // k)


def schedule(layers: int, r: int | list[int] | tuple[int, float]) -> list[int]:
    """Tokens to remove in each layer, as the official `parse_r`."""
    if isinstance(r, list):
        return r + [0] * (layers - len(r))
    most, inflect = r if isinstance(r, tuple) else (r, 0.0)
    first = int(most * (1 - inflect))
    step = (2 * most - first - first) / (layers - 1)
    return [int(first + step * i) for i in range(layers)]


SCHEDULES: list[tuple[int, int | list[int] | tuple[int, float]]] = [
    (12, 16),
    (12, (16, -1)),
    (24, (8, 1)),
    (12, (13, 0.5)),
    (4, [3, 2]),
]


def close(actual: Tensor, expected: Tensor) -> None:
    # fp32 means of a few rows, summed in another order
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


def check_case(golden: Arrays, case: str) -> None:
    x, size = golden[f"{case}/x"], golden[f"{case}/size"]
    r, cls, distill = golden[f"{case}/r_cls_dist"].tolist()
    plan = merge(golden[f"{case}/metric"], r, cls=bool(cls), distill=bool(distill))
    one = torch.ones_like(size)
    close(plan.mean(x, one[..., 0]), golden[f"{case}/merge_mean"])
    close(plan.sum(x), golden[f"{case}/merge_sum"])
    close(plan.mean(x, size[..., 0]), golden[f"{case}/wavg_x"])
    assert torch.equal(plan.sum(size), golden[f"{case}/wavg_size"])
    unsized = plan.mean(x, one[..., 0])
    close(unsized, golden[f"{case}/wavg_x_nosize"])
    assert torch.equal(plan.sum(one), golden[f"{case}/wavg_size_nosize"])
    assert torch.equal(plan.source(), golden[f"{case}/source"])
    # A defect of the official unmerge: it reads slots as [A, B] even where the distillation token
    # was put second, and so hands back wrong rows in that case.
    straight = merge(golden[f"{case}/metric"], r, cls=bool(cls), distill=bool(distill), swap=False)
    close(straight.unmerge(unsized), golden[f"{case}/unmerge_of_wavg"])


def check_matching(golden: Arrays) -> None:
    for case in sorted({key.split("/")[0] for key in golden}):
        if case == "kth3":
            x = golden["kth3/x"]
            plan = kth_merge(golden["kth3/metric"], 3)
            x = x[:, : plan.group.shape[1]]
            close(plan.mean(x, torch.ones_like(x[..., 0])), golden["kth3/merge_mean"])
        elif case == "parse_r":
            for i, (layers, r) in enumerate(SCHEDULES):
                assert schedule(layers, r) == golden[f"parse_r/{i}"].tolist()
        else:
            check_case(golden, case)


@dataclass(frozen=True, kw_only=True)
class Output:
    logits: Tensor  # [B, classes]
    size: Tensor  # [B, T', 1]
    source: Tensor  # [B, T', T]


def encode(images: Tensor, weights: Mapping[str, Tensor], r: int, *, proportional: bool) -> Output:
    b, channels, height, width = images.shape
    cut = images.view(b, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # [B, T-1, 3*p*p]
    x = patches @ weights["patch_embed.proj.weight"].flatten(1).T
    x = x + weights["patch_embed.proj.bias"]
    x = torch.cat([weights["cls_token"].expand(b, 1, -1), x], dim=1) + weights["pos_embed"]
    size = torch.ones_like(x[..., :1])
    source = torch.eye(x.shape[1], device=x.device).expand(b, -1, -1)
    for block in range(depth(weights)):
        clip = torch.arange(b, device=x.device).repeat_interleave(x.shape[1])
        flat, key = attention(
            x.flatten(0, 1),
            clip,
            weights,
            block,
            heads=HEADS,
            log_size=size.flatten().log() if proportional else None,
        )
        x = flat.view_as(x)
        if r:
            plan = merge(key.view(*x.shape[:2], -1), r, cls=True)
            x, size, source = plan.mean(x, size[..., 0]), plan.sum(size), plan.sum(source)
        x = mlp(x.flatten(0, 1), weights, block).view_as(x)
    logits = linear(norm(x, weights, "norm")[:, 0], weights, "head")
    return Output(logits=logits, size=size, source=source)


def check_vit(golden: Arrays, weights: Arrays) -> None:
    def assert_logits(output: Output, key: str) -> None:
        # three fp32 blocks, summed in another order
        torch.testing.assert_close(output.logits, golden[key], rtol=1e-5, atol=1e-5)

    x = golden["x"]
    assert_logits(encode(x, weights, 0, proportional=False), "logits_base")
    plain = encode(x, weights, 8, proportional=False)
    assert_logits(plain, "logits_tome_r8_noprop")
    final = encode(x, weights, 8, proportional=True)
    assert_logits(final, "logits_tome_r8_prop")
    assert torch.equal(final.size, golden["final_size"])
    assert torch.equal(final.source, golden["final_source"].float())
    assert (final.size.sum(dim=1) == weights["pos_embed"].shape[1]).all()


HANDLERS: dict[str, Callable[[Arrays], None]] = {
    "matching.npz": check_matching,
    "tiny_vit.safetensors": lambda golden: check_vit(golden.sibling("tiny_vit_io.npz"), golden),
    "tiny_vit_io.npz": lambda golden: check_vit(golden, golden.sibling("tiny_vit.safetensors")),
}


@pytest.mark.parametrize("path", files("tome"))
def test_golden_tome(path: Path, device: str) -> None:
    assert path.name in HANDLERS, f"nothing compares {path.name}: add a handler"
    golden = Arrays(path, device)
    HANDLERS[path.name](golden)
    assert not golden.unread, f"not compared: {sorted(golden.unread)}"


@pytest.mark.parametrize("folder", folders("tome").values(), ids=folders("tome"))
def test_golden_tome_is_complete(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {*HANDLERS, "README.md"}
