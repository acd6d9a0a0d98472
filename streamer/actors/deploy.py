"""The workers as Ray actors.

Every worker is a detached, named actor whose constructor starts its life in a thread of its own.
Ray starts an actor that died again; nobody needs to call it, because it finds in the roster what to
do and in the queue how far that has come.
"""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import structlog

from streamer.actors.controller import STEP_S, Controller
from streamer.actors.decode import DecodeWorker, End, Failure, NotYet, Reading
from streamer.actors.janitor import janitor_for
from streamer.actors.life import BEAT_S, Life
from streamer.actors.lives import LiveSources
from streamer.actors.ray_cluster import NAMESPACE
from streamer.actors.remote_decoder import RemoteDecoders
from streamer.adapters.clock import SYSTEM_CLOCK
from streamer.adapters.redis_asks import RedisAsks
from streamer.adapters.redis_client import connect
from streamer.adapters.redis_queue import RedisQueue
from streamer.adapters.redis_roster import RedisRoster
from streamer.adapters.redis_uploads import RedisUploads
from streamer.archive import Archive
from streamer.config import ApiSettings, Settings
from streamer.errors import ModelError, QueueError
from streamer.log import configure
from streamer.sources import Limits
from streamer.sources.guard import FetchPolicy
from streamer.sources.live import LiveOptions
from streamer.types import FrameChunk
from streamer.workers import CONTROLLER, kind_of

if TYPE_CHECKING:
    from streamer.model import VideoModel

DECODE_IDLE_S = 120.0
"""After so long without a read a source is closed, to be opened again when it is asked for."""
NICE = {"decode": 19, "tokenize": 10}
"""What is begun is finished first: where processors are short, early stages wait for late ones."""

log = structlog.get_logger(__name__)


class LivingActor:
    """A process that reports, and lives by itself from its construction on."""

    def __init__(self, name: str, settings: Settings, policy: FetchPolicy) -> None:
        configure(settings.log)
        _be_nice(NICE.get(kind_of(name) or name, 0))
        assert settings.queue.url is not None
        self.name = name
        self.settings = settings
        self.policy = policy
        self.client = connect(settings.queue.url)
        self.queue = RedisQueue(self.client)
        self.roster = RedisRoster(self.client)
        self.life = Life(
            name,
            kind_of(name) or name,
            self.roster,
            SYSTEM_CLOCK,
            node=ray.util.get_node_ip_address(),
        )
        self.life.start_reporting()
        threading.Thread(target=self._run, name="work", daemon=True).start()

    def _run(self) -> None:
        try:
            self.live()
        except BaseException:
            log.critical("worker_crashed", worker=self.name, exc_info=True)
            raise
        finally:
            os._exit(1)  # an actor whose thread ended would look alive; Ray starts it again

    def live(self) -> None:
        """Its work; never returns."""
        raise NotImplementedError


class DecodeActor(LivingActor):
    """DecodeWorker on Ray: called by tokenizers, from many threads."""

    def __init__(self, name: str, settings: Settings, policy: FetchPolicy) -> None:
        fetch, live = settings.fetch, settings.live
        limits = Limits(
            connect_s=fetch.connect_s,
            read_s=fetch.read_s,
            max_bytes=fetch.max_bytes,
            max_pixels=fetch.max_pixels,
        )
        options = LiveOptions(
            stall_s=live.stall_s,
            retry_s=live.retry_s,
            retry_max_s=live.retry_max_s,
            recycle_s=live.recycle_s,
            recycle_bytes=live.recycle_bytes,
            buffer_bytes=live.buffer_bytes,
        )
        lives = LiveSources(policy=policy, limits=limits, options=options)
        assert settings.queue.url is not None
        uploads = RedisUploads(connect(settings.queue.url))
        self.worker = DecodeWorker(policy, limits, lives=lives, uploads=uploads)
        super().__init__(name, settings, policy)

    def read(
        self, reading: Reading, start_s: float, wall_s: float | None = None
    ) -> FrameChunk | End | Failure | NotYet:
        return self.worker.read(reading, start_s, wall_s)

    def close(self, job: str) -> None:
        self.worker.close(job)

    def live(self) -> None:
        self.life.serve(self.worker)
        while True:
            self.worker.close_idle(DECODE_IDLE_S)
            SYSTEM_CLOCK.sleep(DECODE_IDLE_S / 10)


class ModelActor(LivingActor):
    """An actor with a model; what needs torch is imported in its process alone."""

    def _model(self) -> VideoModel:
        import torch

        from streamer.model import load_model

        # pictures from the object store are read-only, and nobody writes into them
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        pool = getattr(self.settings.pools, self.life.kind)
        # Ray would give each one thread
        torch.set_num_threads(pool.threads or max(1, (os.cpu_count() or 2) // 2))
        wanted = self.settings.model
        while True:
            try:
                return load_model(
                    wanted.name,
                    device=wanted.device,
                    dtype=wanted.dtype,
                    # what captions alone does not run the vision encoder
                    attention=wanted.attention if self.life.kind == "tokenize" else "auto",
                    context=wanted.context,
                    max_cells=wanted.max_cells,
                )
            except ModelError as exc:
                self.life.error = str(exc)
                log.error("model_not_loaded", worker=self.name, reason=str(exc))
                SYSTEM_CLOCK.sleep(10 * BEAT_S)


class TokenizeActor(ModelActor):
    """TokenizeWorker on Ray."""

    def live(self) -> None:
        from streamer.actors.tokenize import TokenizeWorker, encoder_for
        from streamer.core.pipeline import operator_schemas

        model = self._model()
        self.roster.publish("operators", json.dumps(operator_schemas()))
        decoders = RemoteDecoders(SYSTEM_CLOCK)
        worker = TokenizeWorker(
            self.queue,
            SYSTEM_CLOCK,
            decoder_of=decoders.of,
            encoder_of=lambda job: encoder_for(model, job),
            wait=decoders.wait,
            unread_bytes=self.settings.retention.tokens_bytes // 4,
        )
        self.life.live("tokenize", worker)


class CaptionActor(ModelActor):
    """CaptionWorker on Ray."""

    def live(self) -> None:
        from streamer.actors.caption import CaptionWorker
        from streamer.actors.desk import AskDesk

        model = self._model()
        wanted, archive = self.settings.model, self.settings.retention.archive
        desk = AskDesk(
            self.name,
            RedisAsks(self.client),
            self.queue,
            model,
            SYSTEM_CLOCK,
            max_new_tokens=wanted.max_new_tokens,
            older=Archive(archive).groups if archive else None,
            executor=ThreadPoolExecutor(1, thread_name_prefix="desk"),
        )
        worker = CaptionWorker(
            model,
            self.queue,
            SYSTEM_CLOCK,
            batch=wanted.batch,
            max_new_tokens=wanted.max_new_tokens,
            desk=desk,
        )
        self.life.live("caption", worker)


class ControllerActor(LivingActor):
    """Controller on Ray."""

    def live(self) -> None:
        fleet = RayFleet(self.settings, self.policy)
        controller = Controller(self.settings, self.queue, self.roster, fleet, SYSTEM_CLOCK)
        threading.Thread(target=self._tidy, name="janitor", daemon=True).start()
        self.life.state = "ready"
        while True:
            try:
                controller.step()
            except QueueError as exc:
                log.warning("queue_lost", worker=self.name, reason=str(exc))
            SYSTEM_CLOCK.sleep(STEP_S)

    def _tidy(self) -> None:
        """The janitor's life; like that of the work, its end is the actor's."""
        retention = self.settings.retention
        try:
            janitor = janitor_for(retention, self.queue, self.roster, SYSTEM_CLOCK)
            janitor.run(threading.Event())
        except BaseException:
            log.critical("worker_crashed", worker=self.name, exc_info=True)
            raise
        finally:
            os._exit(1)


CLASSES: dict[str, type[LivingActor]] = {
    "decode": DecodeActor,
    "tokenize": TokenizeActor,
    "caption": CaptionActor,
    CONTROLLER: ControllerActor,
}


class RayFleet:
    """The actors of the present cluster: Fleet on Ray."""

    def __init__(self, settings: Settings, policy: FetchPolicy) -> None:
        # nothing that only the HTTP side must know goes to the workers
        self.settings = settings.model_copy(update={"api": ApiSettings()})
        self.policy = policy

    def names(self) -> set[str]:
        known: Iterable[dict[str, str]] = ray.util.list_named_actors(all_namespaces=True)
        return {actor["name"] for actor in known if actor["namespace"] == NAMESPACE}

    def start(self, name: str) -> None:
        kind = kind_of(name)
        options: dict[str, Any] = {"num_cpus": 0, "num_gpus": 0}
        if kind is not None:
            pool = getattr(self.settings.pools, kind)
            options = {"num_cpus": pool.cpus, "num_gpus": pool.gpus}
            if kind == "decode":
                options["max_concurrency"] = 2 * pool.jobs
        ray.remote(CLASSES[kind or name]).options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_task_retries=0,
            enable_task_events=False,  # the head would keep a record of every call
            scheduling_strategy="SPREAD",
            **options,
        ).remote(name, self.settings, self.policy)

    def restart(self, name: str) -> None:
        self._kill(name, again=True)

    def stop(self, name: str) -> None:
        self._kill(name, again=False)

    def _kill(self, name: str, *, again: bool) -> None:
        with suppress(ValueError):  # gone already
            ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=not again)


def _be_nice(level: int) -> None:
    """Lowers this process's priority, also among the sessions that Linux groups processes by."""
    os.nice(level)
    if level and os.getsid(0) == os.getpid():
        with suppress(OSError):  # a kernel without autogroups compares processes as they are
            Path("/proc/self/autogroup").write_text(str(level), encoding="ascii")
