"""Golden files of a method: where they are, and a reader that knows what was not compared."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[3]


def folders(method: str) -> dict[str, Path]:
    """The small committed copy, and the full set where it is: $GOLDEN_DIR/<method>."""
    given = os.environ.get("GOLDEN_DIR")
    full = Path(given) if given else ROOT.parent / "shared" / "golden"
    found = {"committed": ROOT / "tests" / "golden" / method}
    if given or full.is_dir():
        found["full"] = full / method
    return found


def files(method: str) -> list[object]:
    return [
        pytest.param(path, id=f"{name}-{path.name}")
        for name, folder in folders(method).items()
        for path in sorted(folder.iterdir())
        if path.suffix != ".md"
    ]


class Arrays(Mapping[str, Tensor]):
    """The arrays of one file, on a device; `unread` are those nobody asked for."""

    def __init__(self, path: Path, device: str) -> None:
        self.path = path
        self.device = device
        self.metadata: dict[str, str] = {}
        self._tensors: dict[str, Tensor]
        if path.suffix == ".safetensors":
            self._tensors = load_file(path)
            with safe_open(path, "pt") as archive:
                self.metadata = archive.metadata() or {}
        else:
            with np.load(path) as archive:
                self._tensors = {key: torch.from_numpy(archive[key]) for key in archive.files}
        self.unread = set(self._tensors)

    def __getitem__(self, key: str) -> Tensor:
        tensor = self._tensors[key]
        self.unread.discard(key)
        return tensor.to(self.device)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, key: object) -> bool:
        return key in self._tensors  # asking is not reading

    def sibling(self, name: str) -> "Arrays":
        return Arrays(self.path.with_name(name), self.device)
