"""Samples of uneven length into one call of the model, and the losses of that call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from streamer.embedded.attention import valid_only
from streamer.embedded.samples import CAMERAS, IGNORE, Sample
from streamer.embedded.scene import COLOURS, DIRECTIONS, SHAPES
from streamer.embedded.truth import REGIONS
from streamer.vision.geometry import Geometry
from streamer.vision.patches import Patches
from streamer.vision.tower import Features, encode

MOVER_WEIGHT = 9.0
WEIGHTS = {"colour": 1.0, "shape": 2.0, "region": 1.0, "direction": 1.0}
"""Shapes are learnt last, and captions name none until cells tell them."""


class Heads(nn.Module):
    """Auxiliary readings of the vision tower, used in training only.

    Without them the direction of motion stays near chance for a long time.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.colour = nn.Linear(width, 1 + len(COLOURS))
        self.shape = nn.Linear(width, 1 + len(SHAPES))
        self.region = nn.Linear(width, 1 + len(REGIONS))
        self.direction = nn.Linear(width, 1 + len(DIRECTIONS))
        self.camera = nn.Linear(width, len(CAMERAS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Of one batch. `caption` is a mean over answer tokens, `auxiliary` over cells and tubelets."""

    caption: Tensor
    auxiliary: Tensor
    answers: int
    exact: int
    """Answers of which every token would be chosen, given the right ones before it."""


def batches(samples: Sequence[Sample], *, tokens: int) -> Iterator[list[Sample]]:
    """Groups of similar length, each at most `tokens` long when padded."""
    batch: list[Sample] = []
    for sample in sorted(samples, key=lambda s: len(s.ids)):
        if batch and len(sample.ids) * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch


def forward(
    model: Qwen3VLForConditionalGeneration,
    heads: Heads,
    samples: Sequence[Sample],
    geometry: Geometry,
    *,
    cached: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Losses:
    """One forward pass over a batch of samples.

    cached: whether cells see what was valid beside them, not only those sent with them.
    It runs where the model is.
    """
    device = model.device
    length = max(len(s.ids) for s in samples)
    ids = torch.stack([functional.pad(s.ids, (0, length - len(s.ids))) for s in samples])
    positions = torch.stack(
        [functional.pad(s.positions, (0, length - len(s.ids))) for s in samples], dim=1
    )
    labels = torch.stack(
        [functional.pad(s.labels, (0, length - len(s.ids)), value=IGNORE) for s in samples]
    )
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        features = encode_samples(model, samples, geometry, cached=cached)
        told = torch.cat([s.told for s in samples]).to(device)
        visual = BaseModelOutputWithDeepstackFeatures(
            pooler_output=[features.tokens[told]],
            deepstack_features=[[x[told]] for x in features.deepstack],
        )
        hidden = model.model(
            input_ids=ids.to(device),
            position_ids=positions.to(device),
            attention_mask=attention_mask(samples, length).to(device),
            mm_encoder_outputs={"video": visual},
            use_cache=False,
        )[0]
        answered = labels[:, 1:] != IGNORE
        logits = model.lm_head(hidden[:, :-1][answered.to(device)])
        auxiliary = _auxiliary(heads, features.tokens, samples)
    targets = labels[:, 1:][answered].to(device)
    right = torch.ones_like(answered)
    right[answered] = (logits.argmax(-1) == targets).cpu()
    answers = exact = 0
    for row, sample in enumerate(samples):
        count = int(sample.branch.max())
        wrong = set(sample.branch[1:][~right[row, : len(sample.ids) - 1]].tolist())
        answers += count
        exact += count - len(wrong)
    return Losses(
        caption=functional.cross_entropy(logits.float(), targets),
        auxiliary=auxiliary,
        answers=answers,
        exact=exact,
    )


def encode_samples(
    model: Qwen3VLForConditionalGeneration,
    samples: Sequence[Sample],
    geometry: Geometry,
    *,
    cached: bool,
) -> Features:
    """All cells that the tower sees; its segments are tubelets, or groups where that differs."""
    segments: list[list[int]] = []
    for s in samples:
        whole = all(n in (0, s.grid.cells) for n in s.patches.per_tubelet)
        segments.append([len(s.patches.cells)] if cached and not whole else s.patches.per_tubelet)
    patches = Patches(
        pixels=torch.cat([s.patches.pixels for s in samples]).to(model.device),
        cells=torch.cat([s.patches.cells for s in samples]).to(model.device),
        per_tubelet=[n for own in segments for n in own],
    )
    grids = [s.grid for s, own in zip(samples, segments, strict=True) for _ in own]
    born, until = (torch.cat([getattr(s, name) for s in samples]) for name in ("born", "until"))
    with valid_only(born.to(model.device), until.to(model.device)):
        return encode(model.model.visual, patches, grids, geometry)


def attention_mask(samples: Sequence[Sample], length: int) -> Tensor:
    """(B, 1, L, L) additive: the trunk up to each token's limit, and its own branch so far."""
    mask = torch.full((len(samples), 1, length, length), float("-inf"))
    for row, s in enumerate(samples):
        n = len(s.ids)
        at = torch.arange(n)
        trunk = (s.branch[None, :] == 0) & (at[None, :] < s.limit[:, None])
        own = (s.branch[None, :] == s.branch[:, None]) & (at[None, :] <= at[:, None])
        mask[row, 0, :n, :n].masked_fill_(trunk | own, 0.0)
        mask[row, 0, n:, 0] = 0.0  # padding must see something for softmax to be defined
    return mask


def _auxiliary(heads: Heads, tokens: Tensor, samples: Sequence[Sample]) -> Tensor:
    per_tubelet = [n for s in samples for n in s.patches.per_tubelet]
    loss = tokens.new_zeros((), dtype=torch.float32)
    for name in WEIGHTS:
        truth = torch.cat([getattr(s.cells, name) for s in samples]).to(tokens.device)
        logits = getattr(heads, name)(tokens).float()
        weight = torch.where(truth > 0, MOVER_WEIGHT, 1.0) * (truth != IGNORE)
        each = functional.cross_entropy(logits, truth, reduction="none")
        loss = loss + WEIGHTS[name] * (each * weight).sum() / weight.sum().clamp(min=1)
    counts = torch.tensor(per_tubelet)
    parts = torch.split(tokens, per_tubelet)
    pooled = torch.stack([part.mean(0) for part in parts if len(part)])
    camera = torch.cat([s.cells.camera for s in samples])[counts > 0]
    if (camera != IGNORE).any():
        logits = heads.camera(pooled).float()
        loss = loss + 0.5 * functional.cross_entropy(
            logits, camera.to(tokens.device), ignore_index=IGNORE
        )
    return loss
