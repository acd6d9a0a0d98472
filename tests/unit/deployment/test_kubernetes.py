"""The Kubernetes manifest: its objects find each other, and what they run is this version's."""

from __future__ import annotations

import re
from typing import Any

import pytest

from streamer.config import Settings
from tests.unit.deployment.commands import (
    ROOT,
    check_redis,
    config_of,
    ray_start,
    settings,
    streamer,
)
from tests.unit.deployment.manifest import (
    API,
    API_CONTAINER,
    CLUSTER,
    CONTROLLER,
    FILE,
    GROUPS,
    HEAD,
    OBJECTS,
    PODS,
    REDIS,
    REDIS_CONTAINER,
    chosen,
    containers,
)


def said(container: Any, *, secret: str = "5ec2e7") -> dict[str, str]:
    """Its variables, with $(NAME) filled in as Kubernetes does; every secret is the same one."""
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        variables |= OBJECTS["ConfigMap", source["configMapRef"]["name"]]["data"]
    for one in container.get("env", []):
        text = one.get("value", secret)
        assert isinstance(text, str), one
        for name in re.findall(r"\$\((\w+)\)", text):
            assert name in variables, f"{one['name']} needs {name} before it"
            text = text.replace(f"$({name})", variables[name])
        variables[one["name"]] = text
    return variables


def all_settings() -> Settings:
    _, options = streamer(CONTROLLER["args"])
    return settings(config_of(options), said(CONTROLLER))


def test_the_controller_runs_beside_ray_and_sees_its_processes() -> None:
    spec = HEAD["template"]["spec"]
    assert spec["shareProcessNamespace"] is True
    assert CONTROLLER["restartPolicy"] == "Always"
    command, _ = streamer(CONTROLLER["args"])
    given = all_settings()
    assert (command, given.ray.address) == ("worker", "auto")
    assert not given.api.tokens
    [shared] = [volume["name"] for volume in spec["volumes"]]
    [head] = spec["containers"]
    for container in (CONTROLLER, head):
        assert container["volumeMounts"] == [{"name": shared, "mountPath": "/tmp/ray"}]
    assert shared == "ray-logs"  # KubeRay's name for what it mounts there into its autoscaler


def test_both_sides_use_the_same_redis_and_models() -> None:
    command, options = streamer(API_CONTAINER["args"])
    tokens = '[{"name": "me", "token": "0123456789abcdef"}]'
    given = settings(config_of(options), said(API_CONTAINER) | {"STREAMER__API__TOKENS": tokens})
    workers = all_settings()
    assert command == "api"
    assert (given.api.host, len(given.api.tokens)) == ("0.0.0.0", 1)
    assert given.model_copy(update={"api": workers.api}) == workers
    assert workers.queue.url == "redis://:5ec2e7@streamer-redis:6379/0"


def test_the_services_lead_to_their_pods() -> None:
    for name, pod, port in (("streamer-redis", "redis", 6379), ("streamer-api", "api", 8000)):
        service = OBJECTS["Service", name]["spec"]
        assert chosen(service["selector"]) == {pod}
        [given] = service["ports"]
        [opened] = [one for container in containers(pod) for one in container["ports"]]
        assert (given["port"], opened["containerPort"]) == (port, port)
        assert given.get("targetPort", opened["name"]) == opened["name"]
    assert REDIS["serviceName"] == "streamer-redis"
    for spec, pod in ((REDIS, "redis"), (API, "api")):
        assert chosen(spec["selector"]["matchLabels"]) == {pod}


@pytest.mark.parametrize("pod", PODS)
def test_probes_ask_ports_that_are_open(pod: str) -> None:
    for container in PODS[pod]["spec"]["containers"]:
        opened = {port["name"] for port in container["ports"]}
        assert {"readinessProbe", "livenessProbe"} <= container.keys()
        for kind in ("readinessProbe", "livenessProbe", "startupProbe"):
            probe = container.get(kind, {})
            for how in ("tcpSocket", "httpGet"):
                if how in probe:
                    assert probe[how]["port"] in opened
    paths = {API_CONTAINER[kind]["httpGet"]["path"] for kind in ("livenessProbe", "readinessProbe")}
    assert paths == {"/healthz", "/readyz"}


def test_ray_opens_the_ports_that_its_probes_ask() -> None:
    assert containers("head")[1]["ports"][0]["containerPort"] == 6379  # Ray's default
    for name, group in GROUPS.items():
        [port] = PODS[name]["spec"]["containers"][0]["ports"]
        assert group["rayStartParams"]["node-manager-port"] == str(port["containerPort"])


@pytest.mark.parametrize("group", [HEAD, *GROUPS.values()], ids=["head", *GROUPS])
def test_ray_takes_its_parameters(group: Any) -> None:
    parameters = [f"--{name}={value}" for name, value in group["rayStartParams"].items()]
    options = ray_start(["start", *parameters])
    if group is HEAD:
        assert options["num_cpus"] == 0  # no worker is placed there


def test_ray_is_the_version_that_is_tested() -> None:
    assert f"\nray=={CLUSTER['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()


def test_ray_asks_for_the_token_that_the_controller_shows() -> None:
    auth = CLUSTER["authOptions"]
    shown = {one["name"]: one for one in CONTROLLER["env"]}
    assert auth["mode"] == shown["RAY_AUTH_MODE"]["value"] == "token"
    token = shown["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert token == {"name": auth["secretName"], "key": "auth_token"}  # KubeRay's name for it


def test_the_groups_hold_the_pools_at_their_max() -> None:
    pools = all_settings().pools
    assert pools.tokenize.gpus > 0
    assert pools.caption.gpus > 0

    def room(group: str, resource: str) -> float:
        limits = PODS[group]["spec"]["containers"][0]["resources"]["limits"]
        return float(limits.get(resource, 0)) * float(GROUPS[group]["maxReplicas"])

    on = {"cpu": [pools.decode], "gpu": [pools.tokenize, pools.caption]}
    for group, carried in on.items():
        cpus = sum((pool.max + pool.spares) * pool.cpus for pool in carried)
        gpus = sum((pool.max + pool.spares) * pool.gpus for pool in carried)
        assert 0 < cpus <= room(group, "cpu")
        assert gpus <= room(group, "nvidia.com/gpu")
        assert all(pool.cpus > 0 for pool in carried)  # else the autoscaler does not see them
        assert GROUPS[group]["minReplicas"] <= GROUPS[group]["maxReplicas"]
    for pool in (pools.tokenize, pools.caption):
        assert pool.threads is not None
        assert pool.threads <= pool.cpus


def test_redis_keeps_what_it_acknowledged() -> None:
    check_redis(REDIS_CONTAINER["args"][: REDIS_CONTAINER["args"].index("--requirepass")])
    assert REDIS_CONTAINER["args"][-1] == "$(REDIS_PASSWORD)"
    [claim] = REDIS["volumeClaimTemplates"]
    assert REDIS_CONTAINER["volumeMounts"] == [
        {"name": claim["metadata"]["name"], "mountPath": "/data"}
    ]
    [memory] = re.findall(r"(\d+)gb", " ".join(REDIS_CONTAINER["args"]))
    limit = int(REDIS_CONTAINER["resources"]["limits"]["memory"].removesuffix("Gi"))
    disk = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi"))
    assert int(memory) < limit
    assert disk >= 2 * limit


def test_secrets_are_made_by_the_commands_at_the_top_and_lie_nowhere_else() -> None:
    comment = FILE.read_text().split("apiVersion")[0]
    used = {CLUSTER["authOptions"]["secretName"]}
    for container in (container for pod in PODS for container in containers(pod)):
        for one in container.get("env", []):
            if "valueFrom" in one:
                given = one["valueFrom"]["secretKeyRef"]
                used.add(given["name"])
                assert f"--from-literal={given['key']}=" in comment
            assert ("value" in one) != ("valueFrom" in one)
    assert used == {"streamer"}
    assert "kubectl create secret generic streamer " in comment
    assert not any(kind == "Secret" for kind, _ in OBJECTS)


@pytest.mark.parametrize("pod", PODS)
def test_no_container_has_more_rights_than_it_needs(pod: str) -> None:
    spec = PODS[pod]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == (999 if pod == "redis" else 1000)
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    if pod != "head":  # its autoscaler speaks to Kubernetes
        assert spec["automountServiceAccountToken"] is False
    for container in containers(pod):
        rights = container["securityContext"]
        assert rights == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
