"""The embedded model: Qwen3-VL's classes at a hundredth of the width."""

from __future__ import annotations

from transformers import (
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLVideoProcessor,
)

MAX_CELLS = 64
CELL_PX = 16
GRIDS: tuple[tuple[int, int], ...] = ((8, 8), (6, 10), (6, 9), (10, 6), (5, 11), (7, 9))
"""Rows and columns of cells trained on: squares, 16:9, 4:3, portrait, wide, and between."""


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:
    """Random weights."""
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
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
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_heads": 4,
            "patch_size": CELL_PX,
            "spatial_merge_size": 1,
            "temporal_patch_size": 2,
            "out_hidden_size": 128,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    return Qwen3VLForConditionalGeneration(config)


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
