"""Endpoints, the older form of EndpointSlices, for clients that still read it."""

from collections.abc import Mapping
from typing import Any

from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import endpoints
from controller.reconcilers.endpoints import Backend, PortTuple
from controller.runtime.reconciler import Map, own_key
from controller.runtime.resources import ENDPOINTS, PODS, SERVICES, split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Create, Delete, Plan, Update

ADDRESSES_MAX = 1000
"""Upstream's limit; what is beyond it is only in the slices."""
MANAGED_BY = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"


class EndpointsReconciler:
    """See the module."""

    name = "endpoint-controller"
    watches: Mapping[ResourceKey, Map] = {
        SERVICES: own_key,
        PODS: endpoints.service_keys_of_pod,
        ENDPOINTS: own_key,
    }

    def plan(self, view: View, key: str, now: float) -> Plan:
        namespace, name = split(key)
        service = view.get(SERVICES, namespace, name)
        known = view.get(ENDPOINTS, namespace, name)
        mine = known is not None and (known["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER
        if service is None or not endpoints.has_endpoints(service):
            if known is None or not mine:
                return NOTHING_TO_DO
            meta = known["metadata"]
            return Plan((Delete(ENDPOINTS, namespace, name, meta["uid"]),), None, "no endpoints of ours")
        if "deletionTimestamp" in service["metadata"]:
            return NOTHING_TO_DO
        subsets = _subsets(service, endpoints.backends(view, service)[:ADDRESSES_MAX])
        labels = {**(service["metadata"].get("labels") or {}), MANAGED_BY: MANAGER}
        if endpoints.is_headless(service):
            labels["service.kubernetes.io/headless"] = ""
        if known is None:
            fresh: Object = {
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "subsets": subsets,
            }
            return Plan((Create(ENDPOINTS, fresh),), None, "created")
        if (known.get("subsets") or []) == subsets and known["metadata"].get("labels") == labels:
            return NOTHING_TO_DO
        changed = {**known, "metadata": {**known["metadata"], "labels": labels}, "subsets": subsets}
        return Plan((Update(ENDPOINTS, changed),), None, "updated")


def _subsets(service: Object, backends: list[Backend]) -> list[Object]:
    groups: dict[PortTuple, list[Backend]] = {}
    for backend in backends:
        if not backend.terminating:
            groups.setdefault(backend.ports, []).append(backend)
    found: list[Object] = []
    for ports in sorted(groups):
        subset: Object = {}
        for field, ready in (("addresses", True), ("notReadyAddresses", False)):
            members = [_address(each.pod, service) for each in groups[ports] if each.ready is ready]
            if members:
                subset[field] = members
        if ports:
            subset["ports"] = [_port(*port) for port in ports]
        found.append(subset)
    return found


def _port(name: str, number: int, protocol: str, app: str) -> dict[str, Any]:
    port: dict[str, Any] = {"port": number, "protocol": protocol}
    return {**({"name": name} if name else {}), **port, **({"appProtocol": app} if app else {})}


def _address(pod: Object, service: Object) -> Object:
    address: Object = {"ip": pod["status"]["podIP"]}
    if hostname := endpoints.hostname_of(pod, service):
        address["hostname"] = hostname
    if node := pod["spec"].get("nodeName"):
        address["nodeName"] = node
    return {**address, "targetRef": dict(endpoints.target_of(pod))}
