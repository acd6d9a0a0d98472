"""Operators after the encoder and inside the LLM, against the way their authors write them.

Theirs give features alone; ours positions, sizes, runs and the state for the next chunk too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from operators import Signals, TokenOperator, Tokens
from operators.dtd import DTD
from operators.evs import EVS
from operators.fastv import FastV
from operators.prumerge import PruMerge
from operators.tome import ToMe
from tests.bench.kernels.harness import Case

TUBELETS = 2
SIZES = (((14, 14), 1024), ((34, 60), 2048))
"""Cells and channels: a picture of 448² and one of 1080p."""
NEIGHBORS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """A chunk of video as tokens: about half of its cells change."""

    data: Tensor
    """(T, n, D) fp32."""
    query: Tensor
    """(T, 1 + n, D) fp32, of the encoder's last block; the first row is a [CLS] token's."""
    key: Tensor
    """The same of its keys."""
    tokens: Tokens

    @property
    def attention(self) -> Tensor:
        """(T·n,): from the [CLS] token."""
        logits = self.query[:, :1] @ self.key.mT * self.key.shape[2] ** -0.5
        received: Tensor = logits.softmax(dim=2)[:, 0, 1:].flatten()
        return received


def video(grid: tuple[int, int], channels: int, device: str) -> Video:
    generator = torch.Generator(device).manual_seed(0)
    n = grid[0] * grid[1]

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    changes = noise(TUBELETS, n, 1) > 0
    data = (noise(1, n, channels) + noise(TUBELETS, n, channels) * (0.1 + 2 * changes)).contiguous()
    places = (torch.arange(size, device=device) for size in (TUBELETS, *grid))
    total = TUBELETS * n
    return Video(
        data=data,
        query=noise(TUBELETS, 1 + n, channels),
        key=noise(TUBELETS, 1 + n, channels),
        tokens=Tokens(
            data=data.flatten(0, 1),
            pos=torch.cartesian_prod(*places).int(),
            size=torch.ones(total, device=device),
            run=torch.ones(total, dtype=torch.int32, device=device),
            offsets=torch.arange(0, total + 1, n, device=device),
        ),
    )


def evs(given: Video, rate: float) -> Tensor:
    t, n, d = given.data.shape
    similarity = F.cosine_similarity(given.data[1:], given.data[:-1], dim=-1)
    difference = torch.cat([torch.full_like(similarity[:1], 255), 1 - similarity]).flatten()
    kept = max(n, int(t * n * (1 - rate)))
    order = difference.argsort(descending=True, stable=True)
    mask = torch.zeros_like(difference, dtype=torch.bool)
    mask[order[:kept]] = True
    return given.data.view(-1, d)[mask]


def dtd(given: Video, threshold: float) -> Tensor:
    similarity = F.cosine_similarity(given.data[1:], given.data[:-1], dim=-1)
    keep = torch.cat([torch.ones_like(similarity[:1], dtype=torch.bool), similarity <= threshold])
    return given.data[keep]


def prumerge(given: Video) -> Tensor:
    out = []
    for data, query, key in zip(given.data, given.query, given.key, strict=True):
        everything = (query @ key.T * key.shape[1] ** -0.5).softmax(dim=1)
        attention, unit = everything[0, 1:], F.normalize(key[1:], dim=1)
        low, high = (attention.quantile(q) for q in (0.25, 0.75))
        count = int((attention > high + 1.5 * (high - low)).sum())
        kept = attention.topk(count).indices
        places = torch.arange(len(data), device=data.device)
        rest = places[~torch.isin(places, kept)]
        for i in range(count):
            others = torch.cat([kept[:i], kept[i + 1 :], rest])
            near = others[(unit[kept[i]] @ unit[others].T).topk(NEIGHBORS).indices]
            out.append(data[kept[i]] + (attention[near, None] * data[near]).sum(0))
        out.append((attention[rest, None] * data[rest]).sum(0))
    return torch.stack(out)


def tome(given: Video, keep: float) -> Tensor:
    x = given.data
    _, n, d = x.shape
    r = n - round(n * keep)
    unit = x / x.norm(dim=-1, keepdim=True)
    scores = unit[:, ::2] @ unit[:, 1::2].mT
    best, partner = scores.max(dim=-1)
    order = best.argsort(dim=-1, descending=True)[..., None]
    stays, goes = order[:, r:], order[:, :r]
    into = partner[..., None].gather(1, goes).expand(-1, -1, d)
    a, b = x[:, ::2], x[:, 1::2]
    merged = b.scatter_reduce(1, into, a.gather(1, goes.expand(-1, -1, d)), "mean")
    return torch.cat([a.gather(1, stays.expand(-1, -1, d)), merged], dim=1).flatten(0, 1)


def fastv(given: Video, attention: Tensor, drop: float) -> Tensor:
    hidden = given.data.flatten(0, 1)
    kept = attention.topk(round(len(hidden) * (1 - drop))).indices.sort().values
    return hidden.gather(0, kept[:, None].expand(-1, hidden.shape[1]))


def reduced(operator: TokenOperator, tokens: Tokens, signals: Signals) -> Tensor:
    return operator.reduce(tokens, signals).tokens.data


def attended(operator: TokenOperator, given: Video) -> Tensor:
    """With the attention it needs, which is part of the method's work."""
    keys = given.key[:, 1:].flatten(0, 1)
    return reduced(operator, given.tokens, Signals(attention=given.attention, keys=keys))


def cases(device: str) -> Iterator[Case]:
    for grid, channels in SIZES:
        made = video(grid, channels, device)
        tokens, read = made.tokens, made.data.nbytes
        received = Signals(attention=made.attention)
        context = replace(tokens, offsets=tokens.offsets[[0, -1]])  # one segment, in the LLM
        ways: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor], int]] = {
            "evs": (partial(evs, made, 0.5), partial(reduced, EVS(), tokens, Signals()), read),
            "dtd": (partial(dtd, made, 0.5), partial(reduced, DTD(), tokens, Signals()), read),
            "prumerge": (partial(prumerge, made), partial(attended, PruMerge(), made), 2 * read),
            "tome": (partial(tome, made, 0.5), partial(reduced, ToMe(), tokens, Signals()), read),
            "fastv": (
                partial(fastv, made, made.attention, 0.5),
                partial(reduced, FastV(), context, received),
                read // 2,
            ),
        }
        for name, (straightforward, ours, once) in ways.items():
            yield Case(
                kernel=name,
                scenario=f"{TUBELETS} × {grid[0] * grid[1]} × {channels}",
                ways={"straightforward": straightforward, "ours": ours},
                bytes_moved=once + straightforward().nbytes,
                agree=_same_tokens,
            )


def _same_tokens(results: Mapping[str, object]) -> None:
    """The same rows; ToMe's authors give them in another order. Sums are taken in another order."""
    theirs, ours = (_ordered(result) for result in results.values())
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def _ordered(result: object) -> Tensor:
    assert isinstance(result, Tensor)
    return result[result[:, 0].argsort()]
