"""What a Service's endpoints are: which pods, on which ports, in which state. Pure; shared by slices and Endpoints."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from common.selectors import from_labels
from controller.kinds.kind import Object
from controller.reconcilers import pods
from controller.reconcilers.adoption import selecting_keys
from controller.runtime.resources import SERVICES
from controller.runtime.view import View
from controller.store.cache import Change

PortTuple = tuple[tuple[str, int, str, str], ...]
"""(name, number, protocol, appProtocol) of each service port, as one group of pods serves it."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A pod behind a service."""

    pod: Object
    ports: PortTuple
    ready: bool
    serving: bool
    terminating: bool


def service_keys_of_pod(view: View, change: Change) -> tuple[str, ...]:
    """Services that select the pod now, or did before the change."""
    found: dict[str, None] = {}
    for version in (change.entry, change.old):
        if version is not None:
            found.update(dict.fromkeys(selecting_keys(view, SERVICES, version.namespace, version.labels)))
    return tuple(found)


def has_endpoints(service: Object) -> bool:
    """Services without a selector have endpoints of somebody else; external names have none."""
    spec = service.get("spec") or {}
    return bool(spec.get("selector")) and spec.get("type") != "ExternalName"


def is_headless(service: Object) -> bool:
    return (service.get("spec") or {}).get("clusterIP") == "None"


def backends(view: View, service: Object) -> list[Backend]:
    """Pods with an address that have not finished, sorted by name."""
    spec = service["spec"]
    include_not_ready = bool(spec.get("publishNotReadyAddresses"))
    found = []
    for entry in view.selected_pods(service["metadata"]["namespace"], from_labels(spec.get("selector"))):
        pod = view.decode(entry)
        if pods.is_terminal(pod) or not (pod.get("status") or {}).get("podIP"):
            continue
        serving, terminating = pods.is_ready(pod), pods.is_deleting(pod)
        ready = include_not_ready or (serving and not terminating)
        found.append(Backend(pod, tuple(_ports(service, pod)), ready, serving, terminating))
    return found


def _ports(service: Object, pod: Object) -> Iterable[tuple[str, int, str, str]]:
    for port in service["spec"].get("ports") or ():
        protocol = port.get("protocol", "TCP")
        target = port.get("targetPort", port["port"])
        number = _named(pod, target, protocol) if isinstance(target, str) else int(target)
        if number:
            yield port.get("name", ""), number, protocol, port.get("appProtocol", "")


def _named(pod: Object, name: str, protocol: str) -> int:
    """Number of the pod's container port ``name``; 0 when it has none (that pod does not serve the port)."""
    if name.isdigit():
        return int(name)
    spec = pod["spec"]
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or ()), *sidecars]:
        for port in container.get("ports") or ():
            if port.get("name") == name and port.get("protocol", "TCP") == protocol:
                return int(port["containerPort"])
    return 0


def target_of(pod: Object) -> Mapping[str, Any]:
    meta = pod["metadata"]
    return {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}


def hostname_of(pod: Object, service: Object) -> str:
    """Name in DNS: only for pods whose subdomain is the (headless) service."""
    spec = pod["spec"]
    return str(spec.get("hostname", "")) if spec.get("subdomain") == service["metadata"]["name"] else ""
