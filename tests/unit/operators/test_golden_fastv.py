"""FastV inside a tiny Llama, against arrays made by other code: see the README beside them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from operators import Signals, Tokens
from operators.fastv import FastV

from .golden import Arrays, files, folders
from .llama import depth, layer, rms_norm

BASELINE = "baseline.safetensors"


def run(weights: Arrays, *, start: int = 0, stop: int | None = None) -> tuple[Tensor, list[Tensor]]:
    """Hidden states `[L, D]` after layers start .. stop - 1 of the embeddings, and attentions."""
    x, attentions = weights["in.inputs_embeds"][0], []
    position = torch.arange(len(x), device=x.device)
    for index in range(start, depth(weights) if stop is None else stop):
        x, attention = layer(x, position, weights, index, heads=int(weights.metadata["heads"]))
        attentions.append(attention)
    return x, attentions


def finished(
    x: Tensor, position: Tensor, weights: Arrays, start: int, hidden: Tensor | None = None
) -> Tensor:
    """The rest of the layers, from `start`, and the final norm."""
    for index in range(start, depth(weights)):
        heads = int(weights.metadata["heads"])
        x, _ = layer(x, position, weights, index, heads=heads, hidden=hidden)
    return rms_norm(x, weights["param.norm.weight"])


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)  # the README's


def check_baseline(golden: Arrays) -> None:
    x, attentions = run(golden)
    for index in (0, 1):
        close(attentions[index], golden[f"out.attn_l{index}"][0])
    close(rms_norm(x, golden["param.norm.weight"]), golden["out.last_hidden"][0])


def check_reduced(golden: Arrays) -> None:
    weights = golden.sibling(BASELINE)
    system, visual, keep, before = (int(golden.metadata[k]) for k in ("sys", "img", "keep", "K"))
    x, attentions = run(weights, stop=before)
    span = slice(system, system + visual)
    place = torch.arange(len(x), device=x.device)
    pos = torch.zeros(visual, 3, dtype=torch.int32, device=x.device)
    pos[:, 0] = place[span]
    result = FastV(layer=before, drop=1 - keep / visual).reduce(
        Tokens(
            data=x[span],
            pos=pos,
            size=torch.ones(visual, device=x.device),
            run=torch.ones(visual, dtype=torch.int32, device=x.device),
            offsets=torch.tensor([0, visual], device=x.device),
        ),
        Signals(attention=attentions[-1][:, -1, span].mean(dim=0)),
    )
    left = torch.cat([x[:system], result.tokens.data, x[system + visual :]])
    kept = torch.cat([place[:system], result.tokens.pos[:, 0], place[system + visual :]])
    assert torch.equal(kept, golden["out.keep_idx"].long())
    close(finished(left, kept, weights, before), golden["out.last_hidden"][0])

    hidden = torch.ones(len(x), dtype=torch.bool, device=x.device)
    hidden[kept] = False
    masked = finished(x, place, weights, before, hidden)
    close(masked, golden["out.masked_last_hidden"][0])
    close(finished(left, kept, weights, before), masked[kept])  # dropping equals hiding


@pytest.mark.parametrize("path", files("fastv"))
def test_golden_fastv(path: Path, device: str) -> None:
    golden = Arrays(path, device)
    if path.name == BASELINE:
        check_baseline(golden)
    else:
        check_reduced(golden)
    assert not golden.unread, f"not compared: {sorted(golden.unread)}"


@pytest.mark.parametrize("folder", folders("fastv").values(), ids=folders("fastv"))
def test_golden_fastv_is_complete(folder: Path) -> None:
    found = {path.name for path in folder.iterdir()}
    assert {BASELINE, "README.md"} < found
    assert len(found) >= 5  # two layers at least, and one that keeps all
