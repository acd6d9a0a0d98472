"""One stream's context in the LLM: the trunk of its present group.

The trunk holds the prompt's head and visual tokens, nothing else, and restarts at every I-chunk; so
it is a function of the token stream since then. A question never changes it.
"""

from __future__ import annotations

import torch
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
