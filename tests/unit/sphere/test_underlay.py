"""Which routes of the box stand in the way of a cluster's ranges."""

from ipaddress import IPv4Network
from typing import Any

import pytest

from sphere import topology, underlay

UNDERLAY = IPv4Network("172.30.0.0/24")


@pytest.mark.parametrize(
    ("route", "in_the_way"),
    [
        ({"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"}, False),
        ({"dst": "192.0.2.0/24", "dev": "eth0", "scope": "link"}, False),
        ({"dst": "172.30.0.0/24", "dev": "eth0"}, True),
        ({"dst": "172.30.0.0/16", "dev": "br-docker", "scope": "link"}, True),
        ({"dst": "172.30.0.7", "gateway": "192.0.2.1", "dev": "eth0"}, True),
        ({"dst": "172.16.0.0/12", "gateway": "192.0.2.9", "dev": "tun0"}, False),
        ({"type": "blackhole", "dst": "172.30.0.0/24", "metric": 4278198272}, False),
    ],
)
def test_routes(route: dict[str, Any], in_the_way: bool) -> None:
    assert underlay.is_in_the_way(route, UNDERLAY) is in_the_way


def test_default_networks_of_docker_and_cloud_providers_are_no_obstacle() -> None:
    for usual in ("172.17.0.0/16", "172.18.0.0/16", "172.31.0.0/16", "10.0.0.0/16", "10.128.0.0/20", "192.168.0.0/16"):
        assert not any(underlay.is_in_the_way({"dst": usual}, cidr) for cidr in topology.PRIVATE_RANGES)
