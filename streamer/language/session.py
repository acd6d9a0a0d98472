"""One stream's context in the LLM: the trunk of its present group.

The trunk holds the prompt's head and visual tokens, nothing else, and restarts at every I-chunk; so
it is a function of the token stream since then. A question never changes it.

Chunks are taken up as they come, and read by the LLM when something is asked: what nobody asks
about costs nothing, and what several sessions took up is read side by side.

Operators inside the LLM choose by the question. So a trunk that has some is run through the layers
ahead of the first one only, and waits there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from operators import Planner
from streamer.core.pipeline import Pipeline
from streamer.errors import ConfigError, WireError
from streamer.language import span as spans
from streamer.language.cache import LayerCache, side_by_side
from streamer.language.layers import run_layers
from streamer.language.layout import Piece, join
from streamer.language.span import Span, Visual
from streamer.model import VideoModel
from streamer.wire import TokenChunk

UNREAD = 2048
"""Most tokens that wait to be read: no run is much longer."""


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
        self._layers = [LayerCache.empty(self.network)] * ahead
        self._waiting: list[Span] = []
        self._unread: list[Span] = []
        self.length = 0
        """Tokens in the trunk."""
        self.group_start_s = t0
        self.base = 0

    @property
    def layers(self) -> list[LayerCache]:
        """Those ahead of the first operator; all where there is none."""
        read([self])
        return self._layers

    @property
    def waiting(self) -> list[Span]:
        """The trunk before the first operator's layer, piece by piece."""
        read([self])
        return self._waiting

    @torch.inference_mode()
    def append(self, chunk: TokenChunk, *, where: str = "chunk") -> None:
        """Takes up one I- or P-chunk; an I-chunk restarts the trunk.

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

    @property
    def unread(self) -> int:
        """Tokens that were taken up and are not read."""
        return sum(span.hidden.shape[1] for span in self._unread)

    def take_unread(self) -> Span:
        """What is to be read now."""
        unread, self._unread = self._unread, []
        return spans.join(unread)

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
        """When somebody asks, or when there is much of it."""
        self._unread.append(self._span(piece, chunk))
        self.length += len(piece)
        if self.unread > UNREAD:
            read([self])

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


@torch.inference_mode()
def read(sessions: Iterable[Session]) -> None:
    """Brings their trunks up to what they took up, those of like length side by side."""
    unread = [session for session in dict.fromkeys(sessions) if session.unread]
    for some in alike([session for session in unread if not session.stops]):
        grow(some)
    for session in unread:
        if session.stops:
            span = session.take_unread()
            ahead, session._layers = run_layers(session.network, span, session._layers)
            session._waiting.append(ahead)


def alike(sessions: Iterable[Session]) -> Iterator[list[Session]]:
    """In groups of which none is padded to more than twice what it has to read."""
    left = sorted(sessions, key=lambda session: session.unread)
    while left:
        most = 2 * left[0].unread
        some = [session for session in left if session.unread <= most]
        left = left[len(some) :]
        yield some


def grow(
    sessions: Sequence[Session], tails: Sequence[Span] | None = None
) -> tuple[Span, list[LayerCache]]:
    """Reads what sessions without operators inside the LLM took up, side by side.

    tails: what is read behind it, one for each, and does not become part of the trunk.
    Returns the rows with their tails, after the last layer, and the caches then.
    """
    before = side_by_side([session._layers for session in sessions])
    own = [session.take_unread() for session in sessions]
    rows = [spans.join(both) for both in zip(own, tails, strict=True)] if tails else own
    span, layers = run_layers(sessions[0].network, spans.side_by_side(rows), before)
    held = before[0].length
    end = held + span.hidden.shape[1]
    for n, (session, row, new) in enumerate(zip(sessions, rows, own, strict=True)):
        first = end - row.hidden.shape[1]
        here = torch.cat(
            [
                torch.arange(held - session._layers[0].length, held),
                torch.arange(first, first + new.hidden.shape[1]),
            ]
        ).to(span.bias.device)
        bias = layers[0].bias[n : n + 1, here]
        session._layers = [
            LayerCache(
                keys=layer.keys[n : n + 1, :, here],
                values=layer.values[n : n + 1, :, here],
                bias=bias,
            )
            for layer in layers
        ]
    return span, layers


def _stops(pipeline: Pipeline, layers: int) -> tuple[Stop, ...]:
    stops = tuple(Stop(layer=n, operator=o) for o in pipeline.decoder for n in o.layers)
    for stop in stops:
        if not 0 < stop.layer < layers:
            raise ConfigError(
                f"pipeline: {stop.operator.name} reduces before layer "
                f"{stop.layer}, this model's are 0 to {layers - 1}; give one from 1 to {layers - 1}"
            )
    return stops
