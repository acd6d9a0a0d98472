"""Where a model name points to, checked before anything is started. Needs no torch."""

from __future__ import annotations

import json
import os
from pathlib import Path

from streamer.errors import ModelError

EMBEDDED = Path(__file__).parent / "embedded" / "checkpoint"


def resolve(name: str) -> str:
    """The folder or hub name behind `name`; "embedded" is the checkpoint that this package carries.

    Raises ModelError if a folder does not hold a Qwen3-VL checkpoint.
    """
    folder = EMBEDDED if name == "embedded" else Path(os.path.expanduser(name))
    try:
        return _checked(name, folder)
    except OSError as exc:
        raise ModelError(f"model folder {name[:200]} cannot be read: {exc.strerror}") from exc


def _checked(name: str, folder: Path) -> str:
    if not folder.exists():
        beside_others = "/" in name and folder.parent.exists()
        if name.startswith((".", "/", "~")) or name == "embedded" or beside_others:
            raise ModelError(f"model folder {folder} does not exist; give a folder or 'embedded'")
        return name
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(f"model folder {folder} has no config.json; it holds no checkpoint")
    try:
        described = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise ModelError(f"{config} is not JSON: {exc}") from exc
    kind = described.get("model_type") if isinstance(described, dict) else None
    if kind != "qwen3_vl":
        raise ModelError(f"model folder {folder} holds a {kind!r} model; 'qwen3_vl' is supported")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"model folder {folder} has no weights (*.safetensors)")
    return str(folder)
