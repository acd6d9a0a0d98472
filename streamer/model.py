"""A Qwen3-VL checkpoint, embedded or not, loaded by one code path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration, Qwen3VLVideoProcessor
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel
from transformers.utils.logging import disable_progress_bar

from streamer.checkpoint import resolve
from streamer.errors import ModelError
from streamer.language.layout import Layout
from streamer.vision.attention import Way, set_attention, way_for
from streamer.vision.context import Context
from streamer.vision.geometry import Geometry


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VideoModel:
    """A model and what the path must know of it."""

    model: Qwen3VLForConditionalGeneration
    layout: Layout
    geometry: Geometry
    context: Context = "kept"
    """What the vision tower shows to the kept cells of a tubelet; see vision/context.py."""

    @property
    def tower(self) -> Qwen3VLVisionModel:
        return self.model.model.visual


def load_model(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    attention: Way | Literal["auto"] = "auto",
    context: Context = "kept",
    max_cells: int | None = None,
) -> VideoModel:
    """Loads a checkpoint folder, or a name that transformers finds in its cache or on its hub.

    name: "embedded" is the checkpoint this package carries.
    device, dtype: "auto" is bfloat16 on cuda where there is one, else float32 on cpu.
    attention: how the vision tower attends; see vision/attention.py.
    context: what it shows to kept cells; see vision/context.py.
    max_cells: most LLM tokens per frame before any reduction; the processor's own limit if None.
    Raises ModelError for anything that cannot be loaded.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    path = resolve(name)
    disable_progress_bar()
    try:
        processor = Qwen3VLVideoProcessor.from_pretrained(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = Qwen3VLForConditionalGeneration.from_pretrained(
            path, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        ).to(device)
    except (OSError, ValueError, LookupError, RuntimeError, AssertionError, SafetensorError) as exc:
        raise ModelError(
            f"model {name!r} cannot be loaded: {first_line(exc)}; "
            "give a folder with a Qwen3-VL checkpoint (config, weights, tokenizer and video "
            "processor), or 'embedded'"
        ) from exc
    tower = model.model.visual
    set_attention(tower, _way(tower, attention, context))
    return VideoModel(
        model=model.eval().requires_grad_(False),
        layout=Layout.of(tokenizer),
        geometry=geometry_of(processor, max_cells),
        context=context,
    )


def _way(tower: Qwen3VLVisionModel, wanted: Way | Literal["auto"], context: Context) -> Way:
    return way_for(
        wanted,
        device=tower.device,
        dtype=tower.dtype,
        channels=tower.config.hidden_size // tower.config.num_heads,
        recalls=context == "cached",
    )


def geometry_of(processor: Any, max_cells: int | None) -> Geometry:
    """What a transformers video processor says of patches and pixels."""
    mean, std = processor.image_mean, processor.image_std
    return Geometry(
        patch_size=processor.patch_size,
        merge_size=processor.merge_size,
        tubelet=processor.temporal_patch_size,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        max_cells=max_cells or processor.max_video_tokens,
    )


def first_line(exc: BaseException) -> str:
    """An exception's first line, for a sentence that a person reads."""
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0].rstrip(".")
