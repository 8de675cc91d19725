"""Deployment: rolls its pods from one template to the next through ReplicaSets.

A ReplicaSet per template, named by the template's hash; the newest is the one whose template equals the
deployment's, so a rollback (which only writes an old template) finds its old ReplicaSet again.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.selectors import from_label_selector
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import deployment_status, owners, pods
from controller.reconcilers.adoption import claim, controller_keys
from controller.reconcilers.rollout import (
    DESIRED,
    MAXIMUM,
    Bounds,
    Sizes,
    bounds_of,
    needs_rescale,
    rescale,
    roll,
    size_of_new,
    spec_replicas,
    status_count,
)
from controller.runtime.reconciler import Map, own_key
from controller.runtime.resources import DEPLOYMENTS, PODS, REPLICA_SETS, split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Create, Delete, EmitEvent, Patch, Plan, UpdateStatus, Write
from controller.store.cache import Change
from controller.store.entry import Entry

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
_NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAXIMUM,
}


def _keys_of_gone_pod(view: View, change: Change) -> tuple[str, ...]:
    """Only the Recreate strategy waits for pods, and only for them to go."""
    if change.type != "DELETED":
        return ()
    found: list[Entry | None] = []
    for uid in change.entry.owners:
        owner = view.by_uid(uid)
        if owner is not None and owner.resource == REPLICA_SETS:
            found.extend(view.by_uid(each) for each in owner.owners)
    return tuple(f"{e.namespace}/{e.name}" for e in found if e is not None and e.resource == DEPLOYMENTS)


@dataclass(frozen=True, slots=True)
class _Sets:
    """ReplicaSets of a deployment."""

    new: Object | None
    old: tuple[Object, ...]

    @property
    def everyone(self) -> tuple[Object, ...]:
        return self.old if self.new is None else (*self.old, self.new)


class DeploymentReconciler:
    """See the module."""

    name = "deployment-controller"
    watches: Mapping[ResourceKey, Map] = {
        DEPLOYMENTS: own_key,
        REPLICA_SETS: controller_keys(DEPLOYMENTS),
        PODS: _keys_of_gone_pod,
    }

    def plan(self, view: View, key: str, now: float) -> Plan:
        namespace, name = split(key)
        deployment = view.get(DEPLOYMENTS, namespace, name)
        if deployment is None:
            return NOTHING_TO_DO
        members = claim(view, deployment, REPLICA_SETS, from_label_selector(deployment["spec"].get("selector")))
        # An adopted one counts once its reference is written, so that its size is judged on a view that has it.
        claims, sets = members.writes, _divide(deployment, members.owned)
        bounds = bounds_of(deployment)
        status = deployment_status.counts(deployment, sets.new, sets.everyone, bounds, now)
        if pods.is_deleting(deployment):
            return Plan((*claims, *_status_write(deployment, status)), None, "deleting")
        status = deployment_status.with_pause(deployment, status, now)
        sizes = Sizes(sets.everyone)
        if deployment["spec"].get("paused") or needs_rescale(bounds, sets.everyone):
            recreate = _is_recreate(deployment)
            rescale(bounds, sets.new, sets.old, sizes, rolling=not recreate)
            writes = [*_resizes(deployment, sets, sizes, bounds), *_status_write(deployment, status)]
            return Plan((*claims, *writes), None, "scaled")
        return self._roll_out(view, deployment, sets, claims, bounds, status, now)

    def _roll_out(
        self,
        view: View,
        deployment: Object,
        sets: _Sets,
        claims: Sequence[Write],
        bounds: Bounds,
        status: Object,
        now: float,
    ) -> Plan:
        sizes = Sizes(sets.everyone)
        creating: list[Write] = []
        created = ""
        recreate = _is_recreate(deployment)
        revision = max((_revision(rs) for rs in sets.old), default=0) + 1
        if recreate and _old_pods_left(view, sets.old, sizes):
            for rs in sets.old:
                sizes[rs] = 0
        elif sets.new is None:
            fresh = _new_replica_set(deployment, view, bounds, sizes.total(), revision, recreate=recreate)
            if fresh is None:
                bumped = {**status, "collisionCount": status.get("collisionCount", 0) + 1}
                return Plan((*claims, *_status_write(deployment, bumped)), None, "template hash collides")
            created, count = fresh["metadata"]["name"], fresh["spec"]["replicas"]
            text = f"Scaled up replica set {created} from 0 to {count}"
            event = EmitEvent(deployment, "Normal", "ScalingReplicaSet", text) if count else None
            creating.append(Create(REPLICA_SETS, fresh, event))
        elif recreate:
            sizes[sets.new] = bounds.desired
        else:
            roll(bounds, sets.new, sets.old, sizes)
        status, again_s = deployment_status.with_progress(deployment, status, sets.new, created, now)
        status = deployment_status.with_replica_failure(status, sets.everyone, now)
        writes = [*claims, *creating, *_resizes(deployment, sets, sizes, bounds, revision)]
        if deployment_status.is_complete(deployment, status):
            writes += _surplus(deployment, sets.old)
        writes += _status_write(deployment, status)
        shown = _revision(sets.new) if sets.new is not None else 0
        if created or (sets.new is not None and shown < revision):
            shown = revision
        # No precondition: it touches one annotation that nobody else writes.
        if shown and _revision(deployment) != shown:
            patch = {"metadata": {"annotations": {REVISION: str(shown)}}}
            meta = deployment["metadata"]
            writes.append(Patch(DEPLOYMENTS, meta["namespace"], meta["name"], patch))
        return Plan(tuple(writes), again_s, f"revision {shown}")


def _divide(deployment: Object, owned: Sequence[Object]) -> _Sets:
    """The new one has the deployment's template; of several (a hash function changed) the oldest."""
    wanted = _plain(deployment["spec"]["template"])
    by_age = sorted(owned, key=lambda rs: (pods.created_at(rs), rs["metadata"]["name"]))
    new = next(
        (rs for rs in by_age if not pods.is_deleting(rs) and _plain(rs["spec"]["template"]) == wanted),
        None,
    )
    return _Sets(new, tuple(rs for rs in by_age if rs is not new))


def _plain(template: Object) -> Object:
    """A template without the hash label."""
    meta = dict(template.get("metadata") or {})
    labels = {name: value for name, value in (meta.get("labels") or {}).items() if name != HASH_LABEL}
    meta.pop("creationTimestamp", None)
    return {"metadata": {**meta, "labels": labels}, "spec": template.get("spec")}


def template_hash(template: Object, collisions: int) -> str:
    """Name part of the template's ReplicaSet and value of ``pod-template-hash``."""
    text = json.dumps(_plain(template), sort_keys=True, separators=(",", ":"))
    return owners.safe_hash(f"{text}/{collisions}" if collisions else text, 10)


def _new_replica_set(
    deployment: Object, view: View, bounds: Bounds, total: int, revision: int, *, recreate: bool
) -> Object | None:
    """The ReplicaSet of the current template; None when its name is taken by a stranger."""
    meta, spec = deployment["metadata"], deployment["spec"]
    digest = template_hash(spec["template"], (deployment.get("status") or {}).get("collisionCount", 0))
    name = f"{meta['name']}-{digest}"
    if view.entry(REPLICA_SETS, meta["namespace"], name) is not None:
        return None
    template = copy.deepcopy(spec["template"])
    labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: digest}
    template["metadata"] = {**(template.get("metadata") or {}), "labels": labels}
    selector = copy.deepcopy(spec["selector"])
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH_LABEL: digest}
    rs_spec: Object = {
        "replicas": size_of_new(bounds, 0, total, recreate=recreate),
        "selector": selector,
        "template": template,
    }
    if spec.get("minReadySeconds"):
        rs_spec["minReadySeconds"] = spec["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": labels,
            "annotations": {**_inherited(deployment), **_limits(bounds), REVISION: str(revision)},
            "ownerReferences": [owners.reference_to(deployment)],
        },
        "spec": rs_spec,
    }


def _resizes(deployment: Object, sets: _Sets, sizes: Sizes, bounds: Bounds, revision: int | None = None) -> list[Write]:
    """Bring sizes and annotations of the ReplicaSets to what is wanted; one patch for each that differs."""
    writes: list[Write] = []
    for rs in sets.everyone:
        meta = rs["metadata"]
        have = meta.get("annotations") or {}
        wanted = dict(_limits(bounds)) if sizes[rs] > 0 or rs is sets.new else {}
        change: Object = {}
        if rs is sets.new and revision is not None:
            wanted |= _inherited(deployment) | _revisions(rs, revision)
            if deployment["spec"].get("minReadySeconds", 0) != rs["spec"].get("minReadySeconds", 0):
                change["minReadySeconds"] = deployment["spec"].get("minReadySeconds", 0)
        event = None
        before, after = spec_replicas(rs), sizes[rs]
        if before != after:
            change["replicas"] = after
            verb = "up" if after > before else "down"
            text = f"Scaled {verb} replica set {meta['name']} from {before} to {after}"
            event = EmitEvent(deployment, "Normal", "ScalingReplicaSet", text)
        annotations = {name: value for name, value in wanted.items() if have.get(name) != value}
        if change or annotations:
            patch: Object = {"metadata": {"resourceVersion": meta["resourceVersion"], "annotations": annotations}}
            if change:
                patch["spec"] = change
            writes.append(Patch(REPLICA_SETS, meta["namespace"], meta["name"], patch, event=event))
    return writes


def _limits(bounds: Bounds) -> dict[str, str]:
    return {DESIRED: str(bounds.desired), MAXIMUM: str(bounds.desired + bounds.surge)}


def _inherited(deployment: Object) -> dict[str, str]:
    annotations = deployment["metadata"].get("annotations") or {}
    return {name: value for name, value in annotations.items() if name not in _NOT_COPIED}


def _revisions(rs: Object, revision: int) -> dict[str, str]:
    """A ReplicaSet that becomes the newest again gets the next number and keeps its old ones in its history."""
    have = _revision(rs)
    if have >= revision:
        return {}
    history = (rs["metadata"].get("annotations") or {}).get(REVISION_HISTORY, "")
    past = ",".join(filter(None, [history, str(have) if have else ""]))
    return {REVISION: str(revision), **({REVISION_HISTORY: past} if past else {})}


def _revision(obj: Object) -> int:
    text = (obj["metadata"].get("annotations") or {}).get(REVISION, "")
    return int(text) if text.isdigit() else 0


def _is_recreate(deployment: Object) -> bool:
    return (deployment["spec"].get("strategy") or {}).get("type") == "Recreate"


def _old_pods_left(view: View, old: Sequence[Object], sizes: Sizes) -> bool:
    if any(sizes[rs] > 0 for rs in old):
        return True
    return any(
        entry.resource == PODS and not pods.is_terminal(view.decode(entry))
        for rs in old
        for entry in view.owned(rs["metadata"]["uid"])
    )


def _surplus(deployment: Object, old: Sequence[Object]) -> list[Write]:
    """Old ReplicaSets beyond the history limit, oldest revision first. Only those that are settled at zero."""
    limit = deployment["spec"].get("revisionHistoryLimit", 10)
    kept = [rs for rs in old if not pods.is_deleting(rs)]
    found = sorted(kept, key=lambda rs: (_revision(rs), rs["metadata"]["name"]))[: max(0, len(kept) - limit)]
    return [
        Delete(REPLICA_SETS, rs["metadata"]["namespace"], rs["metadata"]["name"], rs["metadata"]["uid"])
        for rs in found
        if spec_replicas(rs) == 0
        and status_count(rs, "replicas") == 0
        and status_count(rs, "observedGeneration") >= rs["metadata"].get("generation", 0)
    ]


def _status_write(deployment: Object, status: Object) -> list[Write]:
    if status == (deployment.get("status") or {}):
        return []
    return [UpdateStatus(DEPLOYMENTS, {**deployment, "status": status})]
