"""One clip on its way through one pipeline: encoded, over the wire, into a session."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from streamer.adapters.memory_queue import MemoryQueue
from streamer.config import MOST_CONTEXT
from streamer.core.keyframes import KeyframePolicy
from streamer.errors import SourceError, WireError
from streamer.evaluation.answers import Answer, ChunkCost, Judgement, Query
from streamer.evaluation.dataset import Clip, Moment
from streamer.evaluation.pipelines import Candidate
from streamer.evaluation.share import layer_share
from streamer.language.decoding import Ask
from streamer.language.session import Session
from streamer.model import VideoModel
from streamer.spans import ContextLength, Excerpt, SpanRefused, excerpt_of
from streamer.types import FrameChunk, Gap
from streamer.vision.stream_encoder import StreamEncoder
from streamer.wire import ChunkHead, TokenChunk, decode, decode_head, encode

JOB = "clip"
_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How streams are served."""

    policy: KeyframePolicy
    max_new_tokens: int
    max_context: int = MOST_CONTEXT
    """Most tokens of a context, where the model would take more; the default is a service's."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pending:
    """A question that is answered together with those of other streams."""

    stream: Stream
    queries: tuple[Query, ...]
    """All that ask the same; what is said is judged by each."""
    ask: Ask
    t0: float
    t1: float
    tokens: int
    dense: int
    llm_ms: float
    """Spent on it already: taking up tokens."""

    @property
    def past(self) -> bool:
        """Whether it is about a span, which may be long."""
        return self.queries[0].span is not None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Span:
    """A span that was taken up once, for all that ask about it now."""

    session: Session
    excerpt: Excerpt
    length: int
    """Of its context, without question and answer."""


_Spans = dict[tuple[float, float], _Span]


class Stream:
    """Holds what one stream carries from chunk to chunk, as a service would."""

    def __init__(
        self,
        clip: Clip,
        model: VideoModel,
        candidate: Candidate,
        serving: Serving,
    ) -> None:
        self.clip = clip
        self.model = model
        self.candidate = candidate
        self.serving = serving
        self.encoder = StreamEncoder(
            model.tower,
            model.geometry,
            job=JOB,
            pipeline=candidate.pipeline,
            policy=serving.policy,
            context=candidate.context or model.context,
        )
        self.session = Session(model, candidate.pipeline)
        self.queue = MemoryQueue()
        self.queue.create_job(JOB, {"state": "running"})
        self.costs: list[ChunkCost] = []
        self.refused: list[Answer] = []
        """Questions whose span cannot be read."""
        self.broken: str | None = None
        """Why the clip could not be read to its end."""
        self._chunks = clip.chunks()
        self._next = self._read()
        self._number = 1
        self._end_s = 0.0
        """Of what was encoded."""
        self._last_s: float | None = None
        """Of its last picture."""
        self._group_s = 0.0
        self._group_tokens = 0
        self._kept: list[ChunkHead] = []
        """Of what is in the queue."""
        self._untaken: list[TokenChunk] = []
        """Of the group, what the session is given when something is asked."""

    def advance(self) -> list[Pending] | None:
        """Encodes the next chunk; what is asked then, or None at the end."""
        try:
            return self._advance()
        except WireError as exc:
            self.broken, self._next = str(exc), None
            return None

    def ask(self, prompt: str) -> Ask:
        """A question about the group so far."""
        for chunk in self._untaken:
            self.session.append(chunk)
        self._untaken = []
        return Ask(session=self.session, prompt=prompt)

    def _advance(self) -> list[Pending] | None:
        chunk = self._next
        if chunk is None:
            return None
        if chunk.t0 > self._end_s + _EPS:
            self._leave_gap(upto=chunk.t0)
        fields, received = self._sent(chunk)
        self._keep(fields, received.head)
        self._next = self._read()
        moment = self._moment(chunk, received)
        self._last_s, self._end_s = float(chunk.pts[-1]), chunk.t1
        same: dict[tuple[str, tuple[float, float] | None], list[Query]] = {}
        for query in self.clip.queries(moment):
            same.setdefault((query.prompt, query.span), []).append(query)
        spans: _Spans = {}
        found = [self._pending(queries, received, spans) for queries in same.values()]
        return [pending for pending in found if pending is not None]

    def answered(self, pending: Pending, said: str, *, llm_ms: float) -> Iterator[Answer]:
        """What was said, to each that asked; llm_ms: spent on it, beside others."""
        shared = len(pending.queries)
        for query in pending.queries:
            yield Answer(
                pipeline=self.candidate.label,
                clip=self.clip.name,
                item=query.item,
                t0=pending.t0,
                t1=pending.t1,
                question=query.prompt,
                said=said,
                judgement=query.judge(said),
                tokens=pending.tokens,
                dense=pending.dense,
                llm_ms=(pending.llm_ms + llm_ms) / shared,
                shared=shared,
            )

    def _read(self) -> FrameChunk | None:
        try:
            return next(self._chunks, None)
        except SourceError as exc:
            self.broken = str(exc)
            return None

    def _leave_gap(self, *, upto: float) -> None:
        gap = Gap(number=self._number, t0=self._end_s, t1=upto, reason="no pictures there")
        fields = encode(self.encoder.gap(gap))
        self._keep(fields, decode_head(fields))

    def _sent(self, chunk: FrameChunk) -> tuple[dict[str, bytes], TokenChunk]:
        """The chunk as it is sent, and as its reader gets it."""
        started = time.perf_counter()
        fields = encode(self.encoder.encode(replace(chunk, number=self._number)))
        encode_ms = 1e3 * (time.perf_counter() - started)
        received = decode(fields)
        head = received.head
        if head.kind == "I":
            self._untaken, self._group_tokens, self._group_s = [], 0, head.t0
        self._untaken.append(received)
        self._group_tokens += head.tokens
        share = layer_share(
            self.candidate.pipeline,
            tokens=self._group_tokens,
            layers=len(self.model.model.model.language_model.layers),
        )
        self.costs.append(
            ChunkCost(
                clip=self.clip.name,
                seconds=head.t1 - head.t0,
                tokens=head.tokens * share,
                dense=head.dense,
                decode_ms=chunk.decode_ms,
                encode_ms=encode_ms,
            )
        )
        return fields, received

    def _keep(self, fields: dict[str, bytes], head: ChunkHead) -> None:
        """What questions about spans, still to be asked, may be answered from."""
        self._number += 1
        starts = self.clip.spans_from(self._end_s)
        if not starts:
            self._kept = []
            self.queue.trim(JOB, "tokens", before=head.number)
            return
        latest = max(starts)
        if sum(one.tokens for one in self._kept if one.t0 >= latest) > self.serving.max_context:
            fields = {"head": fields["head"]}  # no span fits any more: only told how long it is
        self.queue.append(JOB, "tokens", head.number, fields)
        self._kept.append(head)
        groups = [one for one in self._kept if one.kind == "I" and one.t0 <= min(starts)]
        first = groups[-1].number if groups else self._kept[0].number
        self._kept = [one for one in self._kept if one.number >= first]
        self.queue.trim(JOB, "tokens", before=first)

    def _moment(self, chunk: FrameChunk, received: TokenChunk) -> Moment:
        return Moment(
            t0=received.head.t0,
            t1=received.head.t1,
            after_s=self._end_s,
            before_s=float(chunk.pts[0])
            if self._last_s is None or received.head.kind == "I"
            else self._last_s,
            last_s=float(chunk.pts[-1]),
            group_s=self._group_s,
            last=self._next is None and self.broken is None,
        )

    def _pending(
        self, queries: Sequence[Query], received: TokenChunk, spans: _Spans
    ) -> Pending | None:
        """spans: those that were taken up for other questions of this moment."""
        started, query = time.perf_counter(), queries[0]
        head = received.head
        t0, t1, tokens, dense = head.t0, head.t1, head.tokens, head.dense
        if query.span is None:
            ask = self.ask(query.prompt)
        else:
            t0, t1 = query.span
            try:
                if t0 >= head.t1:
                    raise SpanRefused(f"the video ends at {head.t1:g} s", why="nothing_kept")
                span = self._span(query, (t0, t1), spans)
            except SpanRefused as exc:
                self.refused += [self._refusal(one, (t0, t1), str(exc)) for one in queries]
                return None
            ask = Ask(session=span.session, prompt=query.prompt)
            tokens, dense = span.excerpt.tokens, span.excerpt.dense_tokens
        return Pending(
            stream=self,
            queries=tuple(queries),
            ask=ask,
            t0=t0,
            t1=t1,
            tokens=tokens,
            dense=dense,
            llm_ms=1e3 * (time.perf_counter() - started),
        )

    def _span(self, query: Query, span: tuple[float, float], spans: _Spans) -> _Span:
        """What a service would answer from. Raises SpanRefused."""
        length = self._length(query)
        if span not in spans or spans[span].length > length.limit:
            excerpt = excerpt_of(self.queue, JOB, *span, length=length)
            session = Session(self.model, self.candidate.pipeline)
            for chunk in excerpt.chunks:
                session.append(chunk)
            spans[span] = _Span(session=session, excerpt=excerpt, length=length.used)
        return spans[span]

    def _length(self, query: Query) -> ContextLength:
        known = int(self.model.model.config.text_config.max_position_embeddings)
        question = self.model.layout.question(query.prompt, 0)
        return ContextLength(
            self.model.layout,
            limit=min(known, self.serving.max_context),
            reserve=len(question) + self.serving.max_new_tokens,
        )

    def _refusal(self, query: Query, span: tuple[float, float], why: str) -> Answer:
        return Answer(
            pipeline=self.candidate.label,
            clip=self.clip.name,
            item=query.item,
            t0=span[0],
            t1=span[1],
            question=query.prompt,
            said="",
            judgement=Judgement(expected=query.judge("").expected),
            tokens=0,
            dense=0,
            llm_ms=0.0,
            error=why.removeprefix(f"job {JOB} "),
        )
