"""DaemonSet: one pod on every node that its template fits; updates node by node, within its bounds.

Follows ``pkg/controller/daemon`` of Kubernetes, with one difference: there is no memory of failures. A pod that failed
soon after it was made is replaced a while after that, so that no node sees a hot loop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.selectors import from_label_selector
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import daemon_placement, history, owners, pods
from controller.reconcilers.adoption import claim, controller_keys
from controller.reconcilers.daemon_placement import Fit
from controller.reconcilers.history import REVISION_HASH
from controller.reconcilers.replicaset import BURST_MAX
from controller.reconcilers.rollout import int_or_percent
from controller.runtime.reconciler import Map, own_key, owner_keys
from controller.runtime.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS, split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Create, Delete, EmitEvent, Plan, UpdateStatus, Write
from controller.store.cache import Change
from controller.store.entry import Entry

REFUSED_AGE_MIN_S = 10.0
"""Of a failed pod that no container of ever ran, before it is replaced: the next may be refused as quickly."""
FAILED_AGE_MIN_S = 1.0
"""Of any other failed pod."""


def _keys_of_node(view: View, change: Change) -> tuple[str, ...]:
    """All of them, when a node comes, goes, or changes in what decides who fits."""
    if change.type == "MODIFIED" and change.old is not None and _traits(change.entry) == _traits(change.old):
        return ()
    return tuple(f"{each.namespace}/{each.name}" for each in view.entries(DAEMON_SETS))


def _traits(node: Entry) -> tuple[Any, ...]:
    taints = (node.decode().get("spec") or {}).get("taints") or ()
    return node.labels, [(each["key"], each.get("value", ""), each["effect"]) for each in taints]


@dataclass(slots=True)
class _Place:
    """One node: whether a pod belongs there, and the pods that are there or on their way, oldest first."""

    fit: Fit
    pods: list[Object] = field(default_factory=list)

    def active(self) -> list[Object]:
        return [pod for pod in self.pods if pods.is_active(pod)]


@dataclass(frozen=True, slots=True)
class _Round:
    """What one plan works with. ``digest`` is the hash of the template's revision."""

    daemon_set: Object
    digest: str
    places: Mapping[str, _Place]
    surge: int
    unavailable: int
    rolling: bool
    now: float

    def is_new(self, pod: Object) -> bool:
        return _hash_of(pod) == self.digest

    def is_available(self, pod: Object) -> bool:
        return pods.available_in_s(pod, self.daemon_set["spec"].get("minReadySeconds", 0), self.now) == 0

    def split(self, place: _Place) -> tuple[list[Object], list[Object]]:
        """Active pods of the new template and of older ones."""
        active = place.active()
        return [pod for pod in active if self.is_new(pod)], [pod for pod in active if not self.is_new(pod)]


class DaemonSetReconciler:
    """See the module."""

    name = "daemonset-controller"
    watches: Mapping[ResourceKey, Map] = {
        DAEMON_SETS: own_key,
        PODS: controller_keys(DAEMON_SETS),
        CONTROLLER_REVISIONS: owner_keys(DAEMON_SETS),
        NODES: _keys_of_node,
    }

    def plan(self, view: View, key: str, now: float) -> Plan:
        namespace, name = split(key)
        daemon_set = view.get(DAEMON_SETS, namespace, name)
        if daemon_set is None:
            return NOTHING_TO_DO
        members = claim(view, daemon_set, PODS, from_label_selector(daemon_set["spec"].get("selector")))
        if pods.is_deleting(daemon_set):
            return Plan(members.writes, None, "deleting")
        found = history.history_of(view, daemon_set, REVISION_HASH)
        if found.current is None:
            return Plan((*members.writes, *found.writes, *_collision(daemon_set, found.collides)), None, "new revision")
        digest = found.current["metadata"]["labels"][REVISION_HASH]
        places, stray = _places(view, daemon_set, members.everyone)
        this = _round(daemon_set, digest, places, now)
        doomed, waits = _doomed(this)
        writes: list[Write] = [*members.writes, *found.writes, *(_delete(this, pod) for pod in stray)]
        writes += doomed[:BURST_MAX]
        writes += _creations(view, this)
        live = {found.current["metadata"]["name"], *_revisions_in_use(found.revisions, members.everyone)}
        writes += history.surplus(daemon_set, found.revisions, live)
        status, again = _status(this)
        reports: list[Write] = []
        if status != (daemon_set.get("status") or {}):
            reports.append(UpdateStatus(DAEMON_SETS, {**daemon_set, "status": status}))
        failure = view.failure(self.name, key)
        if failure is None:
            writes += reports
        else:
            # What is refused must not keep users from seeing the rest.
            text = f"Error creating: {failure.message}"
            writes = [EmitEvent(daemon_set, "Warning", "FailedCreate", text), *reports, *writes]
        waits += again
        return Plan(tuple(writes), min(waits, default=None), f"{status['currentNumberScheduled']} nodes")


def _collision(daemon_set: Object, collides: bool) -> list[Write]:
    if not collides:
        return []
    status = dict(daemon_set.get("status") or {})
    status["collisionCount"] = status.get("collisionCount", 0) + 1
    return [UpdateStatus(DAEMON_SETS, {**daemon_set, "status": status})]


def _places(view: View, daemon_set: Object, members: Sequence[Object]) -> tuple[dict[str, _Place], list[Object]]:
    """By node name; and the pods that wait for a node that is not there."""
    wants = daemon_placement.wants_of(daemon_set)
    bound_by_template = str((daemon_set["spec"]["template"].get("spec") or {}).get("nodeName") or "")
    places = {
        node["metadata"]["name"]: _Place(daemon_placement.fit(wants, bound_by_template, node))
        for node in view.objects(NODES)
        if not pods.is_deleting(node)
    }
    stray: list[Object] = []
    for pod in sorted(members, key=lambda each: (pods.created_at(each), each["metadata"]["name"])):
        place = places.get(daemon_placement.target_of(pod))
        if place is not None:
            place.pods.append(pod)
        elif not pods.node_of(pod) and not pods.is_deleting(pod):
            stray.append(pod)
    return places, stray


def _round(daemon_set: Object, digest: str, places: Mapping[str, _Place], now: float) -> _Round:
    wanted = sum(place.fit.run for place in places.values())
    strategy = daemon_set["spec"].get("updateStrategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    surge = int_or_percent(rolling.get("maxSurge", 0), wanted, round_up=True)
    unavailable = int_or_percent(rolling.get("maxUnavailable", 1), wanted, round_up=True)
    if not surge and not unavailable:
        unavailable = 1
    is_rolling = strategy.get("type", "RollingUpdate") == "RollingUpdate"
    return _Round(daemon_set, digest, places, surge if is_rolling else 0, unavailable, is_rolling, now)


def _doomed(this: _Round) -> tuple[list[Write], list[float]]:
    """Pods to delete, and the seconds after which failed ones may be replaced."""
    writes: list[Write] = []
    waits: list[float] = []
    for place in this.places.values():
        for pod in place.pods:
            if pods.is_deleting(pod):
                continue
            age_min_s = FAILED_AGE_MIN_S if pods.has_run(pod) else REFUSED_AGE_MIN_S
            left_s = pods.created_at(pod) + age_min_s - this.now
            if not place.fit.stay:
                writes.append(_delete(this, pod))
            elif pods.is_terminal(pod) and left_s > 0:
                waits.append(left_s)
            elif pods.is_terminal(pod):
                writes += [_ended(this, pod), _delete(this, pod)]
        if place.fit.stay:
            writes += [_delete(this, pod) for pod in _too_many(this, place)]
    if this.rolling and not this.surge:
        writes += [_delete(this, pod) for pod in _to_replace(this)]
    return writes, waits


def _too_many(this: _Round, place: _Place) -> list[Object]:
    """More than one active pod on a node: the oldest stays, but with surge an available new one relieves the old."""
    new, old = this.split(place)
    if not this.surge:
        return place.active()[1:]
    doomed = new[1:] + old[1:]
    if new and old and (this.is_available(new[0]) or not this.is_available(old[0])):
        doomed.append(old[0])
    return doomed


def _to_replace(this: _Round) -> list[Object]:
    """Old pods that may go now: those that serve nobody, and others as far as ``maxUnavailable`` allows."""
    unavailable = 0
    idle: list[Object] = []
    serving: list[Object] = []
    for name in sorted(this.places):
        place = this.places[name]
        if not place.fit.run:
            continue
        new, old = this.split(place)
        if len(new) + len(old) != 1:
            unavailable += 1
        elif new:
            unavailable += not this.is_available(new[0])
        elif this.is_available(old[0]):
            serving.append(old[0])
        else:
            unavailable += 1
            idle.append(old[0])
    return idle + serving[: max(0, this.unavailable - unavailable)]


def _creations(view: View, this: _Round) -> list[Write]:
    """Pods for nodes that lack one; with surge also new ones beside old ones, as far as ``maxSurge`` allows."""
    nodes: list[str] = []
    beside: list[str] = []
    surging = 0
    for name in sorted(this.places):
        place = this.places[name]
        if not place.fit.run:
            continue
        new, old = this.split(place)
        if not new and not old:
            # One that is on its way out, or has ended, still holds the place: its ports and volumes are its own.
            if not place.pods:
                nodes.append(name)
        elif old and not new and this.surge:
            (beside if this.is_available(old[0]) else nodes).append(name)
        elif new and old and not this.is_available(new[0]):
            surging += 1
    nodes += beside[: max(0, this.surge - surging)] if this.rolling else []
    return _create(view, this, nodes[:BURST_MAX])


def _create(view: View, this: _Round, nodes: Sequence[str]) -> list[Write]:
    meta = this.daemon_set["metadata"]
    namespace = meta["namespace"]
    salt = owners.salt_of(this.daemon_set)
    names = owners.fresh_names(meta["name"], salt, len(nodes), lambda n: view.entry(PODS, namespace, n) is not None)
    found: list[Write] = []
    for name, node in zip(names, nodes, strict=True):
        pod = daemon_placement.daemon_pod(this.daemon_set, name, node, REVISION_HASH, this.digest)
        event = EmitEvent(this.daemon_set, "Normal", "SuccessfulCreate", f"Created pod: {name}")
        found.append(Create(PODS, pod, event))
    return found


def _delete(this: _Round, pod: Object) -> Delete:
    meta = pod["metadata"]
    event = EmitEvent(this.daemon_set, "Normal", "SuccessfulDelete", f"Deleted pod: {meta['name']}")
    return Delete(PODS, meta["namespace"], meta["name"], meta["uid"], event=event)


def _ended(this: _Round, pod: Object) -> EmitEvent:
    meta = pod["metadata"]
    where = f"daemon pod {meta['namespace']}/{meta['name']} on node {daemon_placement.target_of(pod)}"
    if (pod.get("status") or {}).get("phase") == "Failed":
        return EmitEvent(this.daemon_set, "Warning", "FailedDaemonPod", f"Found failed {where}, will try to kill it")
    text = f"Found succeeded {where}, will try to delete it"
    return EmitEvent(this.daemon_set, "Normal", "SucceededDaemonPod", text)


def _revisions_in_use(revisions: Sequence[Object], members: Sequence[Object]) -> set[str]:
    used = {_hash_of(pod) for pod in members}
    return {str(each["metadata"]["name"]) for each in revisions if _hash_of(each) in used}


def _hash_of(obj: Object) -> str:
    return str((obj["metadata"].get("labels") or {}).get(REVISION_HASH, ""))


def _status(this: _Round) -> tuple[Object, list[float]]:
    """The status, and the seconds after which pods become available without any other change."""
    names = ["desired", "current", "misscheduled", "ready", "updated", "available"]
    counts = dict.fromkeys(names, 0)
    waits: list[float] = []
    spec = this.daemon_set["spec"]
    for place in this.places.values():
        active = place.active()
        if not place.fit.run:
            counts["misscheduled"] += bool(active)
            continue
        counts["desired"] += 1
        counts["current"] += bool(active)
        best = min(active, key=lambda pod: (not this.is_available(pod), not pods.is_ready(pod)), default=None)
        if best is None:
            continue
        wait_s = pods.available_in_s(best, spec.get("minReadySeconds", 0), this.now)
        counts["ready"] += wait_s is not None
        counts["available"] += wait_s == 0
        counts["updated"] += any(this.is_new(pod) for pod in active)
        if wait_s:
            waits.append(wait_s)
    old = this.daemon_set.get("status") or {}
    status: Object = {
        "currentNumberScheduled": counts["current"],
        "numberMisscheduled": counts["misscheduled"],
        "desiredNumberScheduled": counts["desired"],
        "numberReady": counts["ready"],
        "observedGeneration": this.daemon_set["metadata"].get("generation", 0),
    }
    others = {
        "updatedNumberScheduled": counts["updated"],
        "numberAvailable": counts["available"],
        "numberUnavailable": counts["desired"] - counts["available"],
        "collisionCount": old.get("collisionCount", 0),
    }
    kept = {"conditions": old["conditions"]} if old.get("conditions") else {}
    return {**status, **{name: count for name, count in others.items() if count}, **kept}, waits
