"""A random Qwen3-VL of each kind the path must carry: merged patches, DeepStack, two layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from streamer.core.keyframes import KeyframePolicy
from streamer.core.pipeline import Pipeline
from streamer.embedded.vocabulary import build_tokenizer
from streamer.language.layout import Layout
from streamer.model import VideoModel
from streamer.types import FrameChunk
from streamer.vision.geometry import Geometry
from streamer.vision.stream_encoder import StreamEncoder
from streamer.wire import TokenChunk

FPS = 2.0


def tiny_model(*, seed: int = 0) -> VideoModel:
    """Random weights, 8-pixel patches merged 2 × 2, cells of 16 pixels."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 1024,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 3,
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 36,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    model = Qwen3VLForConditionalGeneration(config).eval().requires_grad_(False)
    for parameter in model.parameters():  # the default init is so small that nothing would show
        parameter.mul_(3.0)
    half = (0.5, 0.5, 0.5)
    geometry = Geometry(patch_size=8, merge_size=2, tubelet=2, mean=half, std=half, max_cells=64)
    return VideoModel(model=model, layout=Layout.of(tokenizer), geometry=geometry)


def chunks_of(frames: np.ndarray, *, per_chunk: int = 4) -> list[FrameChunk]:
    """Frames sampled at FPS, cut into numbered chunks."""
    return [
        FrameChunk(
            number=n + 1,
            t0=start / FPS,
            t1=min(start + per_chunk, len(frames)) / FPS,
            pts=np.arange(start, min(start + per_chunk, len(frames))) / FPS,
            frames=frames[start : start + per_chunk],
            decode_ms=0.0,
        )
        for n, start in enumerate(range(0, len(frames), per_chunk))
    ]


def tokens_of(model: VideoModel, frames: np.ndarray, *, pipeline: Pipeline) -> list[TokenChunk]:
    """Frames as the service encodes them."""
    encoder = StreamEncoder(
        model.tower,
        model.geometry,
        job="test",
        pipeline=pipeline,
        policy=KeyframePolicy(),
        context=model.context,
    )
    return [encoder.encode(chunk) for chunk in chunks_of(frames)]


def joined(chunks: list[TokenChunk]) -> TokenChunk:
    """A group's chunks as one."""
    stacks = [c.deepstack for c in chunks if c.deepstack is not None]
    return replace(
        chunks[0],
        head=replace(
            chunks[0].head,
            t1=chunks[-1].head.t1,
            tubelet_s=tuple(s for c in chunks for s in c.head.tubelet_s),
            tokens=sum(c.head.tokens for c in chunks),
        ),
        tokens=torch.cat([c.tokens for c in chunks]),
        position=torch.cat([c.position for c in chunks]),
        run=torch.cat([c.run for c in chunks]),
        size=torch.cat([c.size for c in chunks]),
        deepstack=torch.cat(stacks, dim=1),
    )


def moving_square(num_frames: int = 16, *, size: tuple[int, int] = (64, 80)) -> np.ndarray:
    """A white square that crosses a still, textured picture."""
    rng = np.random.default_rng(0)
    scene = rng.integers(60, 180, (*size, 3), dtype=np.uint8)
    frames = np.stack([scene] * num_frames)
    for t in range(num_frames):
        frames[t, 20:36, 4 * t : 4 * t + 16] = 255
    return frames
