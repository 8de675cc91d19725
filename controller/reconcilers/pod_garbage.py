"""Pods that nobody will clean up: too many finished ones, those of a host that no longer exists or is out of service.

Keys are ``FINISHED`` for the finished pods of the whole cluster, and ``/NODE`` for the pods bound to a host.
"""

from collections.abc import Mapping, Sequence

from common.clock import parse_rfc3339
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import conditions, pods
from controller.runtime.indexes import finished
from controller.runtime.reconciler import Map
from controller.runtime.resources import NODES, PODS, split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Delete, Plan, UpdateStatus, Write
from controller.store.cache import Change
from controller.store.entry import Entry

FINISHED = "finished"
QUARANTINE_S = 40.0
"""A host may be deleted and registered again: its pods are spared this long."""
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
"""A taint by which an admin says that a host that is not ready is surely off (KEP-2268)."""


def _of_node(view: View, change: Change) -> tuple[str, ...]:
    if change.type == "MODIFIED" and not _taints_of(view, change.entry):
        return ()
    return (f"/{change.entry.name}",)


def _taints_of(view: View, node: Entry) -> Sequence[Object]:
    return (view.decode(node).get("spec") or {}).get("taints") or ()


def _of_pod(view: View, change: Change) -> tuple[str, ...]:
    if change.type == "DELETED":
        return ()
    keys = [FINISHED] if change.entry.fields.get("status.phase", "") in pods.FINISHED else []
    name = change.entry.fields.get("spec.nodeName", "")
    if name:
        node = view.entry(NODES, "", name)
        if node is None or (change.entry.deleting and _taints_of(view, node)):
            keys.append(f"/{name}")
    return tuple(keys)


class PodGarbageReconciler:
    """``finished_max`` pods that have finished are kept, the newest."""

    name = "pod-garbage-collector"
    watches: Mapping[ResourceKey, Map] = {PODS: _of_pod, NODES: _of_node}

    def __init__(self, finished_max: int) -> None:
        self._finished_max = finished_max

    def plan(self, view: View, key: str, now: float) -> Plan:
        if key == FINISHED:
            return self._finished(view)
        name = split(key)[1]
        node = view.get(NODES, "", name)
        if node is None:
            return _orphaned(view, view.pods_on(name), now)
        return _out_of_service(view, view.pods_on(name)) if _is_out_of_service(node) else NOTHING_TO_DO

    def _finished(self, view: View) -> Plan:
        if view.group_size(finished()) <= self._finished_max:
            return NOTHING_TO_DO
        found = [view.decode(entry) for entry in view.group(finished()) if not entry.deleting]
        found.sort(key=lambda pod: (pods.created_at(pod), pod["metadata"]["uid"]))
        surplus = found[: max(0, len(found) - self._finished_max)]
        return Plan(tuple(_delete(pod) for pod in surplus), None, f"{len(found)} finished pods")


def _orphaned(view: View, bound: Sequence[Entry], now: float) -> Plan:
    """Pods of a host that is gone: marked, spared for a while, removed."""
    writes: list[Write] = []
    again: list[float] = []
    for entry in bound:
        pod = view.decode(entry)
        marked = _mark(pod, "DeletionByPodGC", "PodGC: node no longer exists", now)
        left_s = _marked_at(pod) + QUARANTINE_S - now
        if marked is not None:
            writes.append(marked)
        elif left_s > 0:
            again.append(left_s)
        else:
            writes += _end(pod)
    return Plan(tuple(writes), min(again, default=None), "pods of a host that is gone")


def _out_of_service(view: View, bound: Sequence[Entry]) -> Plan:
    """Pods that are to stop on a host that is surely off: nobody there will say that they have."""
    writes = [write for entry in bound if entry.deleting for write in _end(view.decode(entry))]
    return Plan(tuple(writes), None, "pods of a host out of service")


def _is_out_of_service(node: Object) -> bool:
    taints = (node.get("spec") or {}).get("taints") or ()
    ready = conditions.is_true((node.get("status") or {}).get("conditions"), "Ready")
    return not ready and any(each["key"] == OUT_OF_SERVICE for each in taints)


def _end(pod: Object) -> list[Write]:
    """First Failed, so that whoever counts ends (a Job) hears of this one, then gone."""
    if not pods.is_terminal(pod):
        return [UpdateStatus(PODS, {**pod, "status": {**(pod.get("status") or {}), "phase": "Failed"}})]
    return [] if _is_held(pod) else [_delete(pod)]


def _is_held(pod: Object) -> bool:
    """Deleted for good already; somebody's finalizer keeps it."""
    meta = pod["metadata"]
    return pods.is_deleting(pod) and meta.get("deletionGracePeriodSeconds") == 0 and bool(meta.get("finalizers"))


def _delete(pod: Object) -> Delete:
    meta = pod["metadata"]
    return Delete(PODS, meta["namespace"], meta["name"], meta["uid"], grace_s=0)


def _mark(pod: Object, reason: str, text: str, now: float) -> UpdateStatus | None:
    """Note on the pod itself since when its host has been gone: that survives a restart of the controller."""
    status = pod.get("status") or {}
    known = conditions.find(status.get("conditions"), "DisruptionTarget")
    if known is not None and known.get("reason") == reason:
        return None
    listed = conditions.with_condition(status.get("conditions"), "DisruptionTarget", "True", reason, text, now)
    return UpdateStatus(PODS, {**pod, "status": {**status, "conditions": listed}})


def _marked_at(pod: Object) -> float:
    known = conditions.find((pod.get("status") or {}).get("conditions"), "DisruptionTarget")
    return parse_rfc3339(str(known["lastTransitionTime"])) if known is not None else 0.0
