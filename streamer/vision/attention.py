"""How the vision tower attends inside its segments: one by one, or all of them in one kernel.

transformers calls an attention once per segment, from a Python loop; one whose name has "flash" in
it, once for all, with their borders. So ours are named, and registered when a tower asks for one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.attention.varlen import varlen_attn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from kernels import segment_attention
from streamer.errors import ModelError

Way = Literal["sdpa", "varlen", "triton", "flex"]
"""torch's attention per segment; FlashAttention or cuDNN as torch carries them; our kernel;
FlexAttention, compiled at its first call."""

Packed = Callable[[Tensor, Tensor, Tensor, Tensor, int, float], Tensor]
"""q, k, v `[N, H, D]`, borders int32 `[S+1]`, longest segment, scale -> `[N, H, D]`."""

BLOCK = 128  # tokens; FlexAttention skips blocks of this edge
AMPERE = (8, 0)  # the first GPUs that FlashAttention runs on


def way_for(
    wanted: Way | Literal["auto"],
    *,
    device: torch.device,
    dtype: torch.dtype,
    channels: int,
    recalls: bool = False,
) -> Way:
    """The way that a tower attends, with heads of so many channels.

    "auto" is sdpa on a CPU; on a GPU varlen where it can run, else triton, else sdpa.
    recalls: whether segments have more keys than queries, which triton and flex do not know.
    Raises ModelError if the way wanted cannot run there.
    """
    on_gpu = device.type == "cuda"
    fits = {
        "sdpa": True,
        "varlen": on_gpu
        and dtype in (torch.float16, torch.bfloat16)
        and channels % 8 == 0
        and torch.cuda.get_device_capability(device) >= AMPERE,
        "triton": not recalls and on_gpu and find_spec("triton") is not None and channels <= 128,
        "flex": not recalls and on_gpu and find_spec("triton") is not None and channels >= 16,
    }
    if wanted == "auto":
        order: tuple[Way, ...] = ("varlen", "triton", "sdpa") if on_gpu else ("sdpa",)
        return next(way for way in order if fits[way])
    if not fits[wanted]:
        possible = ", ".join(way for way in fits if fits[way])
        raise ModelError(
            f"model.attention: {wanted!r} cannot run on {device} in {dtype} with heads of "
            f"{channels} channels{' and model.context: cached' if recalls else ''}; "
            f"possible are: auto, {possible}"
        )
    return wanted


def set_attention(tower: Qwen3VLVisionModel, way: Way) -> None:
    """Makes the tower attend that way from its next call on."""
    if way != "sdpa":
        ALL_ATTENTION_FUNCTIONS.register(name_of(way), _interface(WAYS[way]))
    # Not set_attn_implementation: that looks for a "flash" in packages and on the hub.
    tower.config._attn_implementation = name_of(way)


def name_of(way: Way) -> str:
    """What transformers knows it by."""
    return "sdpa" if way == "sdpa" else f"flash_segments_{way}"


def varlen(q: Tensor, k: Tensor, v: Tensor, borders: Tensor, longest: int, scale: float) -> Tensor:
    mixed = varlen_attn(q, k, v, borders, borders, longest, longest, scale=scale)
    assert isinstance(mixed, Tensor)  # a pair only where more is asked for
    return mixed


def triton(q: Tensor, k: Tensor, v: Tensor, borders: Tensor, longest: int, scale: float) -> Tensor:
    return segment_attention(q, k, v, borders, scale=scale)


def flex(q: Tensor, k: Tensor, v: Tensor, borders: Tensor, longest: int, scale: float) -> Tensor:
    heads = (x.transpose(0, 1)[None] for x in (q, k, v))
    mixed: Tensor = compiled_flex()(
        *heads, block_mask=same_segment(borders, q.shape[0]), scale=scale
    )
    return mixed[0].transpose(0, 1)


WAYS: dict[Way, Packed] = {"varlen": varlen, "triton": triton, "flex": flex}


@cache
def compiled_flex() -> Callable[..., Any]:
    """FlexAttention for any number of tokens; compiled at the first call, which takes a while."""
    return torch.compile(flex_attention, dynamic=True)


@lru_cache(maxsize=1)  # the layers of one call hand over the same tensor
def same_segment(borders: Tensor, n: int) -> BlockMask:
    """Which of `n` packed tokens see each other. A block of tokens sees a row of blocks."""
    token = torch.arange(n, device=borders.device)
    segment = torch.searchsorted(borders, token, right=True)  # [N], counted from 1
    ends = torch.clamp(token[::BLOCK] + BLOCK, max=n) - 1
    first = borders[segment[::BLOCK] - 1] // BLOCK
    last = (borders[segment[ends]] - 1) // BLOCK
    blocks = torch.arange(len(first), device=borders.device)
    seen = (first[:, None] + blocks).clamp(max=len(first) - 1)  # [blocks, blocks]
    return BlockMask.from_kv_blocks(
        (last - first + 1)[None, None].int(),
        seen[None, None].int(),
        BLOCK_SIZE=BLOCK,
        mask_mod=lambda _batch, _head, i, j: segment[i] == segment[j],
        seq_lengths=(n, n),
    )


def _interface(attend: Packed) -> Callable[..., tuple[Tensor, None]]:
    def attention(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        scaling: float,
        cu_seq_lens_q: Tensor,
        max_length_q: int,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """As transformers wants it: `[1, H, N, D]` in, `[1, N, H, D]` out."""
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        return attend(q, k, v, cu_seq_lens_q, max_length_q, scaling)[None], None

    return attention
