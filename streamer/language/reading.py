"""Questions, each read at the end of its session's trunk: the contexts in which answers begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from streamer.language.cache import LayerCache, side_by_side
from streamer.language.layers import last_attention, run_layers
from streamer.language.layout import Piece
from streamer.language.reduction import reduced
from streamer.language.session import Session, grow
from streamer.language.span import join, text_span


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Read:
    """B contexts that have been read to their ends."""

    last: Tensor
    """(B, D): the hidden states of their last tokens."""
    layers: list[LayerCache]


def read_together(sessions: Sequence[Session], pieces: Sequence[Piece]) -> Read:
    """Questions to sessions without operators inside the LLM, side by side."""
    network = sessions[0].network
    before = side_by_side([session.layers for session in sessions])
    span, layers = run_layers(network, text_span(network, pieces), before)
    return Read(last=span.hidden[:, -1], layers=layers)


def read_ahead(sessions: Sequence[Session], pieces: Sequence[Piece]) -> Read:
    """Questions to sessions that have not read all yet, each another: all that in one run."""
    network = sessions[0].network
    span, layers = grow(sessions, [text_span(network, [piece]) for piece in pieces])
    return Read(last=span.hidden[:, -1], layers=layers)


def read_reduced(session: Session, piece: Piece) -> Read:
    """A question to a session with operators inside the LLM.

    What is kept hangs on the question, so the layers from the first such operator on are run anew
    over what is left of the trunk. That fills a device: side by side nothing would be gained.
    """
    network, waiting = session.network, session.waiting
    fresh = [LayerCache.empty(network)] * (len(network.layers) - len(session.layers))
    before = [*session.layers, *fresh]
    span, first = text_span(network, [piece]), 0
    layers: list[LayerCache] = []
    for stop in session.stops:
        last = stop.layer - 1
        ahead, most = run_layers(network, span, before[first:last], first=first)
        span, [asked] = run_layers(network, ahead, [before[last]], first=last)
        layers += [*most, asked]
        attention = None
        if "attention" in stop.operator.needs:
            attention = last_attention(network, ahead, asked, last)
        whole, waiting = join([*waiting, span]), []
        span = reduced(whole, stop.operator, attention, proportional=session.proportional)
        first = stop.layer
    span, rest = run_layers(network, span, before[first:], first=first)
    return Read(last=span.hidden[:, -1], layers=layers + rest)
