"""The workers on Ray: the only file that knows it.

Each actor's `run` is one long call. An actor that dies is started again by Ray, which then repeats
the call; the worker finds in the queue how far it had come.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from streamer.actors.decode import DecodeWorker, End, Failure, Reading
from streamer.adapters.clock import SYSTEM_CLOCK
from streamer.adapters.redis_client import connect
from streamer.adapters.redis_queue import RedisQueue
from streamer.config import ModelSettings
from streamer.errors import (
    ConfigError,
    ModelError,
    SourceError,
    StreamGone,
    WireError,
    WriterReplaced,
)
from streamer.jobs import Job
from streamer.types import FrameChunk

if TYPE_CHECKING:
    from streamer.model import VideoModel

RESTARTS = 20
"""Most times an actor is started again: a chunk that kills its worker must not do so for ever."""
DECODE_TIMEOUT_S = 90.0
"""For a chunk; to come to one late in a source that cannot be entered midway may take longer."""
LONGEST_FOLDER = 32


class DecodeActor(DecodeWorker):
    """DecodeWorker on Ray."""

    def pid(self) -> int:
        return os.getpid()


class RemoteDecoder:
    """A decode actor seen by the tokenizer: one chunk is always being decoded ahead."""

    def __init__(self, actor: Any, reading: Reading) -> None:
        self.actor = actor
        self.reading = reading
        self.ahead: tuple[float, Any] | None = None

    def read(self, start_s: float) -> FrameChunk | End | Failure:
        """As DecodeWorker.read; an actor that does not answer in time is replaced once."""
        timeout_s = max(DECODE_TIMEOUT_S, start_s)
        for attempt in (1, 2):
            if self.ahead is None or abs(self.ahead[0] - start_s) > 1e-6:
                self.ahead = (start_s, self.actor.read.remote(self.reading, start_s))
            try:
                read: FrameChunk | End | Failure = ray.get(self.ahead[1], timeout=timeout_s)
            except ray.exceptions.GetTimeoutError:
                self.ahead = None
                ray.kill(self.actor, no_restart=attempt == 2)
                continue
            except ray.exceptions.RayActorError as exc:
                return Failure(reason=f"the decoder died on it {RESTARTS} times: {exc}")
            self.ahead = None
            if isinstance(read, FrameChunk):
                self.ahead = (read.t1, self.actor.read.remote(self.reading, read.t1))
            return read
        return Failure(
            reason=f"the decoder did not answer within {timeout_s:g} s, twice; "
            f"it hangs at {start_s:g} s"
        )


class ModelActor:
    """An actor with a model; what needs torch is imported in its process alone."""

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url

    def pid(self) -> int:
        return os.getpid()

    def _queue(self) -> RedisQueue:
        return RedisQueue(connect(self.redis_url))

    def _model(self, settings: ModelSettings) -> VideoModel:
        import torch

        from streamer.model import load_model

        # two such actors share the machine; Ray would give each one thread
        torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
        return load_model(
            settings.name,
            device=settings.device,
            dtype=settings.dtype,
            max_cells=settings.max_cells,
        )


class TokenizeActor(ModelActor):
    """TokenizeWorker on Ray."""

    def run(self, job: Job, decoder: Any) -> None:
        """Tokenizes the job to its end; a failure is told in the job's record."""
        from streamer.actors.tokenize import TokenizeWorker, encoder_for

        queue, source = self._queue(), job.settings.source
        reading = Reading(job=job.id, url=job.url, fps=source.fps, chunk_s=source.chunk_s)
        try:
            model = self._model(job.settings.model)
            worker = TokenizeWorker(
                job,
                RemoteDecoder(decoder, reading),
                queue,
                SYSTEM_CLOCK,
                lambda job: encoder_for(model, job),
            )
            while worker.step():
                pass
        except (StreamGone, WriterReplaced):
            return
        except (ConfigError, ModelError, SourceError, WireError) as exc:
            last = str(queue.last(job.id, "tokens"))
            queue.update_job(job.id, {"last_chunk": last, "error": str(exc)})


class CaptionActor(ModelActor):
    """CaptionWorker on Ray."""

    def run(self, job: Job) -> None:
        """Captions the job to its end."""
        from streamer.actors.caption import CaptionWorker

        queue = self._queue()
        try:
            model = self._model(job.settings.model)
            worker = CaptionWorker(job, model, queue, SYSTEM_CLOCK)
            while worker.step():
                pass
        except (StreamGone, WriterReplaced):
            return
        except ModelError as exc:
            queue.update_job(job.id, {"state": "failed", "error": str(exc)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The actors that carry one job, and their runs."""

    actors: dict[str, Any]
    runs: dict[str, Any]

    def pid(self, name: str) -> int:
        """The process of `decode`, `tokenize` or `caption`."""
        pid: int = ray.get(self.actors[name].pid.remote(), timeout=60)
        return pid

    def stopped(self, *, tokenized: bool) -> str | None:
        """Why nothing more will come; None while all is well.

        tokenized: the record says that the token stream is complete, so its worker may have ended.
        """
        done, _ = ray.wait(list(self.runs.values()), num_returns=len(self.runs), timeout=0)
        for name, run in self.runs.items():
            if run in done:
                try:
                    ray.get(run, timeout=1)
                except ray.exceptions.RayError as exc:
                    return f"the {name} worker failed: {_cause(exc)}"
                if name == "caption" or not tokenized:
                    return f"the {name} worker was replaced by another writer of this job"
        return None


def start_ray(folder: str) -> None:
    """A local Ray of this process's own; quiet, without a dashboard, its files in `folder`."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        # its sockets lie there, and a socket's path holds 107 bytes at most
        _temp_dir=folder if len(folder) <= LONGEST_FOLDER else None,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=True,
    )


def stop_ray() -> None:
    """Ends the local Ray and its processes."""
    ray.shutdown()


def start_workers(job: Job, redis_url: str) -> Workers:
    """Three actors for one job, running."""
    restarting = {"max_restarts": RESTARTS, "max_task_retries": RESTARTS, "num_cpus": 0}
    decode = ray.remote(**restarting)(DecodeActor).remote()
    tokenize = ray.remote(**restarting, max_concurrency=2)(TokenizeActor).remote(redis_url)
    caption = ray.remote(**restarting, max_concurrency=2)(CaptionActor).remote(redis_url)
    return Workers(
        actors={"decode": decode, "tokenize": tokenize, "caption": caption},
        runs={"tokenize": tokenize.run.remote(job, decode), "caption": caption.run.remote(job)},
    )


def _cause(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__
