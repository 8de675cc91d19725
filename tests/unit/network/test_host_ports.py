"""Ports of pods on their host's address reach every host, and leave with the pod."""

from typing import Any

from common.messages import HostPort, HostPortsItem, decode
from controller.network.planner import CLUSTER, Planner
from controller.network.views import PODS, PORTS, view_of

SPEC = {
    "nodeName": "host-1",
    "containers": [
        {"ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]},
        {"ports": [{"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "127.0.0.1"}]},
        {"ports": [{"containerPort": 82, "hostPort": 82, "hostIP": "::1"}]},
    ],
}
PORTS_WANTED = (
    HostPort(protocol="tcp", host_port=8080, pod_port=80),
    HostPort(protocol="udp", host_port=53, pod_port=53, host_address="127.0.0.1"),
)


def put(planner: Planner, resource: Any, name: str, body: dict[str, Any] | None) -> None:
    obj = None if body is None else {"metadata": {"namespace": "shop", "name": name, "uid": "u1"}, **body}
    planner.apply(resource, "shop", name, None if obj is None else view_of(resource, obj))


def published(planner: Planner) -> HostPortsItem | None:
    planner.plan()
    payload = planner.desired.scopes[CLUSTER].items.get("hostports/u1")
    return None if payload is None else decode(payload, HostPortsItem)


def test_a_pod_with_an_address_of_its_own() -> None:
    planner = Planner()
    put(planner, PODS, "web", {"spec": SPEC})
    assert published(planner) is None, "its address is not known yet"
    put(planner, PORTS, "web", {"spec": {"podUID": "u1", "podName": "web", "host": "host-1", "address": "10.64.0.5"}})
    assert published(planner) == HostPortsItem(pod_uid="u1", host="host-1", address="10.64.0.5", ports=PORTS_WANTED)
    put(planner, PODS, "web", {"spec": SPEC, "status": {"phase": "Succeeded"}})
    assert published(planner) is None


def test_a_pod_on_the_hosts_network() -> None:
    planner = Planner()
    put(planner, PODS, "web", {"spec": {**SPEC, "hostNetwork": True}})
    assert published(planner) == HostPortsItem(pod_uid="u1", host="host-1", address="", ports=PORTS_WANTED)
    put(planner, PODS, "web", None)
    assert published(planner) is None
