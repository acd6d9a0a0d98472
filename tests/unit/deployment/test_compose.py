"""docker-compose.yml: its parts fit each other, this version's command line and its settings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from tests.unit.deployment.commands import (
    ROOT,
    check_redis,
    config_of,
    ray_start,
    settings,
    streamer,
)

FILE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(\w+):([-?])([^}]*)\}")
TOKEN = {"TOKEN": "0123456789abcdef"}
PROFILES = [TOKEN, {**TOKEN, "COMPOSE_PROFILES": "gpu"}]


def filled(value: Any, environment: Mapping[str, str]) -> Any:
    """As Compose fills in ${NAME:-default} and ${NAME:?what is wrong}."""
    if isinstance(value, dict):
        return {key: filled(below, environment) for key, below in value.items()}
    if isinstance(value, list):
        return [filled(below, environment) for below in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        name, kind, text = found.groups()
        given = environment.get(name)
        assert given or kind == "-", text
        return given or text

    return VARIABLE.sub(fill, value)


def compose(environment: Mapping[str, str] = TOKEN) -> Any:
    return filled(yaml.safe_load(FILE.read_text()), environment)


SERVICES: dict[str, Any] = compose()["services"]
OURS = [name for name in SERVICES if name not in ("redis", "ray-head")]


def test_the_services_are_these() -> None:
    assert list(SERVICES) == ["redis", "ray-head", "worker", "worker-gpu", "api"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_watched_and_started_again(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["healthcheck"]["timeout"]
    assert service["stop_grace_period"]
    if service["image"] != "redis:7.4-alpine":
        assert service["init"]
        assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_the_health_of_those_it_needs(name: str) -> None:
    needs = SERVICES[name].get("depends_on", {})
    for other, how in needs.items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[other]
    text = str([SERVICES[name].get("environment"), SERVICES[name].get("command")])
    named = {other for other in SERVICES if re.search(rf"\b{other}:\d", text)}
    assert named <= {*needs, name}
    assert bool(named) == (name in OURS)


@pytest.mark.parametrize("name", SERVICES)
def test_only_the_api_is_published_and_only_to_this_machine(name: str) -> None:
    ports = SERVICES[name].get("ports", [])
    assert ports == (["127.0.0.1:8000:8000"] if name == "api" else [])
    assert "network_mode" not in SERVICES[name]


def test_volumes_are_declared_or_folders() -> None:
    volumes = [volume for s in SERVICES.values() for volume in s.get("volumes", [])]
    sources = {volume.split(":")[0] for volume in volumes}
    assert {source for source in sources if source[0] not in "./"} == set(compose()["volumes"])
    moved = compose({**TOKEN, "VIDEOS": "/srv/videos"})["services"]["worker"]["volumes"]
    assert "/srv/videos:/videos:ro" in moved


@pytest.mark.parametrize("environment", PROFILES, ids=["cpu", "gpu"])
@pytest.mark.parametrize("name", OURS)
def test_every_command_and_variable_is_known(name: str, environment: Mapping[str, str]) -> None:
    service = compose(environment)["services"][name]
    command, options = streamer(service["command"])
    assert command == name.removesuffix("-gpu")
    config = config_of(options)
    assert config.stem == environment.get("COMPOSE_PROFILES", "cpu")
    given = settings(config, service["environment"])
    assert given.queue.url == "redis://redis:6379/0"
    assert [str(path) for path in given.fetch.allow_paths] == ["/videos"]
    assert any(volume.endswith(":/videos:ro") for volume in service["volumes"])
    if command == "api":
        [token] = given.api.tokens
        assert (given.api.host, token.admin) == ("0.0.0.0", True)
        assert token.token.get_secret_value() == environment["TOKEN"]
    else:
        assert options["address"] == "ray-head:6379"
        assert not given.api.tokens


def test_all_who_work_have_the_same_settings() -> None:
    one, other = SERVICES["worker"], SERVICES["worker-gpu"]
    assert (one["command"], one["environment"]) == (other["command"], other["environment"])


def test_the_head_is_found_and_carries_no_worker() -> None:
    head = SERVICES["ray-head"]
    options = ray_start(head["command"])
    assert head["entrypoint"] == ["ray"]
    assert (options["head"], options["block"], options["port"]) == (True, True, 6379)
    assert (options["num_cpus"], options["num_gpus"]) == (0, 0)
    assert options["include_dashboard"] is False
    for environment in PROFILES:
        config = config_of(streamer(compose(environment)["services"]["worker"]["command"])[1])
        pools = settings(config, {}).pools
        assert all(pool.cpus > 0 for pool in (pools.decode, pools.tokenize, pools.caption))


def test_redis_keeps_what_it_acknowledged() -> None:
    check_redis(SERVICES["redis"]["command"])
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]


def test_the_gpu_node_has_the_gpus_and_their_image() -> None:
    worker, gpu = SERVICES["worker"], SERVICES["worker-gpu"]
    assert gpu["profiles"] == ["gpu"]
    assert (worker["image"], gpu["image"]) == ("streamer", "streamer:cuda")
    assert worker["build"]["args"] == {"TORCH_BACKEND": "cpu"}
    assert gpu["build"]["args"] == {"TORCH_BACKEND": ""}
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_without_a_token_it_says_which_variable_is_missing() -> None:
    with pytest.raises(AssertionError, match="give TOKEN, 16 characters or more"):
        compose({})


def test_its_variables_are_explained() -> None:
    names = {found[1] for found in VARIABLE.finditer(FILE.read_text())}
    comment = FILE.read_text().split("\nname:")[0]
    rows = (ROOT / "docs" / "deployment.md").read_text()
    for name in names:
        assert name in comment
        assert f"\n| `{name}` |" in rows


def test_docker_itself_reads_it() -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("there is no `docker compose` here")
    environment = {**os.environ, **TOKEN, "COMPOSE_PROFILES": "gpu"}
    done = subprocess.run(
        [docker, "compose", "--file", str(FILE), "config", "--quiet"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
