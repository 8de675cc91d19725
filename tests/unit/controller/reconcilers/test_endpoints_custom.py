"""Endpoints kept by users reach the load balancers."""

from typing import Any

from controller.kinds.kind import Object
from controller.reconcilers.endpoints_custom import CustomEndpointsReconciler
from controller.reconcilers.endpoints_mirror import EndpointsReconciler
from controller.reconcilers.endpointslice import EndpointSliceReconciler
from controller.runtime.resources import ENDPOINT_SLICES, ENDPOINTS, SERVICES
from tests.support.model_registry import ModelRegistry

KEY = "d/db"


def world(selector: dict[str, str] | None = None) -> ModelRegistry:
    found = ModelRegistry()
    spec: Object = {"ports": [{"port": 5432}], **({"selector": selector} if selector else {})}
    meta = {"name": "db", "namespace": "d"}
    found.put(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    return found


def keep(found: ModelRegistry, *subsets: Object, **metadata: Any) -> None:
    known = found.get(ENDPOINTS, "d", "db")
    meta = {"name": "db", "namespace": "d", **metadata, **({"uid": known.uid} if known else {})}
    found.put(ENDPOINTS, {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta, "subsets": list(subsets)})


def settle(found: ModelRegistry) -> None:
    """All three that write endpoints or slices: they must not fight."""
    everyone = (CustomEndpointsReconciler(), EndpointSliceReconciler(), EndpointsReconciler())
    found.settle(lambda: [(each, KEY) for each in everyone])


def mirrored(found: ModelRegistry) -> dict[str, bool]:
    """Addresses and whether they are ready."""
    slices = [entry.decode() for entry in found.list(ENDPOINT_SLICES)]
    members = [member for each in slices for member in each.get("endpoints") or ()]
    return {member["addresses"][0]: member["conditions"]["ready"] for member in members}


SUBSET = {
    "addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
    "notReadyAddresses": [{"ip": "10.0.0.2"}],
    "ports": [{"name": "pg", "port": 5432}],
}


def test_addresses_are_mirrored_by_kind_followed_and_dropped() -> None:
    found = world()
    keep(found, SUBSET)
    settle(found)
    assert mirrored(found) == {"10.0.0.1": True, "10.0.0.2": False, "fd00::1": True}
    slices = [entry.decode() for entry in found.list(ENDPOINT_SLICES)]
    assert sorted(each["addressType"] for each in slices) == ["IPv4", "IPv6"]
    assert slices[0]["ports"] == [{"name": "pg", "port": 5432, "protocol": "TCP"}]
    assert slices[0]["metadata"]["labels"]["kubernetes.io/service-name"] == "db"
    keep(found, {"addresses": [{"ip": "10.0.0.3"}], "ports": [{"port": 1}]})
    settle(found)
    assert mirrored(found) == {"10.0.0.3": True}
    found.remove(ENDPOINTS, "d", "db")
    settle(found)
    assert not found.list(ENDPOINT_SLICES)


def test_only_what_a_user_keeps_for_a_service_without_selector_is_mirrored() -> None:
    for selector, metadata in (
        ({"app": "db"}, {}),
        (None, {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}),
        (None, {"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}),
    ):
        found = world(selector)
        keep(found, SUBSET, **metadata)
        found.run(CustomEndpointsReconciler(), KEY)
        assert not mirrored(found)


def test_without_its_service_nothing_is_mirrored() -> None:
    found = world()
    found.remove(SERVICES, "d", "db")
    keep(found, SUBSET)
    settle(found)
    assert not mirrored(found)
