"""The embedded model: Qwen3-VL's classes at a hundredth of the width."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLVideoProcessor,
)

MAX_CELLS = 64
CELL_PX = 16
POSITIONS = 8
"""Entries along a side of the learned position table."""
GRIDS: tuple[tuple[int, int], ...] = ((8, 8), (6, 10), (6, 9), (10, 6), (5, 11), (7, 9))
"""Rows and columns of cells trained on: squares, 16:9, 4:3, portrait, wide, and between."""


def build_model(
    tokenizer: PreTrainedTokenizerFast, *, vision_layers: int = 6, text_layers: int = 6
) -> Qwen3VLForConditionalGeneration:
    """Random weights."""
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": text_layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": vision_layers,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_heads": 4,
            "patch_size": CELL_PX,
            "spatial_merge_size": 1,
            "temporal_patch_size": 2,
            "out_hidden_size": 128,
            "num_position_embeddings": POSITIONS**2,
            "deepstack_visual_indexes": [1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = Qwen3VLForConditionalGeneration(config)
    with torch.no_grad():
        model.model.visual.pos_embed.weight.copy_(position_waves(POSITIONS, 128))
    return model


def start_from(
    model: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Takes over the weights of an earlier checkpoint, of the same width.

    It may have fewer layers, after which the new ones start by changing nothing, and another
    vocabulary, of which the tokens that both have are taken.
    """
    old = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    words = PreTrainedTokenizerFast.from_pretrained(folder).get_vocab()
    given, own = old.state_dict(), model.state_dict()
    with torch.no_grad():
        for name, weight in own.items():
            if name in given and "embed_tokens" not in name and "lm_head" not in name:
                weight.copy_(given[name])
            elif name not in given and name.endswith(OUTPUTS):
                weight.zero_()
        embedding = model.model.language_model.embed_tokens.weight
        known = old.model.language_model.embed_tokens.weight
        for word, row in tokenizer.get_vocab().items():
            if word in words:
                embedding[row] = known[words[word]]


OUTPUTS = (
    "attn.proj.weight",
    "attn.proj.bias",
    "linear_fc2.weight",
    "linear_fc2.bias",
    "o_proj.weight",
    "down_proj.weight",
)
"""What a layer adds to its input is the last of these."""


def position_waves(side: int, width: int) -> torch.Tensor:
    """(side², width) smooth waves over the picture, where the position table starts.

    From the usual start, a hundredth of the patch embedding's size, the tower cannot tell where a
    patch lies for thousands of steps, and the captions cannot say it.
    """
    at = torch.arange(side) / (side - 1)
    turns = torch.arange(1, 5) * torch.pi / 2
    waves = torch.cat(
        [(at[:, None] * turns).sin(), (at[:, None] * turns).cos()], dim=1
    )  # [side, 8]
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    table = torch.cat([rows, columns], dim=2).flatten(0, 1)  # [side², 16]
    mix = torch.randn(table.shape[1], width, generator=torch.Generator().manual_seed(0))
    mixed = table @ mix
    return 0.7 * (mixed - mixed.mean(0)) / mixed.std()


def build_processor() -> Qwen3VLVideoProcessor:
    """Says the geometry, as real checkpoints do."""
    return Qwen3VLVideoProcessor(
        patch_size=CELL_PX,
        merge_size=1,
        temporal_patch_size=2,
        max_video_tokens=MAX_CELLS,
        size={"shortest_edge": CELL_PX**2, "longest_edge": MAX_CELLS * CELL_PX**2},
        cap_pixels_per_frame=True,
    )
