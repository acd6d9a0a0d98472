"""What the manifests say to `streamer`, to Ray and to Redis, read by those who will read it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from streamer.cli import app
from streamer.config import PREFIX, Settings, load

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs"
IN_IMAGE = "/etc/streamer/"
"""Where the image has the files of configs/."""


def streamer(arguments: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Command and options of a `streamer` command line; raises where it would not be taken."""
    group: Any = typer.main.get_command(app)
    name, *rest = arguments
    assert name in group.commands, f"streamer has no command {name!r}"
    return name, group.commands[name].make_context(name, list(rest)).params


def ray_start(arguments: Sequence[str]) -> dict[str, Any]:
    """The options of a `ray start` command line; raises where Ray would not take it."""
    command, *rest = arguments
    assert command == "start"
    return dict(_ray_commands()["start"].make_context("start", list(rest)).params)


@functools.cache
def _ray_commands() -> Any:
    from ray.scripts.scripts import cli

    return cli.commands


def settings(config: Path, environment: Mapping[str, str]) -> Settings:
    """What a container with this file and these variables reads; raises for one that is unknown."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            if name.startswith(PREFIX):
                patch.setenv(name, value)
        return load(config)


def config_of(options: Mapping[str, Any]) -> Path:
    """The file here that `--config` names in the image."""
    given = str(options["config"])
    assert given.startswith(IN_IMAGE)
    return CONFIGS / given.removeprefix(IN_IMAGE)


def check_redis(arguments: Sequence[str]) -> None:
    """A Redis that keeps what it has acknowledged, and drops nothing by itself."""
    server, *rest = arguments
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    assert server == "redis-server"
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--maxmemory"].endswith("gb")
