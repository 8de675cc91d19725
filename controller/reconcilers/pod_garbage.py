"""Pods that nobody will clean up: too many finished ones, and those bound to a host that no longer exists."""

from collections.abc import Mapping

from common.clock import parse_rfc3339
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import conditions, pods
from controller.runtime.reconciler import Map
from controller.runtime.resources import NODES, PODS
from controller.runtime.view import View
from controller.runtime.writes import Delete, Plan, UpdateStatus, Write
from controller.store.cache import Change

ALL = "pods"
QUARANTINE_S = 40.0
"""A host may be deleted and registered again: its pods are spared this long."""


def _key(view: View, change: Change) -> tuple[str, ...]:
    if change.entry.resource == NODES:
        return () if change.type == "MODIFIED" else (ALL,)
    phase = change.entry.fields.get("status.phase", "")
    if phase in ("Succeeded", "Failed"):
        return (ALL,)
    node = change.entry.fields.get("spec.nodeName", "")
    return (ALL,) if node and view.entry(NODES, "", node) is None else ()


class PodGarbageReconciler:
    """``finished_max`` pods that have finished are kept, the newest."""

    name = "pod-garbage-collector"
    watches: Mapping[ResourceKey, Map] = {PODS: _key, NODES: _key}

    def __init__(self, finished_max: int) -> None:
        self._finished_max = finished_max

    def plan(self, view: View, key: str, now: float) -> Plan:
        nodes = {entry.name for entry in view.entries(NODES)}
        finished: list[Object] = []
        writes: list[Write] = []
        again: list[float] = []
        for entry in view.entries(PODS):
            node = entry.fields.get("spec.nodeName", "")
            marked = None
            if node and node not in nodes:
                pod = view.decode(entry)
                marked = _mark(pod, now)
                if marked is not None:
                    writes.append(marked)
                    continue
                left_s = _marked_at(pod) + QUARANTINE_S - now
                if left_s <= 0:
                    writes.append(Delete(PODS, entry.namespace, entry.name, entry.uid, grace_s=0))
                else:
                    again.append(left_s)
            elif entry.fields.get("status.phase", "") in ("Succeeded", "Failed") and not entry.deleting:
                finished.append(view.decode(entry))
        finished.sort(key=lambda pod: (pods.created_at(pod), pod["metadata"]["uid"]))
        for pod in finished[: max(0, len(finished) - self._finished_max)]:
            meta = pod["metadata"]
            writes.append(Delete(PODS, meta["namespace"], meta["name"], meta["uid"], grace_s=0))
        return Plan(tuple(writes), min(again, default=None), f"{len(finished)} finished pods")


def _mark(pod: Object, now: float) -> UpdateStatus | None:
    """Note on the pod itself since when its host has been gone: that survives a restart of the controller."""
    status = pod.get("status") or {}
    known = conditions.find(status.get("conditions"), "DisruptionTarget")
    if known is not None and known.get("reason") == "DeletionByPodGC":
        return None
    text = "PodGC: node no longer exists"
    listed = conditions.with_condition(
        status.get("conditions"), "DisruptionTarget", "True", "DeletionByPodGC", text, now
    )
    return UpdateStatus(PODS, {**pod, "status": {**status, "conditions": listed}})


def _marked_at(pod: Object) -> float:
    known = conditions.find((pod.get("status") or {}).get("conditions"), "DisruptionTarget")
    return parse_rfc3339(str(known["lastTransitionTime"])) if known is not None else 0.0
