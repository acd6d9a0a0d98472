"""How a checkpoint cuts pictures up, without loading its weights."""

from __future__ import annotations

from transformers import Qwen3VLVideoProcessor

from streamer.checkpoint import resolve
from streamer.errors import ModelError
from streamer.model import first_line, geometry_of
from streamer.vision.geometry import Geometry


def load_geometry(name: str, *, max_cells: int | None) -> Geometry:
    """The geometry of a checkpoint folder, a hub name, or "embedded".

    max_cells: most cells of a frame; the processor's own limit if None.
    Raises ModelError.
    """
    path = resolve(name)
    try:
        processor = Qwen3VLVideoProcessor.from_pretrained(path)
    except (OSError, ValueError) as exc:
        raise ModelError(
            f"the video processor of model {name!r} cannot be loaded: {first_line(exc)}; "
            "give a folder with a Qwen3-VL checkpoint, or 'embedded'"
        ) from exc
    return geometry_of(processor, max_cells)
