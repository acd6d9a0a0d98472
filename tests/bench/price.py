"""What tokenizing costs as more of the picture changes, kept cells beside every cell.

    python -m tests.bench.price [CLIP …]

Runs StreamEncoder, the code that serves streams, on a vision tower of Qwen3-VL-2B's geometry with
random weights (speed does not depend on them). Rendered clips renew a share of their cells at every
tubelet; CLIPs are real ones, six P-chunks of each. The two paths take the same chunks in turn.
Writes tests/bench/results/price.csv and docs/price.svg.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from streamer.config import Settings
from streamer.core.keyframes import KeyframePolicy
from streamer.core.pipeline import Pipeline, build_pipeline
from streamer.types import FrameChunk
from streamer.vision.attention import set_attention, way_for
from streamer.vision.geometry import Geometry
from streamer.vision.resize import resize
from streamer.vision.stream_encoder import StreamEncoder
from tests.bench import pages, results
from tests.bench.machine import machine

HALF = (0.5, 0.5, 0.5)
GEOMETRY = Geometry(patch_size=16, merge_size=2, tubelet=2, mean=HALF, std=HALF, max_cells=196)
SIDE = 448
FPS, CHUNK_FRAMES = 2.0, 4
CHUNK_MS = 1e3 * CHUNK_FRAMES / FPS
"""Media time of a chunk: divided by the time it takes, how many live streams one worker carries."""
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
REAL_CHUNKS = 6
PLOT = Path(__file__).parents[2] / "docs" / "price.svg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One clip, both ways; times are of a P-chunk."""

    clip: str
    changed: float
    """Share of cells that are new at each tubelet; of a real clip what is sent."""
    sent: float
    """Share of cells that the kept path sends."""
    kept_ms: float
    dense_ms: float
    ratio: float
    low: float
    high: float
    """95 % interval of the ratio."""
    machine: str


def tower(device: str, dtype: torch.dtype) -> Qwen3VLVisionModel:
    """Qwen3-VL-2B's vision tower with random weights."""
    config = Qwen3VLVisionConfig(
        depth=24,
        hidden_size=1024,
        intermediate_size=4096,
        num_heads=16,
        patch_size=16,
        spatial_merge_size=2,
        temporal_patch_size=2,
        out_hidden_size=2048,
        num_position_embeddings=2304,
        deepstack_visual_indexes=[5, 11, 17],
        attn_implementation="sdpa",
    )
    return Qwen3VLVisionModel(config).to(device, dtype).eval().requires_grad_(False)


def rendered(share: float, chunks: int) -> NDArray[np.uint8]:
    """(T, 448, 448, 3): noise in which a share of the cells, at random, is new at each tubelet."""
    rng = np.random.default_rng(0)
    grid = SIDE // GEOMETRY.cell_px
    picture = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    frames = []
    for _ in range(chunks * CHUNK_FRAMES // GEOMETRY.tubelet):
        new = rng.permutation(grid**2).reshape(grid, grid) < round(share * grid**2)
        mask = new.repeat(GEOMETRY.cell_px, 0).repeat(GEOMETRY.cell_px, 1)[..., None]
        picture = np.where(mask, rng.integers(0, 256, picture.shape, dtype=np.uint8), picture)
        frames += [picture] * GEOMETRY.tubelet
    return np.stack(frames)


def filmed(path: str) -> NDArray[np.uint8]:
    """(T, H, W, 3) of a clip at 2 frames per second, on the grid, in whole chunks."""
    from streamer.sources import open_source  # decoders, which rendered clips need not

    with open_source(path, fps=FPS) as source:
        frames = [_fitted(frame.image) for frame in source.frames()]
    return np.stack(frames[: len(frames) // CHUNK_FRAMES * CHUNK_FRAMES])


def _fitted(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grid = GEOMETRY.fit(*image.shape[:2])
    fitted: NDArray[np.uint8] = resize(torch.from_numpy(image)[None], grid, GEOMETRY)[0].numpy()
    return fitted


def chunks_of(frames: NDArray[np.uint8]) -> list[FrameChunk]:
    return [
        FrameChunk(
            number=n + 1,
            t0=start / FPS,
            t1=(start + CHUNK_FRAMES) / FPS,
            pts=np.arange(start, start + CHUNK_FRAMES) / FPS,
            frames=frames[start : start + CHUNK_FRAMES],
            decode_ms=0.0,
        )
        for n, start in enumerate(range(0, len(frames), CHUNK_FRAMES))
    ]


def encode(stream: StreamEncoder, chunks: Sequence[FrameChunk], device: str) -> tuple[float, float]:
    """Seconds for the second chunk, once the first was taken up; and the share of cells sent."""
    stream.replay(chunks[0], tokens=0)  # its group never ends
    started = time.perf_counter()
    head = stream.encode(chunks[1]).head
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started, head.tokens / head.dense


def compare(
    name: str,
    pairs: Sequence[Sequence[FrameChunk]],
    streams: Streams,
    *,
    rounds: int,
    changed: float | None = None,
) -> Row:
    """Both ways over the same chunks in turn; each of `pairs` is a chunk and the one before it.

    Of one chunk the times are medians over rounds, of several means over all of them.
    """
    kept_s, dense_s, shares = [], [], []
    for _ in range(rounds):
        for pair in pairs:
            seconds, share = encode(streams.kept(), pair, streams.device)
            kept_s.append(seconds)
            shares.append(share)
            dense_s.append(encode(streams.dense(), pair, streams.device)[0])
    middle = np.median if len(pairs) == 1 else np.mean
    kept, dense = float(middle(kept_s)), float(middle(dense_s))
    # By bootstrap over what was timed together.
    drawn = np.random.default_rng(0).integers(0, len(kept_s), (2000, len(kept_s)))
    ratios = middle(np.array(kept_s)[drawn], axis=1) / middle(np.array(dense_s)[drawn], axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    sent = statistics.fmean(shares)
    return Row(
        clip=name,
        changed=sent if changed is None else changed,
        sent=sent,
        kept_ms=kept * 1e3,
        dense_ms=dense * 1e3,
        ratio=kept / dense,
        low=float(low),
        high=float(high),
        machine=streams.machine,
    )


class Streams:
    """Fresh encoders for the two ways. They never begin a new group: only P-chunks are timed."""

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        self.device = device
        self.tower = tower(device, dtype)
        way = way_for("auto", device=torch.device(device), dtype=dtype, channels=1024 // 16)
        set_attention(self.tower, way)
        self.machine = f"{machine(device)}, {str(dtype).removeprefix('torch.')}"

    def kept(self) -> StreamEncoder:
        return self._stream(build_pipeline(Settings().pipeline))

    def dense(self) -> StreamEncoder:
        return self._stream(Pipeline())

    def _stream(self, pipeline: Pipeline) -> StreamEncoder:
        policy = KeyframePolicy(interval_s=1e6, budget=1e6, cut_share=1.0)
        return StreamEncoder(self.tower, GEOMETRY, job="bench", pipeline=pipeline, policy=policy)


def rows(clips: Sequence[str], streams: Streams, *, rounds: int) -> Iterator[Row]:
    for share in SHARES if rounds else ():
        # The two that a promise is made about are measured more often.
        often = rounds * 3 if share in (0.0, 1.0) else rounds
        pair = chunks_of(rendered(share, 2))
        name = f"rendered, {share:.0%} new"
        yield compare(name, [pair], streams, rounds=often, changed=share)
    for clip in clips:
        chunks = chunks_of(filmed(clip))
        at = np.linspace(1, len(chunks) - 1, REAL_CHUNKS).round().astype(int)
        pairs = [chunks[i - 1 : i + 1] for i in at]
        yield compare(Path(clip).name, pairs, streams, rounds=1)


def draw(rows: Sequence[Mapping[str, str]]) -> None:
    """Time and tokens against what changed, of dense."""
    import matplotlib as mpl

    mpl.use("svg")
    # The same figures give the same file, and text stays text.
    mpl.rcParams.update({"svg.hashsalt": "price", "svg.fonttype": "none"})
    from matplotlib import pyplot

    made, real = (
        [row for row in rows if row["clip"].startswith("rendered") == is_made]
        for is_made in (True, False)
    )
    figure, axes = pyplot.subplots(figsize=(7.5, 4.2))
    axes.axhline(1, color="#888", linewidth=1, linestyle="--", label="every cell (dense)")
    changed, sent, ratio, low, high = (
        np.array([float(row[name]) for row in made])
        for name in ("changed", "sent", "ratio", "low", "high")
    )
    axes.plot(100 * changed, sent, color="#9db4c0", linewidth=5, alpha=0.6, label="tokens")
    spread = np.clip([ratio - low, high - ratio], 0, None)
    axes.errorbar(
        100 * changed, ratio, yerr=spread, marker="o", color="#2a6fdb", label="time, rendered"
    )
    at = {
        Path(row["clip"]).stem: (100 * float(row["changed"]), float(row["ratio"])) for row in real
    }
    axes.scatter(*zip(*at.values(), strict=True), color="#d9541e", zorder=3, label="time, real")
    below, last = 0, -np.inf
    for name, place in sorted(at.items(), key=lambda item: item[1]):
        below = below + 1 if place[0] - last < 5 else 0  # names of neighbours one under another
        last = place[0]
        axes.annotate(
            name.replace("_", " "),
            place,
            (-6 if last > 80 else 8, -10 - 13 * below),
            textcoords="offset points",
            ha="right" if last > 80 else "left",
            fontsize=7,
        )
    axes.set_xlabel("cells that change (of real clips: that are sent), % of all")
    axes.set_ylabel("of a chunk with every cell")
    axes.set_title(f"Tokenizing 448², Qwen3-VL-2B's geometry; {rows[0]['machine']}", fontsize=9)
    axes.set_ylim(0, 1.15)
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", fontsize=8)
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", nargs="*")
    parser.add_argument("--rounds", type=int, default=3, help="0 leaves the rendered clips out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    given = parser.parse_args()
    dtype = given.dtype or ("float32" if given.device == "cpu" else "bfloat16")
    streams = Streams(given.device, getattr(torch, dtype))
    print(streams.machine)  # noqa: T201
    print(  # noqa: T201
        f"{'clip':34}{'sent':>7}{'kept ms':>10}{'dense ms':>10}{'ratio':>8}  95 % interval"
        f"{'streams':>13}{'dense':>8}"
    )
    found = []
    for row in rows(given.clips, streams, rounds=given.rounds):
        found.append(row)
        times = f"{row.kept_ms:10.1f}{row.dense_ms:10.1f}{row.ratio:8.3f}"
        spread = f"  {row.low:.3f} – {row.high:.3f}"
        live = f"{CHUNK_MS / row.kept_ms:13.1f}{CHUNK_MS / row.dense_ms:8.1f}"
        print(f"{row.clip:34}{row.sent:7.1%}{times}{spread}{live}", flush=True)  # noqa: T201
    merged = results.merge("price", found, key=("machine", "clip"))
    draw([row for row in merged if row["machine"] == streams.machine])
    pages.write()


if __name__ == "__main__":
    main()
