"""Arrays of a golden file, and how they are written."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Array = NDArray[Any]
Named = dict[str, Array]


def single(x: Array) -> Array:
    """Rounded to fp32, so that an oracle computes in fp64 with what the file holds."""
    out: Array = x.astype(np.float32).astype(np.float64)
    return out


def write(
    path: Path,
    arrays: Named,
    *,
    metadata: Mapping[str, object] | None = None,
    doubles: Collection[str] = (),
) -> None:
    """As fp32 where they are fp64, but for `doubles`; metadata, as text, go into safetensors."""
    small = {
        key: np.ascontiguousarray(
            value.astype(np.float32) if value.dtype == np.float64 and key not in doubles else value
        )
        for key, value in arrays.items()
    }
    if path.suffix == ".safetensors":
        told = {key: str(value) for key, value in (metadata or {}).items()}
        save_file(small, path, metadata=told or None)
    else:
        np.savez_compressed(path, **small)  # type: ignore[arg-type]
