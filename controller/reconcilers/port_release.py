"""Port: when its pod is gone the address rests (``Quarantined``) until every live host has forgotten it."""

from collections.abc import Callable, Mapping

from controller.kinds.kind import Object, ResourceKey
from controller.runtime.indexes import port_of
from controller.runtime.reconciler import Map, own_key
from controller.runtime.resources import PODS, PORTS, split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Delete, Plan, UpdateStatus
from controller.store.cache import Change

CHECK_S = 1.0
"""How often to ask again while hosts are behind."""

Forgotten = Callable[[Object], bool]
"""Whether every live host has realized the revision in the port's ``status.releaseRevision``."""


def _keys_of_gone_pod(view: View, change: Change) -> tuple[str, ...]:
    if change.type != "DELETED":
        return ()
    return tuple(f"{port.namespace}/{port.name}" for port in view.group(port_of(change.entry.uid)))


class PortReleaseReconciler:
    """See the module."""

    name = "port-release-controller"
    watches: Mapping[ResourceKey, Map] = {PORTS: own_key, PODS: _keys_of_gone_pod}

    def __init__(self, forgotten: Forgotten) -> None:
        self._forgotten = forgotten

    def plan(self, view: View, key: str, now: float) -> Plan:
        namespace, name = split(key)
        port = view.get(PORTS, namespace, name)
        if port is None or view.by_uid(port["spec"]["podUID"]) is not None:
            return NOTHING_TO_DO
        status = port.get("status") or {}
        if status.get("phase") != "Quarantined":
            fresh = {**status, "phase": "Quarantined", "releaseRevision": view.revision}
            return Plan((UpdateStatus(PORTS, {**port, "status": fresh}),), None, "quarantined")
        if not self._forgotten(port):
            return Plan((), CHECK_S, "waits for hosts to forget the address")
        return Plan((Delete(PORTS, namespace, name, port["metadata"]["uid"]),), None, "address is free again")
