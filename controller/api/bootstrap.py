"""Objects that exist from the first start on.

Namespaces, priority classes, the ``kubernetes`` Service and its range, the storage class of the hosts' disks.
"""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from common.errors import Retryable
from controller.api.local import LocalClient
from controller.api.status import ApiError, is_already_exists, is_not_found
from controller.kinds import claims
from controller.kinds.kind import Object, ResourceKey
from controller.kinds.scheduling import SYSTEM

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_NAMESPACE = ResourceKey("", "namespaces")
_SERVICE = ResourceKey("", "services")
_SLICE = ResourceKey("discovery.k8s.io", "endpointslices")
_ENDPOINTS = ResourceKey("", "endpoints")
_RANGE = ResourceKey("networking.k8s.io", "servicecidrs")
_PRIORITY = ResourceKey("scheduling.k8s.io", "priorityclasses")
_PRIORITIES = {
    "system-cluster-critical": "Used for system critical pods that must run in the cluster.",
    "system-node-critical": "Used for system critical pods that must not be moved from their node.",
}


async def bootstrap(client: LocalClient, advertise: str, service_cidr: str, port: int) -> None:
    """Create what is missing, correct the endpoints. Raises ``ApiError`` when a write is refused."""
    for name in NAMESPACES:
        await _ensure(client, _NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for name, text in _PRIORITIES.items():
        await _ensure(client, _PRIORITY, _priority(name, SYSTEM[name], text))
    await _ensure(client, claims.CLASSES, _storage_class())
    await _ensure(client, _SERVICE, _service(service_cidr, port))
    await _correct(client, _SLICE, _slice(advertise, port), ("endpoints", "ports"))
    await _correct(client, _ENDPOINTS, _endpoints(advertise, port), ("subsets",))
    await _ensure(client, _RANGE, _range(service_cidr))
    have = await client.get(_RANGE, "", "kubernetes")
    if not (have.get("status") or {}).get("conditions"):
        await client.update_status(_RANGE, {**have, "status": {"conditions": [_ready(have)]}})


async def _correct(client: LocalClient, resource: ResourceKey, wanted: Object, fields: Sequence[str]) -> None:
    """Create ``wanted`` in the default namespace, or make it so where one of ``fields`` differs."""
    try:
        have = await client.get(resource, "default", wanted["metadata"]["name"])
    except ApiError as err:
        if not is_not_found(err):
            raise
        await _ensure(client, resource, wanted)
    else:
        if any(have.get(field) != wanted[field] for field in fields):
            await client.update(resource, wanted)


async def _ensure(client: LocalClient, resource: ResourceKey, obj: Object) -> None:
    try:
        await client.get(resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        return
    except ApiError as err:
        if not is_not_found(err):
            raise
    try:
        await client.create(resource, obj)
    except ApiError as err:
        if err.code == 503:
            raise Retryable(str(err)) from err
        if not is_already_exists(err):
            raise


def _priority(name: str, value: int, text: str) -> Object:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "description": text,
    }


def _storage_class() -> Object:
    """Directories on the hosts' disks. Who makes another class the default takes the annotation off this one."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "local", "annotations": {claims.DEFAULT_CLASS: "true"}},
        "provisioner": claims.PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


_LABELS = {"component": "apiserver", "provider": "kubernetes"}


def _service(service_cidr: str, port: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": dict(_LABELS)},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": str(ip_network(service_cidr)[1]),
            "clusterIPs": [str(ip_network(service_cidr)[1])],
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    }


def _endpoints(advertise: str, port: int) -> Object:
    """For clients that read the older form. The slice is not to be mirrored from it: it is there already."""
    labels = {"endpointslice.kubernetes.io/skip-mirror": "true"}
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "subsets": [{"addresses": [{"ip": advertise}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    }


def _range(service_cidr: str) -> Object:
    """The range that services' addresses are from, as the API shows it; others than this one are not used."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [service_cidr]},
    }


def _ready(service_range: Object) -> Object:
    return {
        "type": "Ready",
        "status": "True",
        "reason": "",
        "message": "Kubernetes Service CIDR is ready",
        "lastTransitionTime": service_range["metadata"]["creationTimestamp"],
    }


def _slice(advertise: str, port: int) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv6" if ip_address(advertise).version == 6 else "IPv4",
        "endpoints": [{"addresses": [advertise], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }
