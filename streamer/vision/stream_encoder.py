"""One stream's frames to its token stream: plan, cut out, encode, reduce."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import Tensor
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from operators import Tokens
from streamer.core.keyframes import KeyframePolicy
from streamer.core.pipeline import Pipeline
from streamer.core.planner import ChunkPlan, PlanState, after_gap, plan_chunk, positions
from streamer.types import FrameChunk, Gap
from streamer.vision.geometry import Geometry, Grid
from streamer.vision.patches import patchify
from streamer.vision.resize import resize, whole_tubelets
from streamer.vision.tower import Features, encode
from streamer.wire import ChunkHead, TokenChunk, without_tokens


class StreamEncoder:
    """Holds what one stream carries from chunk to chunk: the last tubelet's picture, its group."""

    def __init__(
        self,
        tower: Qwen3VLVisionModel,
        geometry: Geometry,
        *,
        job: str,
        pipeline: Pipeline,
        policy: KeyframePolicy,
    ) -> None:
        self.tower = tower
        self.geometry = geometry
        self.job = job
        self.pipeline = pipeline
        self.policy = policy
        self.state: PlanState | None = None
        self.device = next(tower.parameters()).device

    def replay(self, chunk: FrameChunk, *, first_tubelet: int = 0) -> ChunkPlan:
        """Takes up a chunk that is in the token stream already: state moves on, nothing is encoded.

        first_tubelet: the wire t of the first chunk replayed.
        """
        return self._plan(chunk, self._frames(chunk), first_tubelet)

    def gap(self, gap: Gap) -> TokenChunk:
        """Pictures are missing: the next chunk is an I-chunk."""
        if self.state is not None:
            self.state = after_gap(self.state)
        head = ChunkHead(
            job=self.job, number=gap.number, kind="gap", t0=gap.t0, t1=gap.t1, reason=gap.reason
        )
        return without_tokens(head)

    @torch.inference_mode()
    def encode(self, chunk: FrameChunk) -> TokenChunk:
        """Encodes the next chunk of the stream."""
        started = time.perf_counter()
        frames = self._frames(chunk)
        plan = self._plan(chunk, frames, 0)
        grid = Grid(h=plan.keep.shape[1], w=plan.keep.shape[2])
        patches = patchify(frames, plan.keep, self.geometry)
        tokens = self._tokens(
            plan, encode(self.tower, patches, grid, self.geometry), patches.per_tubelet
        )
        for operator in self.pipeline.token:
            tokens = operator.reduce(tokens)
        head = ChunkHead(
            job=self.job,
            number=chunk.number,
            kind=plan.kind,
            t0=chunk.t0,
            t1=chunk.t1,
            tubelet_s=plan.tubelet_s,
            tubelet_t=plan.first_tubelet,
            grid=(grid.h, grid.w),
            tokens=tokens.num_tokens,
            patches_kept=len(patches.pixels),
            dense=plan.keep.numel(),
            operators=self.pipeline.names,
            reason=plan.reason or "",
            decode_ms=round(chunk.decode_ms, 2),
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

    def _plan(self, chunk: FrameChunk, frames: Tensor, first_tubelet: int) -> ChunkPlan:
        plan, self.state = plan_chunk(
            frames,
            chunk.pts.tolist(),
            self.state,
            t0=chunk.t0,
            t1=chunk.t1,
            operator=self.pipeline.pixel,
            policy=self.policy,
            tubelet=self.geometry.tubelet,
            cell_px=self.geometry.cell_px,
            tubelets_before=first_tubelet,
        )
        return plan

    def _tokens(self, plan: ChunkPlan, features: Features, per_tubelet: list[int]) -> Tokens:
        stack = features.deepstack
        return Tokens(
            data=features.tokens,
            pos=positions(plan),
            size=torch.ones(len(features.tokens), device=self.device),
            run=plan.run[plan.keep],
            offsets=torch.tensor([0, *per_tubelet], device=self.device).cumsum(0),
            deepstack=stack if len(stack) else None,
        )
