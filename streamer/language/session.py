"""One stream's context in the LLM: the trunk of its present group, and branches that are dropped.

The trunk holds the prompt's head and visual tokens, nothing else, and restarts at every I-chunk; so
it is a function of the token stream since then. A question never changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from streamer.errors import WireError
from streamer.language.layout import Piece, join
from streamer.model import VideoModel
from streamer.wire import TokenChunk


class Session:
    """The trunk of one stream."""

    def __init__(self, model: VideoModel) -> None:
        self.model = model
        self.restart(0.0)

    def restart(self, t0: float) -> None:
        """Forgets everything: a new group starts at media time t0."""
        self.cache = DynamicCache(config=self.model.model.config.text_config)
        self.group_start_s = t0
        self.base = 0

    @property
    def length(self) -> int:
        """Tokens in the trunk."""
        return int(self.cache.get_seq_length())

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
        model = self.model.model
        visual = None
        if len(chunk.tokens):
            tokens = chunk.tokens.to(model.device, model.dtype)
            stack = () if chunk.deepstack is None else chunk.deepstack.to(model.device, model.dtype)
            visual = BaseModelOutputWithDeepstackFeatures(
                pooler_output=[tokens], deepstack_features=[[layer] for layer in stack]
            )
        model.model(
            input_ids=piece.ids[None].to(model.device),
            position_ids=piece.positions[:, None].to(model.device),
            past_key_values=self.cache,
            mm_encoder_outputs=visual and {"video": visual},
            use_cache=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question to one session, about what its trunk holds."""

    session: Session
    prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was generated, greedily."""

    text: str
    output_tokens: int
    input_tokens: int
    """The context it was read from: trunk and question."""


@torch.inference_mode()
def answer(model: VideoModel, asks: Sequence[Ask], *, max_new_tokens: int) -> list[Answer]:
    """Answers all at once, each on a branch of its session's trunk; the trunks stay as they are.

    Trunks and questions of uneven length are padded on the left and masked.
    """
    network, layout = model.model, model.layout
    device = network.device
    pieces = [layout.question(ask.prompt, ask.session.base) for ask in asks]
    cache, trunk_mask = _branch(model, [ask.session for ask in asks])
    widest = max(len(piece) for piece in pieces)
    pads = [widest - len(piece) for piece in pieces]
    ids = torch.stack(
        [functional.pad(p.ids, (pad, 0)) for p, pad in zip(pieces, pads, strict=True)]
    ).to(device)
    positions = torch.stack(
        [functional.pad(p.positions, (pad, 0)) for p, pad in zip(pieces, pads, strict=True)], dim=1
    ).to(device)
    question_mask = torch.stack([(torch.arange(widest) >= pad).long() for pad in pads])
    mask = torch.cat([trunk_mask, question_mask], dim=1).to(device)
    at = torch.tensor([piece.next_base for piece in pieces], device=device)
    said: list[list[int]] = [[] for _ in asks]
    open_rows = set(range(len(asks)))
    for _ in range(max_new_tokens):
        hidden = network.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        )[0]
        chosen = network.lm_head(hidden[:, -1]).argmax(-1)
        for row, token in enumerate(chosen.tolist()):
            if row in open_rows:
                if token == layout.end_of_turn:
                    open_rows.remove(row)
                else:
                    said[row].append(token)
        if not open_rows:
            break
        ids = chosen[:, None]
        positions = at.expand(3, -1)[:, :, None]
        at = at + 1
        mask = functional.pad(mask, (0, 1), value=1)
    return [
        Answer(
            text=layout.tokenizer.decode(tokens, skip_special_tokens=True).strip(),
            output_tokens=len(tokens),
            input_tokens=ask.session.length + len(piece),
        )
        for tokens, ask, piece in zip(said, asks, pieces, strict=True)
    ]


def _branch(model: VideoModel, sessions: Sequence[Session]) -> tuple[DynamicCache, Tensor]:
    """The trunks side by side in a cache of their own, and the mask (B, L) of what is not padding.

    The trunks are copied: nothing that is done to the branch can reach them.
    """
    longest = max(session.length for session in sessions)
    branch = DynamicCache(config=model.model.config.text_config)
    for layer in range(model.model.config.text_config.num_hidden_layers):
        trunks = [session.cache.layers[layer] for session in sessions]
        keys, values = (
            torch.cat([functional.pad(t, (0, 0, longest - t.shape[2], 0)) for t in tensors])
            for tensors in ([t.keys for t in trunks], [t.values for t in trunks])
        )
        branch.update(keys, values, layer)
    mask = torch.stack(
        [(torch.arange(longest) >= longest - session.length).long() for session in sessions]
    )
    return branch, mask
