"""Every pipeline over every clip, some clips side by side as a captioner has them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from streamer.evaluation.answers import Answer, Run
from streamer.evaluation.dataset import Clip, Dataset
from streamer.evaluation.pipelines import Candidate
from streamer.evaluation.stream import Pending, Serving, Stream
from streamer.language.decoding import answer
from streamer.model import VideoModel


def evaluate(
    dataset: Dataset,
    candidates: Sequence[Candidate],
    model: VideoModel,
    *,
    serving: Serving,
    together: int,
    answered: Callable[[Answer], None] = lambda _: None,
    progressed: Callable[[int], None] = lambda _: None,
    runs: list[Run] | None = None,
) -> list[Run]:
    """What each pipeline says of the dataset, in the order of `candidates`.

    All pipelines are through with some clips before any is given the next ones: an interrupted run
    has compared what it has seen.
    together: clips at a time. answered: is given every answer at once. progressed: is given how
    often a clip has been through a pipeline, of len(dataset) × len(candidates) times. runs: the
    list to fill as it goes, for a caller who may be interrupted; it holds whole clips only.
    """

    def stream_of(clip: Clip, candidate: Candidate) -> Stream:
        return Stream(clip, model, candidate, serving)

    runs = [] if runs is None else runs
    runs += [Run(label=one.label, family=one.family, dense=one.dense) for one in candidates]
    clips, done = iter(dataset), 0
    while some := list(islice(clips, together)):
        if not done:
            _warm_up(model, (stream_of(some[0], candidate) for candidate in candidates))
        for candidate, run in zip(candidates, runs, strict=True):
            streams = [stream_of(clip, candidate) for clip in some]
            answers = []
            for told in _answers(model, streams, serving):
                answers.append(told)
                answered(told)
            run.answers += answers
            for stream in streams:
                run.costs += stream.costs
                if stream.broken is not None:
                    run.broken[stream.clip.name] = stream.broken
            done += len(some)
            progressed(done)
    return runs


def _warm_up(model: VideoModel, streams: Iterable[Stream]) -> None:
    """A chunk through each, for what is compiled or allocated when it is first used."""
    for stream in streams:
        if stream.advance() is not None:  # whether or not anything is asked of it
            answer(model, [stream.ask("What is there?")], max_new_tokens=2)


def _answers(model: VideoModel, streams: Sequence[Stream], serving: Serving) -> Iterator[Answer]:
    """A chunk of every stream, then the answers about all of them, and so on to their ends."""
    alive = list(streams)
    while alive:
        pending: list[Pending] = []
        left = []
        for stream in alive:
            asked = stream.advance()
            yield from stream.refused
            stream.refused.clear()
            if asked is not None:
                left.append(stream)
                pending += asked
        alive = left
        for together in _calls(pending, room=serving.max_context):
            started = time.perf_counter()
            asks = [one.ask for one in together]
            said = answer(model, asks, max_new_tokens=serving.max_new_tokens)
            each_ms = 1e3 * (time.perf_counter() - started) / len(together)
            for one, told in zip(together, said, strict=True):
                yield from one.stream.answered(one, told.text, llm_ms=each_ms)


def _calls(pending: Sequence[Pending], *, room: int) -> Iterator[list[Pending]]:
    """What is answered together: captions all, spans as many as fit where the longest one would.

    Contexts that are decoded side by side are as long as the longest of them.
    """
    if captions := [one for one in pending if not one.past]:
        yield captions
    left = sorted((one for one in pending if one.past), key=_length)
    while left:
        fitting = (n for n in range(len(left), 1, -1) if _fit(left[:n], room))
        some = left[: next(fitting, 1)]
        yield some
        left = left[len(some) :]


def _fit(rising: Sequence[Pending], room: int) -> bool:
    longest = _length(rising[-1])
    return longest <= 2 * _length(rising[0]) and longest * len(rising) <= room


def _length(pending: Pending) -> int:
    return pending.ask.session.length
