"""ReplicaSet: as many active pods as asked for; adopts matching orphans, releases those that no longer match."""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from common.selectors import LabelSelector, from_label_selector
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import conditions, owners, pods
from controller.runtime.reconciler import Map, own_key
from controller.runtime.resources import PODS, REPLICA_SETS, split
from controller.runtime.view import Failure, View
from controller.runtime.writes import NOTHING_TO_DO, Create, Delete, EmitEvent, Patch, Plan, UpdateStatus, Write
from controller.store.cache import Change

BURST_MAX = 500
"""Pods created or deleted by one plan."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def _keys_of_pod(view: View, change: Change) -> tuple[str, ...]:
    found: list[str] = []
    for entry in filter(None, (change.entry, change.old)):
        for uid in entry.owners:
            owner = view.by_uid(uid)
            if owner is not None and owner.resource == REPLICA_SETS:
                found.append(f"{owner.namespace}/{owner.name}")
        if not entry.owners:
            for candidate in view.objects(REPLICA_SETS, entry.namespace):
                if from_label_selector(candidate["spec"].get("selector")).matches(entry.labels):
                    found.append(f"{entry.namespace}/{candidate['metadata']['name']}")
    return tuple(found)


class ReplicaSetReconciler:
    """See the module."""

    name = "replicaset-controller"
    watches: Mapping[ResourceKey, Map] = {REPLICA_SETS: own_key, PODS: _keys_of_pod}

    def plan(self, view: View, key: str, now: float) -> Plan:
        namespace, name = split(key)
        rs = view.get(REPLICA_SETS, namespace, name)
        if rs is None:
            return NOTHING_TO_DO
        selector = from_label_selector(rs["spec"].get("selector"))
        owned, writes = _claim(view, rs, selector)
        active = [pod for pod in owned if pods.is_active(pod)]
        scaling: list[Write] = []
        failure = view.failure(self.name, key)
        if not pods.is_deleting(rs):
            scaling = _scale(view, rs, active)
        if failure is not None and any(isinstance(write, Create) for write in scaling):
            writes.append(EmitEvent(rs, "Warning", "FailedCreate", f"Error creating: {failure.message}"))
        status, again_s = _status(rs, active, failure if scaling else None, now)
        if status != (rs.get("status") or {}):
            writes.append(UpdateStatus(REPLICA_SETS, {**rs, "status": status}))
        return Plan((*writes, *scaling), again_s, f"{len(active)} of {rs['spec'].get('replicas', 1)} pods")


def _claim(view: View, rs: Object, selector: LabelSelector) -> tuple[list[Object], list[Write]]:
    """Pods that belong to ``rs`` and what makes the owner references say so."""
    meta = rs["metadata"]
    owned: list[Object] = []
    writes: list[Write] = []
    for entry in view.owned(meta["uid"]):
        if entry.resource != PODS:
            continue
        pod = view.decode(entry)
        if not owners.is_controlled_by(pod, rs):
            continue
        if selector.matches(entry.labels):
            owned.append(pod)
        elif not pods.is_deleting(pod):
            rest = [r for r in pod["metadata"]["ownerReferences"] if r.get("uid") != meta["uid"]]
            writes.append(owner_patch(PODS, pod, rest))
    if pods.is_deleting(rs):
        return owned, writes
    for entry in view.selected(PODS, meta["namespace"], selector):
        if entry.owners:
            continue
        pod = view.decode(entry)
        if pods.is_active(pod) and owners.controller_of(pod) is None:
            owned.append(pod)
            writes.append(owner_patch(PODS, pod, [owners.reference_to(rs)]))
    return owned, writes


def owner_patch(resource: ResourceKey, obj: Object, references: Sequence[Mapping[str, object]]) -> Patch:
    """Replace the owner references of exactly this version of the object."""
    meta = obj["metadata"]
    change = {"ownerReferences": list(references), "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    return Patch(resource, meta.get("namespace", ""), meta["name"], {"metadata": change})


def _scale(view: View, rs: Object, active: list[Object]) -> list[Write]:
    want = rs["spec"].get("replicas", 1)
    if len(active) < want:
        return _create(view, rs, min(BURST_MAX, want - len(active)))
    return [
        Delete(
            PODS,
            pod["metadata"]["namespace"],
            pod["metadata"]["name"],
            pod["metadata"]["uid"],
            event=EmitEvent(rs, "Normal", "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}"),
        )
        for pod in victims(active)[: min(BURST_MAX, len(active) - want)]
    ]


def _create(view: View, rs: Object, count: int) -> list[Write]:
    meta = rs["metadata"]
    namespace = meta["namespace"]
    salt = f"{meta['uid']}/{view.revision}"
    names = owners.fresh_names(meta["name"], salt, count, lambda n: view.entry(PODS, namespace, n) is not None)
    return [
        Create(PODS, pod_from(rs, name), EmitEvent(rs, "Normal", "SuccessfulCreate", f"Created pod: {name}"))
        for name in names
    ]


def pod_from(owner: Object, name: str) -> Object:
    """A pod of ``owner.spec.template``, controlled by ``owner``."""
    template = owner["spec"]["template"]
    wanted = template.get("metadata") or {}
    metadata: dict[str, Any] = {
        "name": name,
        "generateName": f"{owner['metadata']['name']}-",
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [owners.reference_to(owner)],
    }
    for part in ("labels", "annotations", "finalizers"):
        if wanted.get(part):
            metadata[part] = copy.deepcopy(wanted[part])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": copy.deepcopy(template["spec"])}


def victims(active: Sequence[Object]) -> list[Object]:
    """Active pods, those to delete first in front: the ones whose loss is felt least (``ActivePodsWithRanks``)."""
    per_node = Counter(pods.node_of(pod) for pod in active)

    def rank(pod: Object) -> tuple[Any, ...]:
        node, ready = pods.node_of(pod), pods.is_ready(pod)
        phase = {"Pending": 0, "Unknown": 1, "Running": 2}.get((pod.get("status") or {}).get("phase", ""), 0)
        return (
            bool(node),
            phase,
            ready,
            _deletion_cost(pod),
            -per_node[node],
            -pods.ready_since(pod) if ready else 0.0,
            -pods.restarts(pod),
            -pods.created_at(pod),
            pod["metadata"]["name"],
        )

    return sorted(active, key=rank)


def _deletion_cost(pod: Object) -> int:
    try:
        return int((pod["metadata"].get("annotations") or {}).get(DELETION_COST, "0"))
    except ValueError:
        return 0


def _status(
    rs: Object, active: list[Object], failure: Failure | None, now: float
) -> tuple[dict[str, Any], float | None]:
    """The status and when a pod may become available without any other change."""
    spec = rs["spec"]
    template_labels = from_label_selector({"matchLabels": (spec["template"].get("metadata") or {}).get("labels") or {}})
    waits = [pods.available_in_s(pod, spec.get("minReadySeconds", 0), now) for pod in active]
    counts = {
        "fullyLabeledReplicas": sum(template_labels.matches(pod["metadata"].get("labels") or {}) for pod in active),
        "readyReplicas": sum(wait is not None for wait in waits),
        "availableReplicas": sum(wait == 0 for wait in waits),
    }
    status: dict[str, Any] = {"replicas": len(active)}
    status |= {name: count for name, count in counts.items() if count}
    if "generation" in rs["metadata"]:
        status["observedGeneration"] = rs["metadata"]["generation"]
    old = (rs.get("status") or {}).get("conditions")
    if failure is not None:
        reason = "FailedCreate" if len(active) < spec.get("replicas", 1) else "FailedDelete"
        found = conditions.with_condition(old, "ReplicaFailure", "True", reason, failure.message, now)
    else:
        found = conditions.without(old, "ReplicaFailure")
    if found:
        status["conditions"] = found
    return status, min((wait for wait in waits if wait), default=None)
