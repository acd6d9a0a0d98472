"""One stream's frames to its token stream: plan, cut out, encode, reduce."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from operators import PixelOperator, Tokens
from streamer.core.keyframes import KeyframePolicy
from streamer.core.pace import FULL, Thinning
from streamer.core.pipeline import Pipeline
from streamer.core.planner import (
    ChunkPlan,
    PlanState,
    after_gap,
    left_over,
    plan_chunk,
    positions,
    when_asked,
)
from streamer.types import FrameChunk, Gap
from streamer.vision.context import Context, Store, shown
from streamer.vision.geometry import Geometry, Grid
from streamer.vision.patches import Patches, patchify
from streamer.vision.resize import resize, whole_tubelets
from streamer.vision.signals import pixel_change
from streamer.vision.tower import encode
from streamer.wire import ChunkHead, TokenChunk, without_tokens


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Memory:
    """What the stages after the plan carry from chunk to chunk; an I-chunk starts without."""

    front: Tensor | None
    """(H, W, 3) uint8, first frame of the last tubelet, where `change` is needed."""
    states: tuple[object | None, ...]
    """Of the operators after the encoder."""
    store: Store | None
    """Where kept cells see what is stored of the others."""

    @classmethod
    def empty(cls, pipeline: Pipeline, store: Store | None) -> Memory:
        return cls(front=None, states=(None,) * len(pipeline.token), store=store)


class StreamEncoder:
    """Holds what one stream carries from chunk to chunk: what was seen last, its group."""

    def __init__(
        self,
        tower: Qwen3VLVisionModel,
        geometry: Geometry,
        *,
        job: str,
        pipeline: Pipeline,
        policy: KeyframePolicy,
        context: Context = "kept",
    ) -> None:
        self.tower = tower
        self.geometry = geometry
        self.job = job
        self.pipeline = pipeline
        self.policy = policy
        self.context = context
        self.state: PlanState | None = None
        self.tubelets_before = 0
        self.memory = self._forgotten()
        self.device = next(tower.parameters()).device

    @torch.inference_mode()
    def replay(self, chunk: FrameChunk, *, tokens: int, first_tubelet: int = 0) -> None:
        """Takes up a chunk that is in the token stream already: state moves on.

        Nothing is encoded, unless operators after the encoder remember something, or the encoder
        itself does.
        tokens: how many it has there. first_tubelet: the wire t of the first chunk replayed.
        """
        if self.state is None:
            self.tubelets_before = first_tubelet
        frames = self._frames(chunk)
        plan = self._plan(chunk, frames, FULL)
        if self.pipeline.remembers or self.context == "cached":
            self._tokens(plan, frames, self._patches(plan, frames))
        self._count(plan, tokens)

    def resume(self, tubelets: int) -> None:
        """Takes up a stream of so many tubelets whose pictures are gone: a new group begins."""
        self.state, self.tubelets_before = None, tubelets

    def ask_keyframe(self) -> None:
        """The next chunk is an I-chunk."""
        if self.state is not None:
            self.state = when_asked(self.state)

    def gap(self, gap: Gap) -> TokenChunk:
        """Pictures are missing: the next chunk is an I-chunk."""
        if self.state is not None:
            self.state = after_gap(self.state)
        head = ChunkHead(
            job=self.job,
            number=gap.number,
            kind=gap.kind,
            t0=gap.t0,
            t1=gap.t1,
            reason=gap.reason,
            wall0=gap.wall0 or 0.0,
            wall1=gap.wall1 or 0.0,
        )
        return without_tokens(head)

    @torch.inference_mode()
    def encode(self, chunk: FrameChunk, thinning: Thinning = FULL) -> TokenChunk:
        """Encodes the next chunk of the stream, or what `thinning` leaves of it."""
        started = time.perf_counter()
        chunk = self._thinned(chunk, thinning)
        frames = self._frames(chunk)
        plan = self._plan(chunk, frames, thinning)
        patches = self._patches(plan, frames)
        tokens = self._tokens(plan, frames, patches)
        self._count(plan, tokens.num_tokens)
        head = ChunkHead(
            job=self.job,
            number=chunk.number,
            kind=plan.kind,
            t0=chunk.t0,
            t1=chunk.t1,
            tubelet_s=plan.tubelet_s,
            tubelet_t=plan.first_tubelet,
            grid=(plan.keep.shape[1], plan.keep.shape[2]),
            tokens=tokens.num_tokens,
            patches_kept=len(patches.pixels),
            dense=plan.keep.numel(),
            operators=self.pipeline.names,
            reason=plan.reason or "",
            decode_ms=round(chunk.decode_ms, 2),
            wall0=chunk.wall0 or 0.0,
            wall1=chunk.wall1 or 0.0,
            changed=plan.changed,
        )
        written = TokenChunk(
            head=head,
            tokens=tokens.data.bfloat16(),
            position=tokens.pos,
            run=tokens.run,
            size=tokens.size,
            deepstack=None if tokens.deepstack is None else tokens.deepstack.bfloat16(),
        )
        elapsed = round((time.perf_counter() - started) * 1e3, 2)
        return replace(written, head=replace(head, tokenize_ms=elapsed))

    def _frames(self, chunk: FrameChunk) -> Tensor:
        frames = torch.from_numpy(chunk.frames).to(self.device)
        grid = self.geometry.fit(frames.shape[1], frames.shape[2])
        return whole_tubelets(resize(frames, grid, self.geometry), self.geometry.tubelet)

    def _thinned(self, chunk: FrameChunk, thinning: Thinning) -> FrameChunk:
        every = thinning.every
        if -(-len(chunk.pts) // every) < self.geometry.tubelet:
            return chunk
        return replace(chunk, pts=chunk.pts[::every], frames=chunk.frames[::every])

    def _pixel(self, thinning: Thinning) -> PixelOperator[Any] | None:
        """The operator that chooses cells; what it carries does not hang on its threshold."""
        pixel = self.pipeline.pixel
        threshold = getattr(pixel, "threshold", None)
        if pixel is None or threshold is None or threshold <= 0 or thinning.threshold == 1:
            return pixel
        return replace(pixel, threshold=min(255.0, threshold * thinning.threshold))  # type: ignore[call-arg]  # it has one

    def _plan(self, chunk: FrameChunk, frames: Tensor, thinning: Thinning) -> ChunkPlan:
        plan, self.state = plan_chunk(
            frames,
            chunk.pts.tolist(),
            self.state,
            t0=chunk.t0,
            t1=chunk.t1,
            operator=self._pixel(thinning),
            policy=self.policy,
            tubelet=self.geometry.tubelet,
            cell_px=self.geometry.cell_px,
            tubelets_before=self.tubelets_before,
        )
        return plan

    def _forgotten(self) -> Memory:
        store = Store.empty(self.tower) if self.context == "cached" else None
        return Memory.empty(self.pipeline, store)

    def _count(self, plan: ChunkPlan, tokens: int) -> None:
        assert self.state is not None  # a chunk was planned
        self.state = left_over(self.state, plan, tokens)

    def _patches(self, plan: ChunkPlan, frames: Tensor) -> Patches:
        dtype = torch.bfloat16 if self.tower.dtype == torch.bfloat16 else torch.float32
        return patchify(frames, shown(plan.keep, self.context), self.geometry, dtype=dtype)

    def _tokens(self, plan: ChunkPlan, frames: Tensor, patches: Patches) -> Tokens:
        """Encoded and reduced; what operators and `change` remember moves on."""
        needs = self.pipeline.needs
        if plan.kind == "I":
            self.memory = self._forgotten()
        features = encode(
            self.tower,
            patches,
            Grid(h=plan.keep.shape[1], w=plan.keep.shape[2]),
            self.geometry,
            signals=bool(needs & {"attention", "keys"}),
            store=self.memory.store,
        )
        if self.context == "dense":
            features = features.of(plan.keep[shown(plan.keep, self.context)])
        signals = features.signals
        if "change" in needs:
            change = pixel_change(frames, self.memory.front, self.geometry)
            signals = replace(signals, change=change[plan.keep])
        stack = features.deepstack
        tokens = Tokens(
            data=features.tokens,
            pos=positions(plan),
            size=torch.ones(len(features.tokens), device=self.device),
            run=plan.run[plan.keep],
            offsets=torch.nn.functional.pad(plan.keep.flatten(1).sum(1).cumsum(0), (1, 0)),
            deepstack=stack if len(stack) else None,
        )
        states = []
        for operator, state in zip(self.pipeline.token, self.memory.states, strict=True):
            result = operator.reduce(tokens, signals, state)
            tokens, signals = result.tokens, result.signals
            states.append(result.state)
        front = frames[-self.geometry.tubelet].clone() if "change" in needs else None
        self.memory = Memory(front=front, states=tuple(states), store=features.store)
        return tokens
