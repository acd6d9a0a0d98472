"""One stream's context in the LLM: the trunk of its present group.

The trunk holds the prompt's head and visual tokens, nothing else, and restarts at every I-chunk; so
it is a function of the token stream since then. A question never changes it.

Operators inside the LLM choose by the question. So a trunk that has some is run through the layers
ahead of the first one only, and waits there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from operators import Planner
from streamer.core.pipeline import Pipeline
from streamer.errors import ConfigError, WireError
from streamer.language.cache import LayerCache
from streamer.language.layers import run_layers
from streamer.language.layout import Piece, join
from streamer.language.span import Span, Visual
from streamer.model import VideoModel
from streamer.wire import TokenChunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """An operator inside the LLM, and the layer before which it reduces."""

    layer: int
    operator: Planner


class Session:
    """The trunk of one stream."""

    def __init__(self, model: VideoModel, pipeline: Pipeline | None = None) -> None:
        """pipeline: what the stream runs through; None leaves its tokens as they come.

        Raises ConfigError for an operator before a layer that the model does not have.
        """
        pipeline = pipeline or Pipeline()
        self.model = model
        self.network = model.model.model.language_model
        self.stops = _stops(pipeline, len(self.network.layers))
        self.proportional = pipeline.proportional
        self.restart(0.0)

    def restart(self, t0: float) -> None:
        """Forgets everything: a new group starts at media time t0."""
        ahead = self.stops[0].layer if self.stops else len(self.network.layers)
        self.layers = [LayerCache.empty(self.network)] * ahead
        """Those ahead of the first operator; all where there is none."""
        self.waiting: list[Span] = []
        """The trunk before the first operator's layer, piece by piece."""
        self.group_start_s = t0
        self.base = 0

    @property
    def length(self) -> int:
        """Tokens in the trunk."""
        return self.layers[0].length

    @torch.inference_mode()
    def append(self, chunk: TokenChunk, *, where: str = "chunk") -> None:
        """Prefills one I- or P-chunk; an I-chunk restarts the trunk.

        Raises WireError, and changes nothing, for tokens that another model made.
        """
        head, layout = chunk.head, self.model.layout
        self._check(chunk, where)
        if head.kind == "I":
            self.restart(head.t0)
        pieces = [] if self.length else [layout.head()]
        base = pieces[-1].next_base if pieces else self.base
        for j, seconds in enumerate(head.tubelet_s):
            cells = chunk.position[chunk.position[:, 0] == head.tubelet_t + j, 1:]
            piece = layout.tubelet(seconds - self.group_start_s, cells, max(head.grid), base)
            pieces.append(piece)
            base = piece.next_base
        self._prefill(join(pieces), chunk)
        self.base = base

    def _check(self, chunk: TokenChunk, where: str) -> None:
        config = self.model.model.config
        width, layers = (
            config.text_config.hidden_size,
            len(config.vision_config.deepstack_visual_indexes),
        )
        if chunk.tokens.shape[1] != width:
            raise WireError(
                f"{where}: body.tokens: {chunk.tokens.shape[1]} wide, this model's are {width}; "
                "tokenize and caption with the same model"
            )
        found = 0 if chunk.deepstack is None else len(chunk.deepstack)
        if found != layers:
            raise WireError(
                f"{where}: body.deepstack: {found} layers, this model has {layers}; "
                "tokenize and caption with the same model"
            )

    def _prefill(self, piece: Piece, chunk: TokenChunk) -> None:
        span, self.layers = run_layers(self.network, self._span(piece, chunk), self.layers)
        if self.stops:
            self.waiting.append(span)

    def _span(self, piece: Piece, chunk: TokenChunk) -> Span:
        """The piece before the first layer, the chunk's tokens at their placeholders."""
        like = self.network.embed_tokens.weight
        places = (piece.ids == self.model.layout.video).nonzero()[:, 0].to(like.device)
        hidden = self.network.embed_tokens(piece.ids.to(like.device)[None])
        hidden[0, places] = chunk.tokens.to(like)
        bias = like.new_zeros(1, len(piece))
        size = chunk.size.to(like.device)
        if self.proportional:
            bias[0, places] = size.log().to(like.dtype)
        return Span(
            hidden=hidden,
            positions=piece.positions[:, None].to(like.device),
            bias=bias,
            visual=Visual(
                places=places,
                pos=chunk.position.to(like.device),
                size=size,
                run=chunk.run.to(like.device),
                deepstack=None if chunk.deepstack is None else chunk.deepstack.to(like),
            ),
        )


def _stops(pipeline: Pipeline, layers: int) -> tuple[Stop, ...]:
    stops = tuple(Stop(layer=n, operator=o) for o in pipeline.decoder for n in o.layers)
    for stop in stops:
        if not 0 < stop.layer < layers:
            raise ConfigError(
                f"pipeline: {stop.operator.name} reduces before layer "
                f"{stop.layer}, this model's are 0 to {layers - 1}; give one from 1 to {layers - 1}"
            )
    return stops
