"""block_mean in torch."""

import torch
from torch import Tensor


def block_mean(frames: Tensor, block: int) -> Tensor:
    t, height, width, _ = frames.shape
    squares = frames.reshape(t, height // block, block, width // block, block, 3)
    sums = squares.sum(dim=(2, 4), dtype=torch.int32).movedim(3, 1).contiguous()
    return sums.float() * (1 / block**2)
