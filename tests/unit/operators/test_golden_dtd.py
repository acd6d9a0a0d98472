"""DTD against arrays made by other code than ours: see the README beside them."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from operators import Signals, Tokens
from operators.dtd import DTD

from .golden import Arrays, files, folders

VIDEO = 93
"""Id of the placeholders that stand for the video's tokens."""
MERGE = 2


def visual(golden: Arrays) -> Tokens:
    t, h, w = golden["grid"][0].tolist()
    place = torch.cartesian_prod(*(torch.arange(n) for n in (t, h // MERGE, w // MERGE)))
    data = golden["hidden"][0, golden["ids"][0] == VIDEO]
    n, device = len(data), data.device
    return Tokens(
        data=data,
        pos=place.int().to(device),
        size=torch.ones(n, device=device),
        run=torch.ones(n, dtype=torch.int32, device=device),
        offsets=torch.arange(0, n + 1, n // t, device=device),
    )


def change(frames: Tensor, grid: tuple[int, int]) -> Tensor:
    """Signals.change of frames [T', 2, 3, H, W] in [0, 1]: last of a tubelet, first of the one
    before."""
    height, width = grid
    distance = (frames[1:, 1].float() - frames[:-1, 0].float()).abs()
    t, channels, rows, columns = distance.shape
    cut = distance.view(t, channels, height, rows // height, width, columns // width)
    cells = cut.mean(dim=(1, 3, 5))
    first = torch.full((1, height, width), torch.inf, device=frames.device)
    return torch.cat([first, cells]).flatten()


@pytest.mark.parametrize("path", files("dtd"))
def test_golden_dtd(path: Path, device: str) -> None:
    golden = Arrays(path, device)
    tokens = visual(golden)
    text = golden["ids"][0] != VIDEO
    _, h, w = golden["grid"][0].tolist()
    signals = Signals(change=change(golden["frames01"], (h // MERGE, w // MERGE)))
    for key in golden:
        if found := re.fullmatch(r"(feature|pixel)_([\d.]+)_(abs|rel)/keep", key):
            space, threshold, mode = found.groups()
            operator = DTD(threshold=float(threshold), space=space, relative=mode == "rel")  # type: ignore[arg-type]
            result = operator.reduce(tokens, signals)
            keep = text.clone()
            keep[~text] = result.reduction.group >= 0
            assert torch.equal(keep, golden[key]), key
            # Kept ids are those of the whole prompt: dropping renumbers nothing.
            expected = golden["position_ids"][..., keep]
            assert torch.equal(expected, golden[key.replace("keep", "pos")]), key
            assert torch.equal(result.tokens.pos, tokens.pos[keep[~text]]), key
    assert not golden.unread, f"not compared: {sorted(golden.unread)}"


@pytest.mark.parametrize("folder", folders("dtd").values(), ids=folders("dtd"))
def test_golden_dtd_is_complete(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"dtd.npz", "README.md"}
