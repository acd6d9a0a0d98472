"""What a figure was measured on, for those who read it."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def machine(device: str) -> str:
    """The processor, or the GPU, and torch's version, in a few words."""
    if device != "cpu":
        name = torch.cuda.get_device_name()
        return f"{name}, torch {torch.__version__}"
    return f"{torch.get_num_threads()} threads of {_processor()}, torch {torch.__version__}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
