"""Workers as the service sees them: what each reports, and which jobs each is given."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

WorkerKind = Literal["decode", "tokenize", "caption"]
KINDS: tuple[WorkerKind, ...] = get_args(WorkerKind)

CONTROLLER = "controller"
"""The name under which the controller reports; it is no pool's worker."""


def kind_of(name: str) -> WorkerKind | None:
    """The kind of a pool's worker, from its name `<kind>-<n>`."""
    kind, _, number = name.rpartition("-")
    return next((known for known in KINDS if known == kind and number.isdecimal()), None)


LATENCY_BUCKETS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """A live source at a moment."""

    connected: bool
    reconnects: int = 0
    """Since its decode worker took it up."""
    reason: str | None = None
    """Why it is not connected."""
    pid: int = 0
    """Of the process that decodes it; 0 between two."""
    rss_bytes: int = 0
    """Of that process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a worker has come with a job."""

    chunk: int
    """Number of the last chunk done."""
    t1: float
    """Its end in media seconds."""
    source: SourceState | None = None
    """Of a decode worker with a live source."""
    level: int = 0
    """Of a tokenize worker: how far a live job is thinned out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """A sign of life: what a worker says of itself about once a second."""

    name: str
    """`<kind>-<n>`, or `controller`; stays the same when the worker is started again."""
    kind: str
    boot: str
    """A new one at every start of its process."""
    beat: int
    """Grows with every report of a boot."""
    state: Literal["starting", "ready"] = "ready"
    error: str | None = None
    """Why it cannot work, e.g. that its model cannot be loaded; it goes on trying."""
    node: str = ""
    """Address of its machine."""
    pid: int = 0
    rss_bytes: int = 0
    backlog: int = 0
    """Jobs whose next chunk could be worked on now, and waits for its turn."""
    busy_s: float = 0.0
    """Time in work since its boot."""
    step_s: float = 0.0
    """How long the present piece of work has lasted; 0 between two."""
    chunks: int = 0
    """Done since its boot."""
    latency_s: float = 0.0
    """Sum of their latencies: of one chunk at this stage, or through all stages for captions."""
    latencies: tuple[int, ...] = (0,) * (len(LATENCY_BUCKETS_S) + 1)
    """How many of them fell into each of LATENCY_BUCKETS_S, and beyond; not cumulative."""
    batch: float = 0.0
    """Mean rows of the batch that a captioner decoded at once; 0 before the first."""
    jobs: dict[str, Progress] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which workers carry a job. Written by the controller, read by the workers."""

    tenant: str
    created_at: float = 0.0
    """The job's: another job of the same id is another job."""
    decode: str | None = None
    tokenize: str | None = None
    caption: str | None = None
    paused: bool = False
    strikes: int = 0
    """Workers that were lost with this job since it last came further."""
    struck_at: int = 0
    """Its last captioned chunk when it last lost one."""
    keyframes: int = 0
    """How often an I-chunk was asked for."""

    def on(self, kind: WorkerKind) -> str | None:
        """The name of its worker of a kind."""
        name: str | None = getattr(self, kind)
        return name

    def moved(self, kind: WorkerKind, name: str | None) -> Placement:
        """The same with another worker of a kind."""
        changed: dict[str, Any] = {kind: name}
        return replace(self, **changed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many workers a pool has: from min to max, by its backlog."""

    min: int
    max: int
