"""EVS against arrays made by other code than ours: see the README beside them."""

import itertools
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from operators import Result, Tokens
from operators.evs import EVS, retained
from operators.history import look_back, similarity

from .golden import Arrays, files, folders

BF16 = 2**-8
"""Half a step of bf16 just below 1: how far off a cosine is there."""


def video(data: Tensor, golden: Arrays) -> Tokens:
    """Tokens of a whole video; position t, h, w in cells."""
    t, h, w, merge = golden["thw_merge"].tolist()
    place = torch.cartesian_prod(*(torch.arange(n) for n in (t, h // merge, w // merge)))
    n = len(data)
    return Tokens(
        data=data,
        pos=place.int().to(data.device),
        size=torch.ones(n, device=data.device),
        run=torch.ones(n, dtype=torch.int32, device=data.device),
        offsets=torch.arange(0, n + 1, n // t, device=data.device),
    )


def kept(result: Result) -> Tensor:
    return result.reduction.group >= 0


def check_masks(golden: Arrays) -> None:
    tokens = video(golden["emb"], golden)
    for key in golden:
        if found := re.fullmatch(r"mask_q([\d.]+)", key):
            result = EVS(rate=float(found[1])).reduce(tokens)
            assert torch.equal(kept(result), golden[key]), key
            assert torch.equal(result.tokens.pos, tokens.pos[golden[key]]), key


def check_bf16(golden: Arrays) -> None:
    """The official code compares in bf16, ours in fp32: only near the cut may they differ."""
    tokens = video(golden["emb"].bfloat16(), golden)
    before, _ = look_back(tokens, None)
    difference = (1 - similarity(tokens, before)).where(before.known, torch.inf)
    for key in golden:
        if found := re.fullmatch(r"mask_bf16_q([\d.]+)", key):
            ours = kept(EVS(rate=float(found[1])).reduce(tokens))
            differ = ours != golden[key]
            assert ours.sum() == golden[key].sum(), key
            cut = difference[ours].min()
            assert ((difference[differ] - cut).abs() < BF16).all(), key


def check_static(golden: Arrays) -> None:
    """In a still video the official choice is noise; ours is the earliest tokens."""
    tokens = video(golden["static_emb"], golden)
    mask = kept(EVS(rate=0.5).reduce(tokens))
    theirs = golden["static_mask_q0.5"]
    count = int(theirs.sum())
    assert mask[:count].all()
    assert mask.sum() == count
    first = int(tokens.offsets[1])
    assert theirs[:first].all()


def check_counts(golden: Arrays) -> None:
    cells, tubelets, rate, count = golden["count_table"].T
    ours = retained((cells * tubelets).long(), cells.long(), rate)
    assert torch.equal(ours, count.long())


def check_positions(golden: Arrays) -> None:
    """Kept tokens keep their place in the whole grid; a second is two steps of t here."""
    tokens = video(golden["emb"], golden)
    step = torch.tensor([2, 1, 1], device=tokens.pos.device)
    width = int(tokens.pos[:, 2].max()) + 1
    everything, kept_half = golden["mrope_media"], golden["re_video_pos"]
    assert torch.equal(tokens.pos * step, everything[:, :3])
    assert torch.equal(EVS(rate=0.5).reduce(tokens).tokens.pos * step, kept_half[:, :3])
    assert (everything[:, 3] == width).all()

    # Where text goes is the layout's business, not the operator's: here it goes on after the width
    # of what is shown, without regard to its t.
    _, _, image, pad = golden["re_special"].tolist()
    shown = {image: golden["re_image_pos"], pad: kept_half}
    ids, laid_out, base = golden["re_ids"].tolist(), [], 0
    assert torch.equal(golden["re_init"], torch.arange(len(ids)).expand(3, -1).to(step.device))
    for kind, run in itertools.groupby(ids, lambda i: i if i in shown else None):
        length = len(list(run))
        if kind is None:
            laid_out.append(torch.arange(base, base + length).expand(3, -1))
            base += length
        else:
            laid_out.append(base + shown[kind][:, :3].T.cpu())
            base += int(shown[kind][0, 3])
    expected = golden["re_pos"].cpu()
    assert torch.equal(torch.cat(laid_out, dim=1), expected)
    assert golden["re_delta"] == expected.max() + 1 - len(ids)


@pytest.mark.parametrize("path", files("evs"))
def test_golden_evs(path: Path, device: str) -> None:
    golden = Arrays(path, device)
    check_masks(golden)
    check_bf16(golden)
    check_static(golden)
    check_counts(golden)
    check_positions(golden)
    assert not golden.unread, f"not compared: {sorted(golden.unread)}"


@pytest.mark.parametrize("folder", folders("evs").values(), ids=folders("evs"))
def test_golden_evs_is_complete(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"evs.npz", "README.md"}
