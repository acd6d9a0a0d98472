"""configs/kubernetes/streamer.yaml as objects and pods."""

from __future__ import annotations

from typing import Any

import yaml

from tests.unit.deployment.commands import CONFIGS

FILE = CONFIGS / "kubernetes" / "streamer.yaml"
OBJECTS: dict[tuple[str, str], Any] = {
    (one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(FILE.read_text())
}
CLUSTER = OBJECTS["RayCluster", "streamer"]["spec"]
API = OBJECTS["Deployment", "streamer-api"]["spec"]
REDIS = OBJECTS["StatefulSet", "streamer-redis"]["spec"]
HEAD = CLUSTER["headGroupSpec"]
GROUPS = {group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]}
[CONTROLLER] = HEAD["template"]["spec"]["initContainers"]
[REDIS_CONTAINER] = REDIS["template"]["spec"]["containers"]
[API_CONTAINER] = API["template"]["spec"]["containers"]
PODS: dict[str, Any] = {
    "redis": REDIS["template"],
    "api": API["template"],
    "head": HEAD["template"],
    **{name: group["template"] for name, group in GROUPS.items()},
}


def labels(pod: str) -> dict[str, str]:
    """What a pod carries, with what KubeRay adds."""
    own: dict[str, str] = PODS[pod].get("metadata", {}).get("labels", {})
    if pod in ("redis", "api"):
        return own
    return own | {
        "ray.io/cluster": "streamer",
        "ray.io/node-type": "head" if pod == "head" else "worker",
    }


def containers(pod: str) -> list[Any]:
    spec = PODS[pod]["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def chosen(selector: dict[str, str]) -> set[str]:
    return {pod for pod in PODS if selector.items() <= labels(pod).items()}
