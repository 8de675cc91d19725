"""ReplicaSet and ReplicationController, its elder: as many active pods as asked for; adopt matching orphans, release
those that no longer match."""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from common.selectors import from_label_selector
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import conditions, owners, pods
from controller.reconcilers.adoption import claim, controller_keys, selector_of
from controller.runtime.reconciler import Map, own_key
from controller.runtime.resources import PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, split
from controller.runtime.view import Failure, View
from controller.runtime.writes import NOTHING_TO_DO, Create, Delete, EmitEvent, Plan, UpdateStatus, Write

BURST_MAX = 500
"""Pods created or deleted by one plan."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


class ReplicaSetReconciler:
    """See the module."""

    name: ClassVar[str] = "replicaset-controller"
    resource: ClassVar[ResourceKey] = REPLICA_SETS
    watches: ClassVar[Mapping[ResourceKey, Map]] = {REPLICA_SETS: own_key, PODS: controller_keys(REPLICA_SETS)}

    def plan(self, view: View, key: str, now: float) -> Plan:
        namespace, name = split(key)
        rs = view.get(self.resource, namespace, name)
        if rs is None:
            return NOTHING_TO_DO
        members = claim(view, rs, PODS, selector_of(self.resource, rs), pods.is_active)
        writes: list[Write] = [*members.writes]
        owned = members.everyone
        active = [pod for pod in owned if pods.is_active(pod)]
        scaling: list[Write] = []
        failure = view.failure(self.name, key)
        if not pods.is_deleting(rs):
            scaling = _scale(view, rs, active)
        if failure is not None and any(isinstance(write, Create) for write in scaling):
            writes.append(EmitEvent(rs, "Warning", "FailedCreate", f"Error creating: {failure.message}"))
        status, again_s = _status(rs, active, failure if scaling else None, now)
        terminating = sum(pods.is_terminating(pod) for pod in owned)
        if terminating and self.resource == REPLICA_SETS:
            status["terminatingReplicas"] = terminating
        changed = status != (rs.get("status") or {})
        reports = [UpdateStatus(self.resource, {**rs, "status": status})] if changed else []
        sentence = f"{len(active)} of {rs['spec'].get('replicas', 1)} pods"
        # Names of pods follow from the version of ``rs``: as long as pods are being made, it stays as it is.
        steps = [*reports, *scaling] if failure is not None else [*scaling, *reports]
        return Plan((*writes, *steps), again_s, sentence)


class ReplicationControllerReconciler(ReplicaSetReconciler):
    """The same for the kind that was there before label selectors."""

    name: ClassVar[str] = "replication-controller"
    resource: ClassVar[ResourceKey] = REPLICATION_CONTROLLERS
    watches: ClassVar[Mapping[ResourceKey, Map]] = {
        REPLICATION_CONTROLLERS: own_key,
        PODS: controller_keys(REPLICATION_CONTROLLERS),
    }


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
    salt = owners.salt_of(rs)
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
