"""Settings: YAML, then the environment (STREAMER__…), then the command line; the last one wins.

The only reader of YAML and of the environment.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from streamer.core.keyframes import KeyframePolicy
from streamer.errors import ConfigError

PREFIX = "STREAMER__"
DEFAULT_QUESTION = "Describe what happens."
MOST_CONTEXT = 16384
"""Tokens of a question's context, where the model would take more."""
DEFAULT_PIPELINE: dict[str, Any] = {
    "name": "rlt",
    "change": "robust",
    "anchor": "head",
    "symmetric": True,
}


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class SourceSettings(_Section):
    """How a video is sampled."""

    fps: float = Field(2.0, gt=0, le=60, description="sampled frames per second of media time")
    chunk_s: float = Field(2.0, gt=0, le=60, description="media seconds per chunk")
    decoder: Literal["pyav", "decord"] = Field(
        "pyav",
        description="decord reads clean local files; it needs more of a processor and of memory",
    )
    ahead: int = Field(16, ge=1, description="most chunks a file may be ahead of its captions")
    live: bool | None = Field(
        None,
        description="whether it goes on unread, for ever; if not given, its URL and server tell",
    )
    behind_s: float = Field(
        30.0, gt=0, le=600, description="a live job so far behind its source skips to the present"
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        frames = self.fps * self.chunk_s
        if frames < 1 or abs(frames - round(frames)) > 1e-6:
            raise ValueError(
                f"fps {self.fps:g} × chunk_s {self.chunk_s:g} is {frames:g} frames a chunk; "
                "give a whole number of at least 1, e.g. fps 2 and chunk_s 2"
            )
        return self


class ModelSettings(_Section):
    """Which Qwen3-VL checkpoint captions, and on what."""

    name: str = Field("embedded", description="'embedded', a checkpoint folder, or a hub name")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto is cuda where there is one, else cpu",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto is bfloat16 on cuda, float32 on cpu"
    )
    attention: Literal["auto", "sdpa", "varlen", "triton", "flex"] = Field(
        "auto",
        description="of the vision encoder; auto is sdpa on cpu, varlen or triton on cuda",
    )
    context: Literal["kept", "cached", "dense"] = Field(
        "kept",
        description="what the vision encoder shows to kept cells: each other, what is stored of "
        "the rest too, or the whole picture at its price",
    )
    max_cells: int | None = Field(None, ge=1, description="most tokens of a frame before reduction")
    max_new_tokens: int = Field(64, ge=1, le=4096, description="longest caption or answer")
    batch: int = Field(8, ge=1, le=1024, description="most jobs captioned at once by a worker")


class KeyframeSettings(_Section):
    """When a group ends and an I-chunk is sent."""

    interval_s: float = Field(KeyframePolicy.interval_s, gt=0, description="longest group")
    budget: float = Field(
        KeyframePolicy.budget, ge=1, description="most tokens of a group, in full tubelets"
    )
    cut_share: float = Field(
        KeyframePolicy.cut_share, gt=0, le=1, description="share of cells that change in a cut"
    )


class QueueSettings(_Section):
    """The Redis that the two sides share."""

    url: str | None = Field(
        None, repr=False, description="redis://… or rediss://…; without one a server is started"
    )
    port: int | None = Field(None, ge=1, le=65535, description="of the server that is started")
    server: str | None = Field(None, description="the redis-server to start; found if not given")
    folder: Path = Field(
        Path("~/.local/share/streamer"), description="where a started server keeps the jobs"
    )


class LiveSettings(_Section):
    """How live sources are held on to."""

    stall_s: float = Field(10.0, gt=0, le=300, description="longest time without a picture")
    retry_s: float = Field(0.5, gt=0, le=60, description="pause before the first reconnection")
    retry_max_s: float = Field(
        30.0, gt=0, le=3600, description="longest pause, after many failed reconnections"
    )
    recycle_s: float = Field(
        6 * 3600.0, ge=10, description="age at which a decoding process is replaced"
    )
    recycle_bytes: int = Field(
        1 << 30, ge=64 << 20, description="memory at which a decoding process is replaced"
    )
    buffer_bytes: int = Field(
        128 << 20, ge=1 << 20, description="most pictures of a source that wait to be tokenized"
    )


class RetentionSettings(_Section):
    """How long Redis keeps what was captioned."""

    tokens_s: float = Field(900.0, ge=0, description="of media time that questions can go back")
    tokens_bytes: int = Field(256 << 20, ge=1 << 20, description="most of a job's tokens")
    events_s: float = Field(7 * 86400.0, ge=60, description="of media time that events are kept")
    events_bytes: int = Field(256 << 20, ge=1 << 20, description="most of a job's events")
    archive: str | None = Field(
        None,
        repr=False,
        description="folder or fsspec URL that takes what leaves Redis; without one it is dropped",
    )


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(
            "it is not a network; give one like 10.0.0.0/8, 192.168.1.7/32 or fd00::/8"
        ) from None
    return text


def _absolute(folder: Path) -> Path:
    if not folder.is_absolute():
        raise ValueError("it is not absolute; give one like /srv/videos")
    return folder


class FetchSettings(_Section):
    """What `serve` may fetch for the URLs of strangers; `caption` and `demo` trust their user."""

    allow_networks: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        (), description="CIDR ranges beside public addresses"
    )
    allow_paths: tuple[Annotated[Path, AfterValidator(_absolute)], ...] = Field(
        (), description="folders whose files may be read"
    )
    max_bytes: int = Field(4 << 30, ge=1, description="taken from a server by one reading")
    max_pixels: int = Field(8192 * 4320, ge=1, description="width times height of a picture")
    connect_s: float = Field(5.0, gt=0, le=300, description="longest time to reach a server")
    read_s: float = Field(10.0, gt=0, le=300, description="longest silence of a server")


class TokenSettings(_Section):
    """Who may use the API. A token's jobs share their turns: 12 of one wait for 1 of another."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="whose it is; shown in jobs"
    )
    token: SecretStr = Field(min_length=16, description="what the client sends")
    max_jobs: int = Field(16, ge=1, description="unfinished jobs at a time")
    admin: bool = Field(False, description="sees all jobs, and may scale the pools")


class ApiSettings(_Section):
    """The HTTP side."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 is all")
    port: int = Field(8000, ge=0, le=65535)
    tokens: tuple[TokenSettings, ...] = Field(
        (), description="Bearer tokens; needed when host is not a loopback address"
    )
    keep_alive_s: float = Field(
        15.0, gt=0, le=300, description="longest silence of an event stream"
    )
    max_questions: int = Field(8, ge=1, le=64, description="of one job")
    max_upload_bytes: int = Field(
        64 << 20, ge=1 << 20, le=512 << 20, description="most of a video sent in a request"
    )
    answer_s: float = Field(120.0, gt=0, le=3600, description="longest wait for an answer")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [given.name for given in self.tokens]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two tokens have the name {twice[0]}; give each its own")
        if len({given.token.get_secret_value() for given in self.tokens}) < len(names):
            raise ValueError("two tokens are equal; give each name its own")
        return self


class PoolSettings(_Section):
    """Workers of one kind. Between min and max their number follows the backlog."""

    min: int = Field(1, ge=0, le=1000, description="fewest workers")
    max: int = Field(1, ge=1, le=1000, description="most workers")
    spares: int = Field(0, ge=0, le=100, description="started and idle, to step in at once")
    jobs: int = Field(16, ge=1, le=1000, description="most jobs of one worker")
    cpus: float = Field(0.0, ge=0, description="that Ray sets aside for a worker")
    gpus: float = Field(
        0.0, ge=0, description="that Ray sets aside for a worker; 0.25 is a quarter"
    )
    threads: int | None = Field(None, ge=1, description="of torch; half the machine's if not given")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}; raise max or lower min")
        if self.gpus > 1 and self.gpus % 1:
            raise ValueError(
                f"gpus {self.gpus:g}: Ray gives a worker a part of one GPU or whole ones; "
                "give at most 1, or a whole number"
            )
        return self


class PoolsSettings(_Section):
    """How many workers there are, and what Ray sets aside for each."""

    decode: PoolSettings = PoolSettings()
    tokenize: PoolSettings = PoolSettings()
    caption: PoolSettings = PoolSettings()


class WorkersSettings(_Section):
    """When a worker is given up."""

    silent_s: float = Field(10.0, ge=2, description="without a sign of life")
    starting_s: float = Field(180.0, ge=10, description="from its start to its first sign of life")
    step_s: float = Field(120.0, ge=5, description="longest work on one chunk")
    strikes: int = Field(5, ge=1, description="workers lost at one chunk before its job fails")


def _address(text: str) -> str:
    if text != "auto" and not re.fullmatch(r"[^\s:/]+:\d{1,5}|\[[0-9A-Fa-f:.]+\]:\d{1,5}", text):
        raise ValueError(
            "give host:port of the Ray head, e.g. ray-head:6379, or auto for the Ray node here"
        )
    return text


class RaySettings(_Section):
    """The cluster."""

    address: Annotated[str, AfterValidator(_address)] | None = Field(
        None, description="of a running cluster, host:port or auto; without one Ray is started here"
    )


class LogSettings(_Section):
    """What the processes say on stderr."""

    format: Literal["console", "json"] = Field(
        "console", description="for people, or one JSON object a line"
    )
    level: Literal["debug", "info", "warning", "error"] = "info"


def _has_words(text: str) -> str:
    if not text.strip():
        raise ValueError("a question needs words")
    return text


class JobSettings(_Section):
    """What a job may choose for itself."""

    source: SourceSettings = SourceSettings()
    pipeline: tuple[dict[str, Any], ...] = (DEFAULT_PIPELINE,)
    keyframes: KeyframeSettings = KeyframeSettings()


class Settings(BaseSettings):
    """All of it."""

    model_config = _Section.model_config  # type: ignore[assignment]  # a SettingsConfigDict would read the environment by itself

    source: SourceSettings = SourceSettings()
    model: ModelSettings = ModelSettings()
    pipeline: tuple[dict[str, Any], ...] = Field(
        JobSettings().pipeline, description="operators in order; [] keeps every cell"
    )
    keyframes: KeyframeSettings = KeyframeSettings()
    question: Annotated[str, AfterValidator(_has_words)] = Field(
        DEFAULT_QUESTION, description="what is asked about every chunk"
    )
    queue: QueueSettings = QueueSettings()
    fetch: FetchSettings = FetchSettings()
    live: LiveSettings = LiveSettings()
    retention: RetentionSettings = RetentionSettings()
    api: ApiSettings = ApiSettings()
    pools: PoolsSettings = PoolsSettings()
    workers: WorkersSettings = WorkersSettings()
    ray: RaySettings = RaySettings()
    log: LogSettings = LogSettings()

    @property
    def job(self) -> JobSettings:
        """What a job gets that chooses nothing."""
        return JobSettings(source=self.source, pipeline=self.pipeline, keyframes=self.keyframes)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # load() reads the environment, so that a value has one origin


def load(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Reads `path` (None: defaults only), the environment and `overrides`; all problems at once.

    Raises ConfigError, which names each setting by its YAML path, its value (never a secret) and
    what is allowed.
    """
    given = _merge(_merge(_yaml(path), _environment()), dict(overrides or {}))
    if strange := [key for key in given if not isinstance(key, str)]:
        raise ConfigError(f"{path}: {strange[0]!r}: there is no such setting")
    try:
        return Settings(**given)
    except ValidationError as exc:
        where = f"{path}: " if path else ""
        raise ConfigError(where + "; ".join(_problem(error) for error in exc.errors())) from exc


def walk(section: type[BaseModel] = Settings) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every setting below `section` with its path, in order; of a list, the list itself."""
    for name, field in section.model_fields.items():
        below = field.annotation
        if isinstance(below, type) and issubclass(below, BaseModel):
            yield from (((name, *path), leaf) for path, leaf in walk(below))
        else:
            yield (name,), field


def _yaml(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark  # its text may show a secret
        line = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"{path} is not YAML: {line}{exc.problem or exc.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(exc).split())}") from exc
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path} must hold a mapping of settings, it holds {type(value).__name__}"
        )
    return value


def _environment() -> dict[str, Any]:
    given: dict[str, Any] = {}
    for variable in sorted(os.environ):  # a section before what lies in it
        name = variable.upper()
        if name.startswith(PREFIX):
            path = name.removeprefix(PREFIX).lower().split("__")
            value = _environment_value(variable, path)
            for part in reversed(path):
                value = {part: value}
            given = _merge(given, value)
    return given


def _environment_value(variable: str, path: Sequence[str]) -> Any:
    text, field = os.environ[variable], _field(path)
    if field is None:
        raise ConfigError(f"{variable} in the environment: {_no_such(path)}")
    if not _is_section(field) and not _is_list(field):
        return text
    try:
        return json.loads(text)
    except ValueError:
        shown = "it" if _secret(field) else repr(text)
        wanted = "an object, or one variable per setting" if _is_section(field) else "a list"
        raise ConfigError(
            f"{variable} in the environment: {_dotted(path)}: {shown} is not JSON; give {wanted}"
        ) from None


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(under, dict) and isinstance(value, Mapping)
        merged[key] = _merge(under, value) if both else value  # type: ignore[arg-type]  # checked above
    return merged


_WANTED = {
    "tuple_type": "give a list",
    "model_type": "give a mapping of settings",
    "dict_type": "give a mapping",
    "too_short": "give at least {min_length} characters",
}
"""For people, where pydantic speaks of Python's types."""


def _problem(error: Any) -> str:
    path: tuple[str | int, ...] = error["loc"]
    if error["type"] == "extra_forbidden":
        return _no_such(path)
    if error["type"] == "missing":
        return f"{_dotted(path)}: it must be given"
    given = "its value" if _secret(_field(path)) else repr(error["input"])
    if error["type"] in _WANTED:
        wanted = _WANTED[error["type"]].format(**error.get("ctx", {}))
    else:
        said = error["msg"].removeprefix("Value error, ")
        wanted = said[0].lower() + said[1:]
    return f"{_dotted(path)}: {given} is not allowed: {wanted}"


def _no_such(path: Sequence[str | int]) -> str:
    """That there is no such setting, and which may have been meant."""
    known = 0
    while _field(path[: known + 1]) is not None:
        known += 1
    name, parent = str(path[known]), _field(path[:known])
    sections = _sections(parent.annotation) if parent else [Settings]
    beside = [below for section in sections for below in section.model_fields]
    meant = [_dotted([*path[:known], near]) for near in difflib.get_close_matches(name, beside, 1)]
    moved = [_dotted(place) for place, _ in walk() if place[-1] == name]
    hint = f"; did you mean {(meant or moved)[0]}?" if meant or moved else ""
    return f"{_dotted(path[: known + 1])}: there is no such setting{hint}"


def _dotted(path: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]


def _field(path: Sequence[str | int]) -> FieldInfo | None:
    """The setting at a path, of which a number leads to an entry of a list; None if none is."""
    sections: list[type[BaseModel]] = [Settings]
    field = None
    for name in path:
        if isinstance(name, str):
            fields = (section.model_fields.get(name) for section in sections)
            field = next((field for field in fields if field), None)
            sections = _sections(field.annotation) if field else []
    return field


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections in a type: the entry's of a list, the section itself of a section."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _is_list(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is tuple


def _secret(field: FieldInfo | None) -> bool:
    """Whether a value given for it may hold a secret."""
    if field is None or not field.repr or field.annotation is SecretStr:
        return True
    return any(
        _secret(below)
        for section in _sections(field.annotation)
        for below in section.model_fields.values()
    )
