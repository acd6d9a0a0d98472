"""Trains the embedded model from clips rendered on the fly.

    python -m streamer.embedded.train --minutes 60 --out runs/embedded

Each worker process renders, plans and lays out its own clips on one thread and exchanges gradients
with the others. With `--device cuda` they share a GPU: give one for each CPU core. Progress is
measured in wall time, so a run ends when it says. `--out` holds a checkpoint in transformers
format, the training state to resume from, and a log (JSON lines).
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from streamer.embedded.architecture import build_model, build_processor, start_from
from streamer.embedded.attention import packed_attention
from streamer.embedded.batch import Heads, batches, forward
from streamer.embedded.clips import TRAIN, VALIDATION, Mix
from streamer.embedded.samples import Sample, group_samples
from streamer.embedded.vocabulary import build_tokenizer
from streamer.language.layout import Layout
from streamer.model import geometry_of
from streamer.vision.geometry import Geometry

VALIDATION_SEED = 1 << 40
TRAINING_SEED = 0
RUNS = VALIDATION.textures[0] // TRAIN.textures[1]
"""Seeds of runs, beyond which they would draw the backgrounds of validation."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of one run."""

    out: Path
    minutes: float
    device: str = "cpu"
    workers: int = 2
    clips: int = 24
    """Per worker and step."""
    tokens: int = 2500
    """Longest padded batch of one forward pass, in LLM tokens."""
    muon_lr: float = 3e-3
    adam_lr: float = 2e-3
    weight_decay: float = 0.01
    auxiliary: float = 0.5
    cached: float = 0.5
    """Share of batches whose cells see what was valid beside them."""
    bf16: bool = False
    start: Path | None = None
    seed: int = 0
    resume: bool = False
    report_s: float = 60.0
    validation: int = 50
    """Clips that are scored at each report."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--device", default=Settings.device, help="cpu, or cuda for a GPU")
    parser.add_argument("--workers", type=int, default=Settings.workers)
    parser.add_argument("--clips", type=int, default=Settings.clips)
    parser.add_argument("--muon-lr", type=float, default=Settings.muon_lr)
    parser.add_argument("--adam-lr", type=float, default=Settings.adam_lr)
    parser.add_argument("--cached", type=float, default=Settings.cached)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--report-s", type=float, default=Settings.report_s)
    parser.add_argument("--bf16", action="store_true", help="autocast, where that is faster")
    parser.add_argument(
        "--start", type=Path, help="a checkpoint folder whose weights to start from"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from --out's training state",
    )
    given = vars(parser.parse_args())
    settings = Settings(**given)
    if not 0 <= settings.seed < RUNS:
        parser.error(f"--seed: {settings.seed} is not one of 0 to {RUNS - 1}")
    settings.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29517")
    if settings.workers == 1:
        train(0, settings)
    else:
        spawn(train, args=(settings,), nprocs=settings.workers)  # type: ignore[no-untyped-call]  # torch has no types for it


def train(rank: int, settings: Settings) -> None:
    """One worker of a run."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=settings.workers)
    torch.manual_seed(settings.seed)
    tokenizer = build_tokenizer()
    layout, geometry = Layout.of(tokenizer), geometry_of(build_processor(), None)
    model = build_model(tokenizer)
    model.config._attn_implementation = "eager"
    if settings.start:
        start_from(model, tokenizer, settings.start)
    heads = Heads(model.config.vision_config.out_hidden_size)
    for network in (model, heads):
        network.to(settings.device)
    optimizers = _optimizers(model, heads, settings)
    first = TRAINING_SEED + (settings.seed << 32)
    state_file, log_file = settings.out / "state.pt", settings.out / "log.jsonl"
    if rank == 0 and not settings.resume:
        log_file.unlink(missing_ok=True)
    done_s, step = 0.0, 0
    if settings.resume and state_file.exists():
        state = torch.load(state_file, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        done_s, step = state["seconds"], state["step"]
        first = state["next_clip"]
    seeds = itertools.count(first + rank, settings.workers)
    chance = random.Random(f"{settings.seed} {rank} {step}")
    parameters = [*model.parameters(), *heads.parameters()]
    validation = _take(
        itertools.count(VALIDATION_SEED),
        settings.validation,
        layout,
        geometry,
        VALIDATION,
    )
    mix = replace(TRAIN, textures=backgrounds(settings.seed))
    dtype = torch.bfloat16 if settings.bf16 else torch.float32
    total_s = settings.minutes * 60
    started = time.monotonic() - done_s
    reported = time.monotonic()
    answers = exact = clips = 0
    caption = auxiliary = 0.0
    with packed_attention(model.model.visual), linear_patches(model.model.visual):
        while True:
            progress = _agree((time.monotonic() - started) / total_s)
            if progress >= 1:
                break
            factor = schedule(progress)
            for optimizer, rate in zip(
                optimizers, (settings.muon_lr, settings.adam_lr), strict=True
            ):
                for group in optimizer.param_groups:
                    group["lr"] = rate * factor
            samples = _take(seeds, settings.clips, layout, geometry, mix)
            told = sum(_told(sample) for sample in samples)
            cells = sum(len(sample.cells.colour) for sample in samples)
            for batch in batches(samples, tokens=settings.tokens):
                cached = chance.random() < settings.cached
                losses = forward(model, heads, batch, geometry, cached=cached, dtype=dtype)
                share = sum(_told(sample) for sample in batch) / max(told, 1)
                cell_share = sum(len(sample.cells.colour) for sample in batch) / cells
                loss = settings.auxiliary * cell_share * losses.auxiliary
                if share:
                    loss = loss + share * losses.caption
                    caption += share * float(losses.caption.detach())
                torch.autograd.backward(loss)
                auxiliary += cell_share * float(losses.auxiliary.detach())
                answers += losses.answers
                exact += losses.exact
            _average_gradients(parameters)
            clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step += 1
            clips += settings.clips * settings.workers
            if step % 10 == 0:
                _return_memory()
            if _agree(time.monotonic() - reported) > settings.report_s:
                steps = clips / settings.clips / settings.workers
                scores = _validate(model, heads, validation, geometry, dtype)
                if rank == 0:
                    line = {
                        "step": step,
                        "minutes": round((time.monotonic() - started) / 60, 2),
                        "clips_per_s": round(clips / (time.monotonic() - reported), 1),
                        "caption_loss": round(caption / steps, 4),
                        "auxiliary_loss": round(auxiliary / steps, 4),
                        "train_exact": round(exact / max(answers, 1), 4),
                        **scores,
                    }
                    with log_file.open("a") as log:
                        log.write(json.dumps(line) + "\n")
                    _save(
                        model, heads, optimizers, settings.out, time.monotonic() - started, step,
                        next(seeds),
                    )  # fmt: skip
                reported = time.monotonic()
                answers = exact = clips = 0
                caption = auxiliary = 0.0
    if rank == 0:
        _save(model, heads, optimizers, settings.out, total_s, step, next(seeds))
    distributed.destroy_process_group()


@contextmanager
def linear_patches(tower: Qwen3VLVisionModel) -> Iterator[None]:
    """Embeds patches with a matrix product: the convolution's backward pass is slow on CPU."""
    embed: Any = tower.patch_embed

    def linear(pixels: Tensor) -> Tensor:
        return functional.linear(pixels, embed.proj.weight.flatten(1), embed.proj.bias)

    embed.forward = linear
    try:
        yield
    finally:
        del embed.forward


def schedule(progress: float) -> float:
    """Warm-up over 2 %, flat to half, then linear to 2 % of the rate."""
    if progress < 0.02:
        return max(progress / 0.02, 0.02)
    return 1.0 if progress < 0.5 else 1.0 - 0.98 * (progress - 0.5) / 0.5


def backgrounds(seed: int) -> tuple[int, int]:
    """The texture seeds of a run: as many as TRAIN's, others for each seed below RUNS."""
    count = TRAIN.textures[1]
    return seed * count, (seed + 1) * count


def _take(
    seeds: Iterator[int],
    count: int,
    layout: Layout,
    geometry: Geometry,
    mix: Mix,
) -> list[Sample]:
    groups = (
        group_samples(seed, layout, geometry, mix=mix) for seed in itertools.islice(seeds, count)
    )
    return [sample for group in groups for sample in group]


def _told(sample: Sample) -> int:
    return int((sample.labels >= 0).sum())


def _optimizers(
    model: Qwen3VLForConditionalGeneration, heads: Heads, settings: Settings
) -> list[torch.optim.Optimizer]:
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        hidden = parameter.ndim == 2 and not any(
            word in name for word in ("embed_tokens", "pos_embed", "lm_head")
        )
        (matrices if hidden else others).append(parameter)
    others += list(heads.parameters())
    return [
        torch.optim.Muon(
            matrices,
            lr=settings.muon_lr,
            weight_decay=settings.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            others, lr=settings.adam_lr, weight_decay=settings.weight_decay, betas=(0.9, 0.98)
        ),
    ]


def _agree(value: float) -> float:
    """Rank 0's value, on every rank."""
    shared = torch.tensor(value, dtype=torch.float64)
    distributed.broadcast(shared, 0)
    return float(shared)


def _average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([g.flatten() for g in gradients]).cpu()
    distributed.all_reduce(flat)
    flat = (flat / distributed.get_world_size()).to(gradients[0].device)
    for p, g in zip(parameters, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        p.grad = g.view_as(p)


@torch.no_grad()
def _validate(
    model: Qwen3VLForConditionalGeneration,
    heads: Heads,
    samples: list[Sample],
    geometry: Geometry,
    dtype: torch.dtype,
) -> dict[str, float]:
    """Every rank scores its share, so that none waits for rank 0 alone."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    total = torch.zeros(2, dtype=torch.float64)
    for batch in batches(samples[rank::world], tokens=2500):
        if any(_told(sample) for sample in batch):
            losses = forward(model, heads, batch, geometry, dtype=dtype)
            total += torch.tensor([losses.answers, losses.exact], dtype=torch.float64)
    distributed.all_reduce(total)
    return {"validation_exact": round(float(total[1] / total[0].clamp(min=1)), 4)}


def _save(
    model: Qwen3VLForConditionalGeneration,
    heads: Heads,
    optimizers: list[torch.optim.Optimizer],
    out: Path,
    seconds: float,
    step: int,
    next_clip: int,
) -> None:
    state = {
        "model": model.state_dict(),
        "heads": heads.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "seconds": seconds,
        "step": step,
        "next_clip": next_clip,
    }
    torch.save(state, out / "state.tmp")
    (out / "state.tmp").replace(out / "state.pt")
    weights: dict[str, Tensor] = {
        name: value.to(torch.bfloat16) for name, value in model.state_dict().items()
    }
    model.save_pretrained(out / "checkpoint", state_dict=weights)
    build_tokenizer().save_pretrained(out / "checkpoint")
    build_processor().save_pretrained(out / "checkpoint")


def _return_memory() -> None:
    """Batches of ever new shapes fragment glibc's heap until it has eaten the machine."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)


if __name__ == "__main__":
    main()
