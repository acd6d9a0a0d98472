"""Settings: YAML, then the environment (STREAMER__…), then the command line; the last one wins.

The only reader of YAML and of the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsError,
)

from streamer.core.keyframes import KeyframePolicy
from streamer.errors import ConfigError

PREFIX = "STREAMER__"
DEFAULT_QUESTION = "Describe what happens."


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SourceSettings(_Section):
    """How a video is sampled."""

    fps: float = Field(2.0, gt=0, le=60, description="sampled frames per second of media time")
    chunk_s: float = Field(2.0, gt=0, le=60, description="media seconds per chunk")


class ModelSettings(_Section):
    """Which Qwen3-VL checkpoint captions, and on what."""

    name: str = Field("embedded", description="'embedded', a checkpoint folder, or a hub name")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_cells: int | None = Field(None, ge=1, description="most tokens of a frame before reduction")
    max_new_tokens: int = Field(64, ge=1, le=4096)


class KeyframeSettings(_Section):
    """When a group ends and an I-chunk is sent."""

    interval_s: float = Field(KeyframePolicy.interval_s, gt=0)
    budget: float = Field(KeyframePolicy.budget, ge=1)
    cut_share: float = Field(KeyframePolicy.cut_share, gt=0, le=1)


class QueueSettings(_Section):
    """The Redis that the two sides share."""

    url: str | None = Field(None, description="redis://…; without one a server is started")
    port: int | None = Field(None, ge=1, le=65535, description="of the server that is started")
    server: str | None = Field(None, description="the redis-server to start; found if not given")
    ahead: int = Field(16, ge=1, description="most chunks a file may be ahead of its captions")


def _has_words(text: str) -> str:
    if not text.strip():
        raise ValueError("a question needs words")
    return text


class Settings(BaseSettings):
    """All of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)  # type: ignore[assignment]  # a SettingsConfigDict would read the environment by itself

    source: SourceSettings = SourceSettings()
    model: ModelSettings = ModelSettings()
    pipeline: tuple[dict[str, Any], ...] = ({"name": "rlt"},)
    keyframes: KeyframeSettings = KeyframeSettings()
    queue: QueueSettings = QueueSettings()
    question: Annotated[str, AfterValidator(_has_words)] = DEFAULT_QUESTION

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

    Raises ConfigError, which names each setting by its YAML path, its value and what is allowed.
    """
    given = _merge(_merge(_yaml(path), _environment()), dict(overrides or {}))
    if strange := [key for key in given if not isinstance(key, str)]:
        raise ConfigError(f"{path}: {strange[0]!r}: there is no such setting")
    try:
        return Settings(**given)
    except ValidationError as exc:
        where = f"{path}: " if path else ""
        raise ConfigError(where + "; ".join(_problem(error) for error in exc.errors())) from exc


def _yaml(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
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
    source = EnvSettingsSource(
        Settings, env_prefix=PREFIX, env_nested_delimiter="__", case_sensitive=False
    )
    try:
        return source()
    except SettingsError as exc:
        raise ConfigError(f"environment: {exc}; give JSON, or one variable per setting") from exc


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(under, dict) and isinstance(value, Mapping)
        merged[key] = _merge(under, value) if both else value  # type: ignore[arg-type]  # checked above
    return merged


def _problem(error: Any) -> str:
    at = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{at}: there is no such setting"
    message = error["msg"].removeprefix("Value error, ")
    return f"{at}: {error['input']!r} is not allowed: {message[0].lower()}{message[1:]}"
