"""Draws docs/change.jpg: the demo's clip through a noisy camera whose exposure drops by a third.

Run: python -m tests.change_picture. Above what the plain change test keeps, below the robust one.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from operators import RLT, PixelOperator, build
from streamer.config import DEFAULT_PIPELINE
from streamer.demo import RATE, SAMPLED, demo_clip
from streamer.embedded.render import render
from streamer.inspection.picture import GAP_PX, draw

PATH = Path(__file__).parents[1] / "docs" / "change.jpg"
CELL = 32
AT_S = 6.0
GAIN, NOISE = 0.67, 4.0


def main() -> None:
    """Two tubelets: one at full exposure, and the one that is drawn."""
    sampled = render(demo_clip()).every(RATE // SAMPLED).frames
    first = int(AT_S * SAMPLED)
    clean = torch.from_numpy(sampled[first : first + 4]).float()
    gain = torch.tensor([1.0, 1.0, GAIN, GAIN]).view(4, 1, 1, 1)
    noise = NOISE * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    frames = (gain * clean + noise).round().clamp(0, 255).byte()
    drawn = []
    settings = {key: value for key, value in DEFAULT_PIPELINE.items() if key != "name"}
    for operator in (RLT(), build(DEFAULT_PIPELINE["name"], settings)):
        assert isinstance(operator, PixelOperator)
        keep = operator.select(frames, None, tubelet=2, cell=CELL).keep[1]
        drawn.append(draw(frames[2:], keep))
    gap = torch.full((GAP_PX, drawn[0].shape[1], 3), 255, dtype=torch.uint8)
    picture = torch.cat([drawn[0], gap, drawn[1]])
    Image.fromarray(picture.numpy()).save(PATH, quality=80)


if __name__ == "__main__":
    main()
