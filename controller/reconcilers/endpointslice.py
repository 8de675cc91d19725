"""EndpointSlices of a Service: at most 100 endpoints each; an endpoint stays in its slice as long as it lives."""

from collections.abc import Mapping, Sequence
from typing import Any

from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import endpoints, owners
from controller.reconcilers.endpoints import Backend, PortTuple
from controller.runtime.indexes import SERVICE_NAME, slices_of
from controller.runtime.reconciler import Map, own_key
from controller.runtime.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES, split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Create, Delete, Plan, Update, Write
from controller.store.cache import Change

ENDPOINTS_MAX = 100
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
HEADLESS = "service.kubernetes.io/headless"
ZONE = "topology.kubernetes.io/zone"


def _keys_of_slice(view: View, change: Change) -> tuple[str, ...]:
    labels = change.entry.labels
    if labels.get(MANAGED_BY) != MANAGER or SERVICE_NAME not in labels:
        return ()
    return (f"{change.entry.namespace}/{labels[SERVICE_NAME]}",)


class EndpointSliceReconciler:
    """See the module."""

    name = "endpoint-slice-controller"
    watches: Mapping[ResourceKey, Map] = {
        SERVICES: own_key,
        PODS: endpoints.service_keys_of_pod,
        ENDPOINT_SLICES: _keys_of_slice,
    }

    def plan(self, view: View, key: str, now: float) -> Plan:
        namespace, name = split(key)
        service = view.get(SERVICES, namespace, name)
        existing = [
            view.decode(entry)
            for entry in view.group(slices_of(namespace, name))
            if not entry.deleting and entry.labels.get(MANAGED_BY) == MANAGER
        ]
        if service is None or "deletionTimestamp" in service["metadata"] or not endpoints.has_endpoints(service):
            return Plan(tuple(_delete(each) for each in existing), None, "no endpoints of ours")
        groups: dict[PortTuple, dict[str, Object]] = {}
        for backend in endpoints.backends(view, service):
            groups.setdefault(backend.ports, {})[backend.pod["metadata"]["uid"]] = _endpoint(view, service, backend)
        if not groups:
            groups[()] = {}
        writes: list[Write] = []
        total = sum(map(len, groups.values()))
        for ports in sorted(groups):
            same = [each for each in existing if _ports_of(each) == ports]
            writes += _group(view, service, ports, groups[ports], same)
        writes += [_delete(each) for each in existing if _ports_of(each) not in groups]
        if not writes:
            return NOTHING_TO_DO
        return Plan(tuple(writes), None, f"{total} endpoints")


def _group(
    view: View, service: Object, ports: PortTuple, wanted: dict[str, Object], existing: Sequence[Object]
) -> list[Write]:
    """Slices of one port mapping: keep endpoints where they are, fill gaps, add slices, drop empty ones."""
    rest = dict(wanted)
    placed: list[tuple[Object, list[Object]]] = []
    for each in existing:
        kept = []
        for endpoint in each.get("endpoints") or ():
            fresh = rest.pop((endpoint.get("targetRef") or {}).get("uid", ""), None)
            if fresh is not None:
                kept.append(fresh)
        placed.append((each, kept))
    queue = list(rest.values())
    for _, kept in placed:
        while queue and len(kept) < ENDPOINTS_MAX:
            kept.append(queue.pop(0))
    writes: list[Write] = []
    used = [item for item in placed if item[1]] or placed[:1]
    for each, kept in used:
        labels, fresh_ports = _labels(service), _slice_ports(ports)
        new = {
            **each,
            "metadata": {**each["metadata"], "labels": labels},
            "endpoints": kept,
            "ports": fresh_ports,
        }
        same = (each["metadata"].get("labels"), each.get("endpoints") or [], each.get("ports") or [])
        if same != (labels, kept, fresh_ports):
            writes.append(Update(ENDPOINT_SLICES, new))
    count = -(-len(queue) // ENDPOINTS_MAX) if existing else max(1, -(-len(queue) // ENDPOINTS_MAX))
    names = _names(view, service, ports, count)
    for index, name in enumerate(names):
        part = queue[index * ENDPOINTS_MAX : (index + 1) * ENDPOINTS_MAX]
        writes.append(Create(ENDPOINT_SLICES, _slice(service, name, ports, part)))
    return writes + [_delete(each) for each, _ in placed if all(each is not item[0] for item in used)]


def _names(view: View, service: Object, ports: PortTuple, count: int) -> list[str]:
    meta = service["metadata"]

    def taken(name: str) -> bool:
        return view.entry(ENDPOINT_SLICES, meta["namespace"], name) is not None

    return owners.fresh_names(meta["name"], f"{meta['uid']}/{ports}", count, taken)


def _slice(service: Object, name: str, ports: PortTuple, members: list[Object]) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "generateName": f"{service['metadata']['name']}-",
            "namespace": service["metadata"]["namespace"],
            "labels": _labels(service),
            "ownerReferences": [owners.reference_to({**service, "apiVersion": "v1", "kind": "Service"})],
        },
        "addressType": "IPv4",
        "endpoints": members,
        "ports": _slice_ports(ports),
    }


def _labels(service: Object) -> dict[str, str]:
    labels = {
        **(service["metadata"].get("labels") or {}),
        SERVICE_NAME: service["metadata"]["name"],
        MANAGED_BY: MANAGER,
    }
    if endpoints.is_headless(service):
        labels[HEADLESS] = ""
    return labels


def _slice_ports(ports: PortTuple) -> list[dict[str, Any]]:
    found = []
    for name, number, protocol, app in ports:
        found.append({"name": name, "port": number, "protocol": protocol, **({"appProtocol": app} if app else {})})
    return found


def _ports_of(each: Object) -> PortTuple:
    return tuple(
        (port.get("name") or "", int(port.get("port") or 0), port.get("protocol", "TCP"), port.get("appProtocol", ""))
        for port in each.get("ports") or ()
    )


def _endpoint(view: View, service: Object, backend: Backend) -> Object:
    pod = backend.pod
    endpoint: Object = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {
            "ready": backend.ready,
            "serving": backend.serving,
            "terminating": backend.terminating,
        },
        "targetRef": dict(endpoints.target_of(pod)),
    }
    node = pod["spec"].get("nodeName")
    if node:
        endpoint["nodeName"] = node
        entry = view.entry(NODES, "", node)
        if entry is not None and ZONE in entry.labels:
            endpoint["zone"] = entry.labels[ZONE]
    hostname = endpoints.hostname_of(pod, service)
    if hostname:
        endpoint["hostname"] = hostname
    return endpoint


def _delete(each: Object) -> Delete:
    meta = each["metadata"]
    return Delete(ENDPOINT_SLICES, meta["namespace"], meta["name"], meta["uid"])
