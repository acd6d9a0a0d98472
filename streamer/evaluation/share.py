"""The share of its visual tokens that the LLM's layers are given, on average."""

from __future__ import annotations

import torch

from operators.base import Scorer
from streamer.core.pipeline import Pipeline


def layer_share(pipeline: Pipeline, *, tokens: int, layers: int) -> float:
    """1 without operators inside the LLM; else over its layers, for a context of so many tokens.

    An operator inside the LLM that cannot say beforehand what it leaves counts as leaving all.
    """
    if not tokens or not pipeline.decoder:
        return 1.0
    stops = [(layer, operator) for operator in pipeline.decoder for layer in operator.layers]
    left, before, given = tokens, 0, 0
    for layer, operator in stops:
        given += left * (layer - before)
        before = layer
        if isinstance(operator, Scorer):
            left = int(operator.budget(torch.tensor([left]))[0])
    return (given + left * (layers - before)) / (tokens * layers)
