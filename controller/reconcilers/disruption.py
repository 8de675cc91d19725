"""PodDisruptionBudget: how many of the pods it covers may be evicted now.

Follows ``pkg/controller/disruption`` of Kubernetes. ``pods/eviction`` spends ``disruptionsAllowed`` and notes the pod
in ``disruptedPods``; here the allowance is worked out anew from the pods there are. A pod that was noted counts as gone
until it is, or for ``DELETION_S_MAX`` if its deletion never came.
"""

from collections.abc import Mapping, Sequence

from common.clock import parse_rfc3339
from common.selectors import from_label_selector
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import conditions, owners, pods
from controller.reconcilers.rollout import int_or_percent
from controller.runtime.reconciler import Map, own_key
from controller.runtime.resources import (
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    STATEFUL_SETS,
    split,
)
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, EmitEvent, Plan, UpdateStatus, Write
from controller.store.cache import Change

DELETION_S_MAX = 120.0
_SCALED = (REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS)


def _keys_of_pod(view: View, change: Change) -> tuple[str, ...]:
    """Budgets that cover the pod now, or did before the change."""
    found: dict[str, None] = {}
    for version in filter(None, (change.entry, change.old)):
        for candidate in view.selecting(POD_DISRUPTION_BUDGETS, version.namespace, version.labels):
            if from_label_selector(view.decode(candidate)["spec"].get("selector")).matches(version.labels):
                found[f"{candidate.namespace}/{candidate.name}"] = None
    return tuple(found)


class DisruptionReconciler:
    """See the module."""

    name = "disruption-controller"
    watches: Mapping[ResourceKey, Map] = {POD_DISRUPTION_BUDGETS: own_key, PODS: _keys_of_pod}

    def plan(self, view: View, key: str, now: float) -> Plan:
        namespace, name = split(key)
        budget = view.get(POD_DISRUPTION_BUDGETS, namespace, name)
        if budget is None or pods.is_deleting(budget):
            return NOTHING_TO_DO
        entries = view.selected_pods(namespace, from_label_selector(budget["spec"].get("selector")))
        covered = [pod for pod in map(view.decode, entries) if not pods.is_terminal(pod)]
        disrupted, overdue, waits = _disrupted(budget, covered, now)
        expected, desired, problem = _wanted(view, budget, covered)
        staying = [pod for pod in covered if not pods.is_deleting(pod) and pod["metadata"]["name"] not in disrupted]
        healthy = sum(pods.is_ready(pod) for pod in staying)
        allowed = max(0, healthy - desired) if expected > 0 and not problem else 0
        status: Object = {
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": expected,
            "disruptionsAllowed": allowed,
            "observedGeneration": budget["metadata"].get("generation", 0),
        }
        if disrupted:
            status["disruptedPods"] = disrupted
        reason = "SyncFailed" if problem else ("SufficientPods" if allowed else "InsufficientPods")
        old = budget.get("status") or {}
        listed = conditions.with_condition(
            old.get("conditions"), "DisruptionAllowed", "True" if allowed else "False", reason, problem, now
        )
        seen = {"observedGeneration": status["observedGeneration"]}
        status["conditions"] = [{**each, **seen} if each["type"] == "DisruptionAllowed" else each for each in listed]
        writes: list[Write] = [EmitEvent(budget, "Warning", "NoControllers", problem)] if problem else []
        writes += [
            EmitEvent(pod, "Warning", "NotDeleted", f"Pod was expected by PDB {key} to be deleted but it wasn't")
            for pod in overdue
        ]
        if status == old:
            return Plan((), min(waits, default=None), "")
        writes.append(UpdateStatus(POD_DISRUPTION_BUDGETS, {**budget, "status": status}))
        return Plan(tuple(writes), min(waits, default=None), f"{allowed} disruptions allowed")


def _disrupted(
    budget: Object, covered: Sequence[Object], now: float
) -> tuple[dict[str, str], list[Object], list[float]]:
    """Pods that an eviction noted and that are still there; those whose deletion never came; when to look again."""
    noted: Mapping[str, str] = (budget.get("status") or {}).get("disruptedPods") or {}
    here = {pod["metadata"]["name"]: pod for pod in covered if not pods.is_deleting(pod)}
    kept: dict[str, str] = {}
    overdue: list[Object] = []
    waits: list[float] = []
    for name in sorted(noted.keys() & here.keys()):
        left_s = parse_rfc3339(noted[name]) + DELETION_S_MAX - now
        if left_s > 0:
            kept[name] = noted[name]
            waits.append(left_s)
        else:
            overdue.append(here[name])
    return kept, overdue, waits


def _wanted(view: View, budget: Object, covered: Sequence[Object]) -> tuple[int, int, str]:
    """Pods expected, healthy ones desired, and why neither can be said."""
    spec = budget["spec"]
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if most is None and not isinstance(least, str):
        return len(covered), int(least or 0), ""
    scales: dict[str, int] = {}
    for pod in covered:
        found = _scale_of(view, pod)
        if found is None:
            return 0, 0, f'found no controllers for pod "{pod["metadata"]["name"]}"'
        scales[found[0]] = found[1]
    expected = sum(scales.values())
    if most is not None:
        return expected, max(0, expected - int_or_percent(most, expected, round_up=True)), ""
    return expected, int_or_percent(least, expected, round_up=True), ""


def _scale_of(view: View, pod: Object) -> tuple[str, int] | None:
    """The uid of what keeps the pod's number, and that number; None for a pod that nothing keeps."""
    reference = owners.controller_of(pod)
    entry = view.by_uid(str(reference["uid"])) if reference is not None else None
    if entry is None or entry.resource not in _SCALED:
        return None
    controller = view.decode(entry)
    above = owners.controller_of(controller)
    parent = view.by_uid(str(above["uid"])) if above is not None else None
    if parent is not None and parent.resource == DEPLOYMENTS:
        entry, controller = parent, view.decode(parent)
    return entry.uid, int(controller["spec"].get("replicas", 1))
