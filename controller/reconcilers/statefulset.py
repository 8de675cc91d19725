"""StatefulSet: pods with names of their own, made and replaced in order, each at most once.

Follows ``pkg/controller/statefulset`` of Kubernetes. With ``OrderedReady`` a plan takes one step and waits until it has
had its effect; with ``Parallel`` it takes all that are due. A pod's name is free only when the old pod is gone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from common.selectors import from_label_selector
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import history, pods
from controller.reconcilers import stateful_identity as identity
from controller.reconcilers.adoption import claim, controller_keys
from controller.reconcilers.history import REVISION_HASH, History
from controller.reconcilers.rollout import int_or_percent
from controller.runtime.reconciler import Map, own_key, owner_keys
from controller.runtime.resources import (
    CONTROLLER_REVISIONS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    STATEFUL_SETS,
    split,
)
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Create, Delete, EmitEvent, Plan, UpdateStatus, Write
from controller.store.cache import Change

REVISION_LABEL = "controller.kubernetes.io/hash"
NAME_TAKEN_S = 10.0
"""How long to wait for a pod of somebody else to give a name back."""


def _keys_of_claim(view: View, change: Change) -> tuple[str, ...]:
    """A claim that is gone lets its pod be made again. Its name ends with those of set and ordinal."""
    if change.type != "DELETED":
        return ()
    stem = change.entry.name.rpartition("-")[0]
    parts = stem.split("-")
    names = {"-".join(parts[index:]) for index in range(1, len(parts))}
    namespace = change.entry.namespace
    return tuple(f"{namespace}/{name}" for name in sorted(names) if view.entry(STATEFUL_SETS, namespace, name))


@dataclass(slots=True)
class _Round:
    """What one plan works with. ``current`` and ``update`` are names of revisions."""

    stateful_set: Object
    members: dict[int, Object]
    current: str
    update: str
    templates: Mapping[str, Object]
    now: float
    waits: list[float] = field(default_factory=list)

    @property
    def spec(self) -> Object:
        found: Object = self.stateful_set["spec"]
        return found

    @property
    def ordinals(self) -> range:
        start = (self.spec.get("ordinals") or {}).get("start", 0)
        return range(start, start + self.spec.get("replicas", 1))

    @property
    def ordered(self) -> bool:
        return bool(self.spec.get("podManagementPolicy", "OrderedReady") == "OrderedReady")

    @property
    def rolling(self) -> Object | None:
        strategy = self.spec.get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") != "RollingUpdate":
            return None
        return strategy.get("rollingUpdate") or {}

    def partition(self) -> int:
        """The first ordinal that is updated."""
        return self.ordinals.start + int((self.rolling or {}).get("partition") or 0)

    def is_ready(self, pod: Object) -> bool:
        return (pod.get("status") or {}).get("phase") == "Running" and pods.is_ready(pod)

    def is_available(self, pod: Object) -> bool:
        """Ready, and for long enough; if only time is missing, the plan looks again after it."""
        wait_s = pods.available_in_s(pod, self.spec.get("minReadySeconds", 0), self.now) if self.is_ready(pod) else None
        if wait_s:
            self.waits.append(wait_s)
        return wait_s == 0

    def is_healthy(self, pod: Object | None) -> bool:
        return pod is not None and not pods.is_deleting(pod) and self.is_available(pod)

    def revision_of(self, pod: Object) -> str:
        return str((pod["metadata"].get("labels") or {}).get(REVISION_HASH, ""))


class StatefulSetReconciler:
    """See the module."""

    name = "statefulset-controller"
    watches: Mapping[ResourceKey, Map] = {
        STATEFUL_SETS: own_key,
        PODS: controller_keys(STATEFUL_SETS),
        CONTROLLER_REVISIONS: owner_keys(STATEFUL_SETS),
        PERSISTENT_VOLUME_CLAIMS: _keys_of_claim,
    }

    def plan(self, view: View, key: str, now: float) -> Plan:
        namespace, name = split(key)
        stateful_set = view.get(STATEFUL_SETS, namespace, name)
        if stateful_set is None:
            return NOTHING_TO_DO

        def is_named_so(pod: Object) -> bool:
            return identity.ordinal_of(stateful_set, pod["metadata"]["name"]) is not None

        selector = from_label_selector(stateful_set["spec"].get("selector"))
        members = claim(view, stateful_set, PODS, selector, is_named_so)
        if pods.is_deleting(stateful_set):
            return Plan(members.writes, None, "deleting")
        found = history.history_of(view, stateful_set, REVISION_LABEL)
        if found.current is None or members.adopted:
            writes: list[Write] = [*members.writes, *found.writes]
            if found.collides:
                status = dict(stateful_set.get("status") or {})
                status["collisionCount"] = status.get("collisionCount", 0) + 1
                writes.append(UpdateStatus(STATEFUL_SETS, {**stateful_set, "status": status}))
            return Plan(tuple(writes), None, "new revision")
        this = _round(stateful_set, members.owned, found, now)
        steps = _steps(view, this)
        failure = view.failure(self.name, key)
        if failure is not None and any(isinstance(step, Create) for step in steps):
            text = f"create Pod in StatefulSet {name} failed error: {failure.message}"
            steps.insert(0, EmitEvent(stateful_set, "Warning", "FailedCreate", text))
        live = {this.current, this.update, *(this.revision_of(pod) for pod in members.owned)}
        status = _status(this)
        reports: list[Write] = []
        if status != (stateful_set.get("status") or {}):
            reports.append(UpdateStatus(STATEFUL_SETS, {**stateful_set, "status": status}))
        # What is refused must not keep users from seeing the rest.
        steps = [*steps, *reports] if failure is None else [*reports, *steps]
        writes = [*members.writes, *found.writes, *steps, *history.surplus(stateful_set, found.revisions, live)]
        return Plan(tuple(writes), min(this.waits, default=None), f"{len(this.members)} pods")


def _round(stateful_set: Object, owned: Sequence[Object], found: History, now: float) -> _Round:
    if found.current is None:
        raise AssertionError("the revision is there before pods are")
    update = str(found.current["metadata"]["name"])
    by_name = {str(each["metadata"]["name"]): each for each in found.revisions}
    current = (stateful_set.get("status") or {}).get("currentRevision") or update
    templates = {name: _template_of(each) for name, each in by_name.items()}
    templates[update] = stateful_set["spec"]["template"]
    members = {}
    for pod in owned:
        ordinal = identity.ordinal_of(stateful_set, pod["metadata"]["name"])
        if ordinal is not None:
            members[ordinal] = pod
    return _Round(stateful_set, members, current if current in templates else update, update, templates, now)


def _template_of(revision: Object) -> Object:
    template: Object = revision["data"]["spec"]["template"]
    return {name: value for name, value in template.items() if name != "$patch"}


def _steps(view: View, this: _Round) -> list[Write]:
    """What is due now, in the order in which it has to happen."""
    steps: list[Write] = []
    for ordinal in this.ordinals:
        due, settled = _establish(view, this, ordinal)
        steps += due
        if this.ordered and not settled:
            return steps
    condemned = sorted(set(this.members) - set(this.ordinals), reverse=True)
    for ordinal in condemned:
        pod = this.members[ordinal]
        if pods.is_deleting(pod):
            if this.ordered:
                return steps
            continue
        unwell = [each for each in condemned if not this.is_healthy(this.members[each])]
        if this.ordered and ordinal in unwell[:-1]:
            # Something is wrong further down as well: losing more members could lose a quorum.
            return steps
        steps += [*identity.claims_of(view, this.stateful_set, ordinal, pod)[0], _delete(this, pod)]
        if this.ordered:
            return steps
    return steps + _updates(this)


def _establish(view: View, this: _Round, ordinal: int) -> tuple[list[Write], bool]:
    """Make the pod of ``ordinal`` be there. Also: whether the next one may be looked at."""
    meta = this.stateful_set["metadata"]
    claims, going = identity.claims_of(view, this.stateful_set, ordinal, None)
    pod = this.members.get(ordinal)
    name = identity.name_of(this.stateful_set, ordinal)
    if pod is None:
        if view.entry(PODS, meta["namespace"], name) is not None:
            this.waits.append(NAME_TAKEN_S)
            text = f"create Pod {name} in StatefulSet {meta['name']} failed error: pod {name} belongs to somebody else"
            return [EmitEvent(this.stateful_set, "Warning", "FailedCreate", text)], False
        if going:
            return claims, False
        revision = this.current if this.rolling is not None and ordinal < this.partition() else this.update
        fresh = identity.member_pod(this.stateful_set, this.templates[revision], ordinal, revision)
        text = f"create Pod {name} in StatefulSet {meta['name']} successful"
        return [*claims, Create(PODS, fresh, EmitEvent(this.stateful_set, "Normal", "SuccessfulCreate", text))], False
    if pods.is_deleting(pod):
        return claims, False
    if pods.is_terminal(pod):
        failed = (pod.get("status") or {}).get("phase") == "Failed"
        kind, reason = ("Warning", "RecreatingFailedPod") if failed else ("Normal", "RecreatingTerminatedPod")
        word = "failed" if failed else "terminated"
        text = f"StatefulSet {meta['namespace']}/{meta['name']} is recreating {word} Pod {name}"
        return [*claims, EmitEvent(this.stateful_set, kind, reason, text), _delete(this, pod)], False
    return claims, this.is_available(pod)


def _updates(this: _Round) -> list[Write]:
    """Delete pods of old revisions, the highest ordinal first, as far as ``maxUnavailable`` allows."""
    rolling = this.rolling
    if rolling is None:
        return []
    most = max(1, int_or_percent(rolling.get("maxUnavailable", 1), len(this.ordinals), round_up=True))
    ordinals = [ordinal for ordinal in reversed(this.ordinals) if ordinal >= this.partition()]
    unavailable = sum(not this.is_healthy(this.members.get(ordinal)) for ordinal in this.ordinals)
    steps: list[Write] = []
    for ordinal in ordinals:
        pod = this.members.get(ordinal)
        if pod is None or pods.is_deleting(pod) or this.revision_of(pod) == this.update:
            continue
        healthy = this.is_healthy(pod)
        if healthy and unavailable >= most:
            break
        steps.append(_delete(this, pod))
        unavailable += healthy
    return steps


def _delete(this: _Round, pod: Object) -> Delete:
    meta = pod["metadata"]
    text = f"delete Pod {meta['name']} in StatefulSet {this.stateful_set['metadata']['name']} successful"
    event = EmitEvent(this.stateful_set, "Normal", "SuccessfulDelete", text)
    return Delete(PODS, meta["namespace"], meta["name"], meta["uid"], event=event)


def _status(this: _Round) -> Object:
    old = this.stateful_set.get("status") or {}
    members = list(this.members.values())
    staying = [pod for pod in members if not pods.is_deleting(pod) and not pods.is_terminal(pod)]
    of_update = sum(this.revision_of(pod) == this.update for pod in staying)
    of_current = sum(this.revision_of(pod) == this.current for pod in staying)
    ready = sum(this.is_ready(pod) for pod in members)
    current = this.current
    if this.rolling is not None and of_update == len(members) == ready == len(this.ordinals):
        current, of_current = this.update, of_update
    status: Object = {
        "observedGeneration": this.stateful_set["metadata"].get("generation", 0),
        "replicas": len(members),
        "currentRevision": current,
        "updateRevision": this.update,
        "availableReplicas": sum(this.is_available(pod) for pod in members),
    }
    others = {
        "readyReplicas": ready,
        "currentReplicas": of_current,
        "updatedReplicas": of_update,
        "collisionCount": old.get("collisionCount", 0),
    }
    kept = {"conditions": old["conditions"]} if old.get("conditions") else {}
    return {**status, **{name: count for name, count in others.items() if count}, **kept}
