"""Node lifecycle: a host whose lease runs out is Unknown, tainted, its pods not ready and, in time, evicted.

A host that says itself that it is not ready is tainted, and evicted in time, too; its pods stay as ready as it reports
them. kube-controller-manager calls them not ready then: a network agent that restarts would empty load balancers.

A lease counts as renewed no earlier than this controller began to look (``observing_since``): after a pause of the
controller or of etcd, hosts get a full grace period before they are called dead. When no host at all is heard of, the
fault is more likely ours than theirs, and they get another one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from common.clock import parse_rfc3339, rfc3339
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import conditions, pods
from controller.runtime.reconciler import Map, own_key
from controller.runtime.resources import LEASES, NODES, PODS, split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Delete, EmitEvent, Patch, Plan, UpdateStatus, Write
from controller.scheduler.model import Taint, Toleration
from controller.store.cache import Change
from controller.store.entry import Entry

LEASE_NAMESPACE = "kube-node-lease"
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_PRESSURE = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
_OURS = {NOT_READY, UNREACHABLE, UNSCHEDULABLE, *_PRESSURE.values()}
_REPORTED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


def _key_of_lease(view: View, change: Change) -> tuple[str, ...]:
    return (f"/{change.entry.name}",) if change.entry.namespace == LEASE_NAMESPACE else ()


def _key_of_pod(view: View, change: Change) -> tuple[str, ...]:
    """Pods matter only on a node in trouble: one that has taints of ours."""
    node = view.get(NODES, "", change.entry.fields.get("spec.nodeName", ""))
    if node is None or change.type == "DELETED" or not (node.get("spec") or {}).get("taints"):
        return ()
    return (f"/{node['metadata']['name']}",)


class NodeLifecycleReconciler:
    """``grace_s`` without a renewed lease make a node Unknown."""

    name = "node-controller"
    watches: Mapping[ResourceKey, Map] = {NODES: own_key, LEASES: _key_of_lease, PODS: _key_of_pod}

    def __init__(self, grace_s: float, observing_since: Callable[[], float]) -> None:
        self._grace_s = grace_s
        self._observing_since = observing_since

    def plan(self, view: View, key: str, now: float) -> Plan:
        _, name = split(key)
        node = view.get(NODES, "", name)
        if node is None or pods.is_deleting(node):
            return NOTHING_TO_DO
        left_s = self._fresh_for_s(view, node, now)
        again: list[float] = [left_s] if left_s > 0 else []
        writes: list[Write] = []
        listed = (node.get("status") or {}).get("conditions")
        if left_s <= 0:
            listed = _unknown(listed, now)
            if listed != (node.get("status") or {}).get("conditions"):
                writes.append(
                    UpdateStatus(NODES, {**node, "status": {**(node.get("status") or {}), "conditions": listed}})
                )
        ready = conditions.find(listed, "Ready")
        state = str(ready["status"]) if ready is not None else "False"
        wanted = _taints(node, state, listed or (), now)
        if wanted != ((node.get("spec") or {}).get("taints") or []) and not writes:
            meta = {"resourceVersion": node["metadata"]["resourceVersion"]}
            event = _event(node, state) if _newly_bad(node, wanted) else None
            writes.append(Patch(NODES, "", name, {"metadata": meta, "spec": {"taints": wanted}}, event=event))
        in_trouble = (state != "True" and ready is not None) or any(each["effect"] == "NoExecute" for each in wanted)
        bound = view.pods_on(name) if in_trouble else []
        if state == "Unknown":
            writes += _pods_not_ready(view, bound, now)
        evictions, waits = _evictions(view, bound, wanted, now)
        again += waits
        return Plan((*writes, *evictions), min(again, default=None), f"Ready={state}")

    def _fresh_for_s(self, view: View, node: Object, now: float) -> float:
        """Seconds until this node counts as dead; 0 or less: it does."""
        left_s = self._heard(view, node) + self._grace_s - now
        if left_s > 0:
            return left_s
        others = [each for each in view.objects(NODES) if each is not node]
        if others and all(self._heard(view, each) + self._grace_s <= now for each in others):
            return left_s + self._grace_s
        return left_s

    def _heard(self, view: View, node: Object) -> float:
        """When this node was last known to be alive, seconds since the epoch."""
        found = [self._observing_since(), pods.created_at(node)]
        lease = view.get(LEASES, LEASE_NAMESPACE, node["metadata"]["name"])
        renewed = ((lease or {}).get("spec") or {}).get("renewTime")
        if renewed:
            found.append(parse_rfc3339(renewed))
        return max(found)


def _unknown(listed: Sequence[Mapping[str, object]] | None, now: float) -> list[conditions.Condition]:
    found = [dict(each) for each in listed or ()]
    for kind in _REPORTED:
        known = conditions.find(found, kind)
        if known is not None and known.get("status") == "Unknown":
            continue
        heartbeat = known.get("lastHeartbeatTime") if known is not None else None
        reason = "NodeStatusUnknown" if known is not None else "NodeStatusNeverUpdated"
        verb = "stopped posting" if known is not None else "never posted"
        found = conditions.with_condition(found, kind, "Unknown", reason, f"Kubelet {verb} node status.", now)
        if heartbeat:
            found = [{**c, "lastHeartbeatTime": heartbeat} if c["type"] == kind else c for c in found]
    return found


def _taints(node: Object, ready: str, listed: Sequence[Mapping[str, object]], now: float) -> list[Object]:
    """The node's taints with ours brought in line. Those that stay keep ``timeAdded``; what is tolerated for a while
    gets one."""
    spec = node.get("spec") or {}
    have: list[Object] = spec.get("taints") or []
    wanted: list[tuple[str, str]] = []
    if ready == "Unknown":
        wanted += [(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]
    elif ready != "True":
        wanted += [(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]
    if spec.get("unschedulable"):
        wanted.append((UNSCHEDULABLE, "NoSchedule"))
    wanted += [(key, "NoSchedule") for kind, key in _PRESSURE.items() if conditions.is_true(listed, kind)]
    kept = [each for each in have if each["key"] not in _OURS or (each["key"], each["effect"]) in wanted]
    known = {(each["key"], each["effect"]) for each in kept}
    kept = [
        {**each, "timeAdded": rfc3339(now)} if each["effect"] == "NoExecute" and not each.get("timeAdded") else each
        for each in kept
    ]
    return kept + [
        {"key": key, "effect": effect, "timeAdded": rfc3339(now)}
        for key, effect in wanted
        if (key, effect) not in known
    ]


def _newly_bad(node: Object, wanted: Iterable[Object]) -> bool:
    bad = {NOT_READY, UNREACHABLE}
    have = any(each["key"] in bad for each in (node.get("spec") or {}).get("taints") or ())
    return not have and any(each["key"] in bad for each in wanted)


def _event(node: Object, ready: str) -> EmitEvent:
    name = node["metadata"]["name"]
    return EmitEvent(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady (Ready={ready})")


def _pods_not_ready(view: View, bound: Sequence[Entry], now: float) -> list[Write]:
    """Nobody can say that these pods are ready: take them out of their services."""
    writes: list[Write] = []
    for entry in bound:
        pod = view.decode(entry)
        status = pod.get("status") or {}
        if not pods.is_ready(pod):
            continue
        stamp = rfc3339(now)
        listed = [
            {**each, "status": "False", "lastTransitionTime": stamp} if each.get("type") == "Ready" else each
            for each in status["conditions"]
        ]
        event = EmitEvent(pod, "Warning", "NodeNotReady", "Node is not ready")
        writes.append(UpdateStatus(PODS, {**pod, "status": {**status, "conditions": listed}}, event))
    return writes


def _evictions(
    view: View, bound: Sequence[Entry], taints: Sequence[Object], now: float
) -> tuple[list[Write], list[float]]:
    """Pods whose tolerance of a NoExecute taint has run out, and the seconds until that of others does."""
    active = [each for each in taints if each["effect"] == "NoExecute"]
    writes: list[Write] = []
    waits: list[float] = []
    if not active:
        return writes, waits
    for entry in bound:
        pod = view.decode(entry)
        if entry.deleting or pods.is_terminal(pod):
            continue
        left_s = min(_tolerated_for_s(pod, each, now) for each in active)
        if left_s <= 0:
            text = f"Marking for deletion Pod {entry.namespace}/{entry.name}"
            event = EmitEvent(pod, "Normal", "TaintManagerEviction", text)
            writes.append(Delete(PODS, entry.namespace, entry.name, entry.uid, event=event))
        elif left_s != float("inf"):
            waits.append(left_s)
    return writes, waits


def _tolerated_for_s(pod: Object, taint: Object, now: float) -> float:
    """Infinity when tolerated for good, 0 when not at all."""
    parsed = Taint(taint["key"], taint.get("value", ""), taint["effect"])
    limits = []
    for each in pod["spec"].get("tolerations") or ():
        toleration = Toleration(
            each.get("key", ""), each.get("operator", "Equal"), each.get("value", ""), each.get("effect", "")
        )
        if toleration.tolerates(parsed):
            limits.append(each.get("tolerationSeconds"))
    if not limits:
        return 0.0
    numbers = [float(each) for each in limits if each is not None]
    if not numbers:
        return float("inf")
    added = parse_rfc3339(taint["timeAdded"]) if taint.get("timeAdded") else now
    return max(added, _bound_at(pod)) + max(0.0, min(numbers)) - now


def _bound_at(pod: Object) -> float:
    """When the pod came to its node, in seconds since the epoch: it has borne no taint longer than that."""
    scheduled = conditions.find((pod.get("status") or {}).get("conditions"), "PodScheduled") or {}
    stamp = scheduled.get("lastTransitionTime")
    return max(pods.created_at(pod), parse_rfc3339(str(stamp)) if stamp else 0.0)
