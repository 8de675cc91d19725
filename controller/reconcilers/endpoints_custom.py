"""Endpoints that a user keeps for a Service without selector, mirrored into EndpointSlices: load balancers read those.

Follows ``pkg/controller/endpointslicemirroring`` of Kubernetes: one slice per subset and kind of address.
"""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import owners, pods
from controller.reconcilers.endpoints_mirror import ADDRESSES_MAX, MANAGED_BY, MANAGER
from controller.reconcilers.endpointslice import MANAGED_BY as SLICE_MANAGED_BY
from controller.runtime.indexes import SERVICE_NAME, slices_of
from controller.runtime.reconciler import Map, own_key
from controller.runtime.resources import ENDPOINT_SLICES, ENDPOINTS, SERVICES, split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Create, Delete, Plan, Update, Write
from controller.store.cache import Change

MIRROR = "endpointslicemirroring-controller.k8s.io"
SKIP = "endpointslice.kubernetes.io/skip-mirror"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
_NOT_COPIED = ("kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time")


def _keys_of_slice(view: View, change: Change) -> tuple[str, ...]:
    labels = change.entry.labels
    if labels.get(SLICE_MANAGED_BY) != MIRROR or SERVICE_NAME not in labels:
        return ()
    return (f"{change.entry.namespace}/{labels[SERVICE_NAME]}",)


class CustomEndpointsReconciler:
    """See the module."""

    name = "endpoint-slice-mirroring-controller"
    watches: Mapping[ResourceKey, Map] = {ENDPOINTS: own_key, SERVICES: own_key, ENDPOINT_SLICES: _keys_of_slice}

    def plan(self, view: View, key: str, now: float) -> Plan:
        namespace, name = split(key)
        existing = [
            view.decode(entry)
            for entry in view.group(slices_of(namespace, name))
            if not entry.deleting and entry.labels.get(SLICE_MANAGED_BY) == MIRROR
        ]
        kept = view.get(ENDPOINTS, namespace, name)
        wanted = _slices(kept) if kept is not None and _is_mirrored(view, kept) else []
        writes: list[Write] = []
        left = {each["metadata"]["name"]: each for each in existing}
        for each in wanted:
            known = left.pop(each["metadata"]["name"], None)
            if known is None:
                writes.append(Create(ENDPOINT_SLICES, each))
            elif known.get("addressType") != each["addressType"]:
                left[each["metadata"]["name"]] = known
            elif _content(known) != _content(each):
                meta = {**known["metadata"], "labels": each["metadata"]["labels"]}
                meta["annotations"] = each["metadata"].get("annotations", {})
                changed = {**known, "metadata": meta, "endpoints": each["endpoints"], "ports": each["ports"]}
                writes.append(Update(ENDPOINT_SLICES, changed))
        for each in left.values():
            meta = each["metadata"]
            writes.append(Delete(ENDPOINT_SLICES, meta["namespace"], meta["name"], meta["uid"]))
        return Plan(tuple(writes), None, f"{len(wanted)} mirrored slices") if writes else NOTHING_TO_DO


def _is_mirrored(view: View, endpoints: Object) -> bool:
    """Kept by a user, for a service that has no selector of its own."""
    meta = endpoints["metadata"]
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    if pods.is_deleting(endpoints) or labels.get(MANAGED_BY) == MANAGER or labels.get(SKIP) == "true":
        return False
    service = view.get(SERVICES, meta["namespace"], meta["name"])
    return _LEADER not in annotations and service is not None and not (service.get("spec") or {}).get("selector")


def _content(each: Object) -> tuple[Any, ...]:
    meta = each["metadata"]
    annotations = meta.get("annotations") or {}
    return meta.get("labels") or {}, annotations, each.get("endpoints") or [], each.get("ports") or []


def _slices(endpoints: Object) -> list[Object]:
    meta = endpoints["metadata"]
    labels = {name: value for name, value in (meta.get("labels") or {}).items() if name != MANAGED_BY}
    labels |= {SERVICE_NAME: meta["name"], SLICE_MANAGED_BY: MIRROR}
    annotations = {k: v for k, v in (meta.get("annotations") or {}).items() if k not in _NOT_COPIED}
    found: list[Object] = []
    for number, subset in enumerate(endpoints.get("subsets") or ()):
        by_type: dict[str, list[Object]] = {}
        for field, ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in (subset.get(field) or ())[:ADDRESSES_MAX]:
                kind = f"IPv{ip_address(address['ip']).version}"
                by_type.setdefault(kind, []).append(_endpoint(address, ready))
        for kind, members in sorted(by_type.items()):
            metadata: Object = {
                "name": _name(meta, f"{number}/{kind}"),
                "namespace": meta["namespace"],
                "labels": labels,
                "ownerReferences": [owners.reference_to({**endpoints, "apiVersion": "v1", "kind": "Endpoints"})],
            }
            if annotations:
                metadata["annotations"] = annotations
            ports = [{"name": "", "protocol": "TCP", **port} for port in subset.get("ports") or ()]
            found.append(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": metadata,
                    "addressType": kind,
                    "endpoints": members,
                    "ports": ports,
                }
            )
    return found


def _endpoint(address: Object, ready: bool) -> Object:
    endpoint: Object = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    for field in ("hostname", "nodeName", "targetRef"):
        if address.get(field):
            endpoint[field] = address[field]
    return endpoint


def _name(meta: Object, part: str) -> str:
    digest = owners.safe_hash(f"{meta['uid']}/{part}", 5)
    return f"{meta['name'][:57].rstrip('-.')}-{digest}"
