"""The NetworkPolicies of the Kubernetes manifest: who may reach whom."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from streamer.sources.addresses import is_public
from tests.unit.deployment.manifest import GROUPS, OBJECTS, PODS, chosen

RAY = {"head", *GROUPS}


def rules(direction: str, pod: str) -> list[Any] | None:
    """What the policies of a pod allow it; None where none speaks of it, and all is allowed."""
    policies = [
        one["spec"]
        for (kind, _), one in OBJECTS.items()
        if kind == "NetworkPolicy"
        and direction in one["spec"]["policyTypes"]
        and pod in chosen(one["spec"]["podSelector"]["matchLabels"])
    ]
    if not policies:
        return None
    return [rule for policy in policies for rule in policy.get(direction.lower(), [])]


def fits(rule: Any, peer: str, port: int) -> bool:
    ports, peers = rule.get("ports"), rule.get("to", rule.get("from"))
    return (ports is None or any(given["port"] == port for given in ports)) and (
        peers is None
        or any(
            peer in chosen(given["podSelector"]["matchLabels"])
            for given in peers
            if "podSelector" in given
        )
    )


def may(one: str, other: str, port: int) -> bool:
    """Whether a pod may connect to another's port, by the policies of both."""
    out, into = rules("Egress", one), rules("Ingress", other)
    leaves = out is None or any(fits(rule, other, port) for rule in out)
    enters = into is None or any(fits(rule, one, port) for rule in into)
    return leaves and enters


@pytest.mark.parametrize("pod", [*PODS, "stranger"])
def test_ray_and_redis_are_reached_by_those_who_need_them_alone(pod: str) -> None:
    assert may(pod, "redis", 6379) == (pod in RAY | {"api"})
    assert not may(pod, "redis", 22)
    for other in RAY:
        for port in (6379, 6380, 8265, 10001, 41234):
            assert may(pod, other, port) == (pod in RAY)
    # the head may go anywhere, as its autoscaler asks Kubernetes; the others need not
    assert may(pod, "api", 8000) == (pod in ("head", "stranger"))


@pytest.mark.parametrize("pod", GROUPS)
def test_workers_reach_public_addresses_and_none_inside(pod: str) -> None:
    blocks = [
        given["ipBlock"]
        for rule in rules("Egress", pod) or []
        for given in rule.get("to", [])
        if "ipBlock" in given
    ]

    def reaches(text: str) -> bool:
        address = ipaddress.ip_address(text)
        return any(
            address in ipaddress.ip_network(block["cidr"])
            and not any(address in ipaddress.ip_network(x) for x in block.get("except", []))
            for block in blocks
        )

    assert reaches("93.184.215.14")
    assert reaches("2606:2800:21f:cb07:6820:80da:af6b:8b2c")
    inside = [
        *("10.0.0.1", "100.64.0.1", "127.0.0.1", "168.63.129.16", "169.254.169.254", "172.16.0.1"),
        *("172.31.255.255", "192.168.1.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0"),
        *("::1", "fd00::1", "fe80::1", "::ffff:10.0.0.1"),
    ]
    for text in inside:
        assert not reaches(text), text
        assert text[:6] == "::ffff" or not is_public(ipaddress.ip_address(text)), text
