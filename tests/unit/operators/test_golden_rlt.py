"""RLT against arrays made by other code than ours: see the README beside them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kernels import run_length
from operators import RLT

from .golden import Arrays, files, folders
from .vit import attention, depth, linear, mlp, norm

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
HEADS = 3


def normalised(frames: Tensor) -> Tensor:
    """uint8 [B, T, H, W, 3] -> fp32 [B, 3, T, H, W]"""
    mean = torch.tensor(MEAN, device=frames.device)
    std = torch.tensor(STD, device=frames.device)
    return ((frames / 255 - mean) / std).permute(0, 4, 1, 2, 3)


def selected(frames: Tensor, tubelet: int, cell: int, threshold: float) -> tuple[Tensor, Tensor]:
    """keep and run [B, T', h, w] of the operator, clip by clip; the kernel must say the same."""
    operator = RLT(threshold=threshold)
    clips = [operator.select(clip, None, tubelet=tubelet, cell=cell) for clip in frames]
    keep = torch.stack([clip.keep for clip in clips])
    run = torch.stack([clip.run for clip in clips])
    batch = run_length(frames, tubelet=tubelet, cell=cell, threshold=threshold)
    assert torch.equal(batch.keep, keep)
    assert torch.equal(batch.run, run)
    return keep, run


def official_order(keep: Tensor, run: Tensor) -> Tensor:
    """Lengths of kept cells in (b, h, w, t) order."""
    return run.permute(0, 2, 3, 1)[keep.permute(0, 2, 3, 1)].long()


def sinusoid(rows: int, channels: int, base: float) -> Tensor:
    i = torch.arange(channels)
    w = base ** (-(i - i % 2).double() / channels)
    angle = torch.arange(rows)[:, None] * w
    return torch.where(i % 2 == 0, angle.sin(), angle.cos()).float()


def cut(x: Tensor, tubelet: int, cell: int) -> Tensor:
    """[B, 3, T, H, W] -> [B, T', h, w, 3, tubelet, cell, cell]"""
    b, c, t, h, w = x.shape
    x = x.reshape(b, c, t // tubelet, tubelet, h // cell, cell, w // cell, cell)
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7)


def check_masks(golden: Arrays, cell: int) -> None:
    frames = golden["frames_uint8"]
    if "normalized_bcthw" in golden:
        # fp32 rounding of one subtraction and two divisions
        torch.testing.assert_close(
            normalised(frames), golden["normalized_bcthw"], rtol=1e-6, atol=1e-6
        )
    for key in golden:
        if found := re.fullmatch(r"mask_tau([\d.]+)_ts(\d)", key):
            tau, tubelet = found.groups()
            keep, run = selected(frames, int(tubelet), cell, float(tau))
            assert torch.equal(keep.flatten(1), golden[key]), key
            lengths = golden[f"lengths_bhwt_tau{tau}_ts{tubelet}"]
            assert torch.equal(official_order(keep, run), lengths), key
        elif found := re.fullmatch(r"mask_raw255_thr(\d+)_ts(\d)", key):
            threshold, tubelet = found.groups()
            result = run_length(
                frames,
                tubelet=int(tubelet),
                cell=cell,
                threshold=float(threshold),
                channel_weight=(1, 1, 1),
            )
            assert torch.equal(result.keep.flatten(1), golden[key]), key


def check_tokenizer(golden: Arrays) -> None:
    frames = golden["frames_uint8"]
    keep, run = selected(frames, 2, 16, 0.1)
    assert torch.equal(keep.flatten(1), golden["token_mask"])
    assert torch.equal(keep.flatten(1).sum(1), golden["num_tokens"])
    assert torch.equal(official_order(keep, run), golden["token_lengths"])
    crops = cut(normalised(frames), 2, 16)[keep]
    torch.testing.assert_close(crops, golden["split_crops"], rtol=1e-6, atol=1e-6)

    full = golden["full_pos_embed"].cpu()
    table = sinusoid(full.shape[0], full.shape[1], base=10000)
    torch.testing.assert_close(table, full, rtol=0, atol=1e-6)
    expected = torch.cat([table[mask] for mask in keep.flatten(1).cpu()])
    torch.testing.assert_close(golden["pos_embeds"].cpu(), expected, rtol=0, atol=1e-6)
    lengths = golden["unused_sinusoid_length_embed_base1000"].cpu()
    unused = sinusoid(lengths.shape[0], lengths.shape[1], base=1000)
    torch.testing.assert_close(unused, lengths, rtol=0, atol=1e-6)


def encode(
    frames: Tensor, weights: Mapping[str, Tensor], keep: Tensor, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits [B, classes] and patch embeddings [N, D] of the kept cells, packed."""
    kernel = weights["patch_embed.proj.weight"]  # [D, 3, tubelet, p, p]
    channels, _, tubelet, cell, _ = kernel.shape
    crops = cut(normalised(frames), tubelet, cell)[keep].flatten(1)
    patches = crops @ kernel.flatten(1).T + weights["patch_embed.proj.bias"]
    table = sinusoid(keep[0].numel(), channels, base=10000).to(frames.device)
    clip, place = keep.flatten(1).nonzero().T
    x = patches + table[place]
    if lengths is not None:
        x = x + weights["length_embed"][0][lengths - 1]
    for block in range(depth(weights)):
        x, _ = attention(x, clip, weights, block, heads=HEADS)
        x = mlp(x, weights, block)
    pooled = torch.stack([x[clip == i].mean(dim=0) for i in range(len(frames))])
    return linear(norm(pooled, weights, "fc_norm"), weights, "head"), patches


def check_vit(golden: Arrays, weights: Arrays) -> None:
    frames = weights.sibling("tokenizer_tau0.1_ts2.npz")["frames_uint8"]
    keep, run = selected(frames, 2, 16, 0.1)

    def assert_logits(actual: Tensor, key: str) -> None:
        # two fp32 blocks, summed in another order
        expected = golden[key].reshape(actual.shape)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)

    logits, patches = encode(frames, weights, keep)
    assert_logits(logits, "logits_rlt_nolen")
    assert_logits(patches, "patch_embed_rlt")
    misordered = official_order(keep, run)
    assert_logits(encode(frames, weights, keep, misordered)[0], "logits_rlt_officiallen")
    everything, _ = selected(frames, 2, 16, -1.0)
    assert_logits(encode(frames, weights, everything)[0], "logits_dense")
    for i in range(len(frames)):  # packing changes nothing
        alone, _ = encode(frames[i : i + 1], weights, keep[i : i + 1])
        torch.testing.assert_close(alone[0], logits[i], rtol=1e-5, atol=1e-5)


HANDLERS: dict[str, Callable[[Arrays], None]] = {
    "events_p8.npz": lambda golden: check_masks(golden, cell=8),
    "mask.npz": lambda golden: check_masks(golden, cell=16),
    "tiny_vit.safetensors": lambda golden: check_vit(golden.sibling("tiny_vit_out.npz"), golden),
    "tiny_vit_out.npz": lambda golden: check_vit(golden, golden.sibling("tiny_vit.safetensors")),
    "tokenizer_tau0.1_ts2.npz": check_tokenizer,
}


@pytest.mark.parametrize("path", files("rlt"))
def test_golden_rlt(path: Path, device: str) -> None:
    assert path.name in HANDLERS, f"nothing compares {path.name}: add a handler"
    golden = Arrays(path, device)
    HANDLERS[path.name](golden)
    assert not golden.unread, f"not compared: {sorted(golden.unread)}"


@pytest.mark.parametrize("folder", folders("rlt").values(), ids=folders("rlt"))
def test_golden_rlt_is_complete(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {*HANDLERS, "README.md"}
