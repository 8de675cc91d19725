"""A service changes its type: whoever does so sends the rest as it was read."""

import copy
from typing import Any

import pytest

from controller.kinds.service import SERVICE

PORT = {"port": 80, "targetPort": 80, "protocol": "TCP"}
ADDRESSES = {
    "clusterIP": "10.96.0.9",
    "clusterIPs": ["10.96.0.9"],
    "ipFamilies": ["IPv4"],
    "ipFamilyPolicy": "SingleStack",
    "internalTrafficPolicy": "Cluster",
}
STATES: dict[str, dict[str, Any]] = {
    "ClusterIP": {"type": "ClusterIP", "ports": [PORT], "sessionAffinity": "None", **ADDRESSES},
    "NodePort": {
        "type": "NodePort",
        "ports": [{**PORT, "nodePort": 30123}],
        "sessionAffinity": "None",
        "externalTrafficPolicy": "Cluster",
        **ADDRESSES,
    },
    "LoadBalancer": {
        "type": "LoadBalancer",
        "ports": [{**PORT, "nodePort": 30123}],
        "sessionAffinity": "None",
        "externalTrafficPolicy": "Cluster",
        "allocateLoadBalancerNodePorts": True,
        "loadBalancerClass": "a.example/b",
        **ADDRESSES,
    },
    "ExternalName": {"type": "ExternalName", "externalName": "a.example", "ports": [PORT], "sessionAffinity": "None"},
}
HAS: dict[str, set[str]] = {kind: {key for key in state if key != "ports"} for kind, state in STATES.items()}


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("after", STATES)
def test_what_the_new_type_lacks_goes(before: str, after: str) -> None:
    old = {"metadata": {"name": "s"}, "spec": STATES[before]}
    new = copy.deepcopy(old)
    new["spec"]["type"] = after
    if after == "ExternalName":
        new["spec"]["externalName"] = "a.example"
    SERVICE.default(new)
    SERVICE.prepare_update(new, old)
    spec = new["spec"]
    if after != "ExternalName" and before == "ExternalName":
        spec.update(ADDRESSES)  # admission's part
    assert SERVICE.validate(new) + SERVICE.validate_update(new, old) == []
    assert spec.keys() - {"ports", "loadBalancerClass"} == HAS[after] - {"loadBalancerClass"}
    external = after in ("NodePort", "LoadBalancer")
    assert ("nodePort" in spec["ports"][0]) is (external and before in ("NodePort", "LoadBalancer"))


def test_what_was_changed_with_the_type_is_judged_not_dropped() -> None:
    old = {"metadata": {"name": "s"}, "spec": STATES["NodePort"]}
    new = copy.deepcopy(old)
    new["spec"] |= {"type": "ClusterIP", "ports": [{**PORT, "nodePort": 30124}]}
    SERVICE.prepare_update(new, old)
    assert [error.path for error in SERVICE.validate(new)] == ["spec.ports[0].nodePort"]


def test_external_addresses_keep_their_traffic_policy() -> None:
    old = {"metadata": {"name": "s"}, "spec": {**STATES["NodePort"], "externalIPs": ["192.0.2.1"]}}
    new = copy.deepcopy(old)
    new["spec"]["type"] = "ClusterIP"
    SERVICE.prepare_update(new, old)
    assert SERVICE.validate(new) == []
    assert new["spec"]["externalTrafficPolicy"] == "Cluster"
