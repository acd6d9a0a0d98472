"""PruMerge and PruMerge+ against arrays made by other code: see the README beside them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from operators import Reduction, Signals, Tokens, apply
from operators.prumerge import PruMerge, leaders, merging, outliers, spread

from .golden import Arrays, files, folders

NEIGHBORS = 32


def attended(golden: Arrays) -> Tensor:
    """`[B, N]`: the [CLS] token's attention to each patch, one head of the whole width."""
    query, key = golden["in.q"], golden["in.k"]
    logits = query[:, :1] @ key.transpose(1, 2) * query.shape[2] ** -0.5
    received: Tensor = logits.softmax(dim=2)[:, 0, 1:]
    return received


def packed(features: Tensor) -> Tokens:
    """A segment for each of `[B, N, D]`."""
    b, n, _ = features.shape
    pos = torch.zeros(b * n, 3, dtype=torch.int32, device=features.device)
    pos[:, 2] = torch.arange(n).repeat(b)
    return Tokens(
        data=features.flatten(0, 1),
        pos=pos,
        size=torch.ones(b * n, device=features.device),
        run=torch.ones(b * n, dtype=torch.int32, device=features.device),
        offsets=torch.arange(0, b * n + 1, n, device=features.device),
    )


def reduced(golden: Arrays, operator: PruMerge) -> Tensor:
    """By the operator itself: [B, M, D]."""
    keys = golden["in.k"][:, 1:]
    signals = Signals(attention=attended(golden).flatten(), keys=keys.flatten(0, 1))
    tokens = operator.reduce(packed(golden["in.features"]), signals).tokens
    return tokens.data.view(len(keys), -1, tokens.data.shape[1])


def merged(golden: Arrays, entries: list[Tensor], rest: list[Tensor]) -> Tensor:
    """From entries and left-over tokens of each image, which the operator would not choose so."""
    out = []
    for i, (attention, keys) in enumerate(zip(attended(golden), golden["in.k"], strict=True)):
        tokens = packed(golden["in.features"][i : i + 1])
        mixing = merging(attention, keys[1:], entries[i], rest[i], NEIGHBORS)
        m = len(entries[i]) + 1
        plan = Reduction(
            group=torch.arange(tokens.num_tokens, device=keys.device).clamp(max=m - 1),
            weight=tokens.size,
            offsets=torch.tensor([0, m], device=keys.device),
            mixing=mixing,
        )
        out.append(apply(tokens, Signals(), plan)[0].data)
    return torch.stack(out)


def shared_budget(golden: Arrays) -> Tensor:
    """The official adaptive code counts what stands out in all images together."""
    attention = attended(golden)
    count = int(attention.shape[1] * (outliers(attention) / attention.numel()))
    entries = [leaders(row, count) for row in attention]
    return merged(golden, entries, [_others(kept, attention.shape[1]) for kept in entries])


def doubled(golden: Arrays, ratio: float) -> Tensor:
    """The official fixed PruMerge+: what is among the leaders and evenly spaced comes twice, and as
    many of the left-over tokens, the first ones, are lost."""
    attention = attended(golden)
    n = attention.shape[1]
    spaced = spread(n, int(1 / ratio), adaptive=False).to(attention.device)
    entries = [torch.cat([leaders(row, int(n * ratio)), spaced]) for row in attention]
    rest = [_others(kept, n)[len(kept) - len(set(kept.tolist())) :] for kept in entries]
    return merged(golden, entries, rest)


def _others(kept: Tensor, n: int) -> Tensor:
    places = torch.arange(n, device=kept.device)
    return places[~torch.isin(places, kept)]


@pytest.mark.parametrize("path", files("prumerge"))
def test_golden_prumerge(path: Path, device: str) -> None:
    golden = Arrays(path, device)
    told = golden.metadata
    plus, images = told["plus"] == "1", len(golden["in.features"])
    ratio = None if told["adaptive"] == "True" else float(told["reduction_ratio"])
    attention = attended(golden)
    torch.testing.assert_close(attention, golden["out.cls_attn"], rtol=1e-5, atol=1e-7)
    if ratio is None:
        assert outliers(attention) / attention.numel() == float(told["iqr_ratio"])
    if plus and ratio is not None:
        actual = doubled(golden, ratio)
    elif ratio is None and images > 1:
        actual = shared_budget(golden)
    else:
        actual = reduced(golden, PruMerge(plus=plus, ratio=ratio))
    torch.testing.assert_close(actual, golden["out.y"], rtol=0, atol=1e-5)  # the README's
    assert not golden.unread, f"not compared: {sorted(golden.unread)}"


@pytest.mark.parametrize("folder", folders("prumerge").values(), ids=folders("prumerge"))
def test_golden_prumerge_is_complete(folder: Path) -> None:
    variants = {"prumerge_adaptive", "prumerge_adaptive_b2", "prumerge_fixed8"}
    variants |= {"plus_adaptive", "plus_fixed8"}
    expected = {f"{name}.safetensors" for name in variants}
    assert {path.name for path in folder.iterdir()} == {*expected, "README.md"}
