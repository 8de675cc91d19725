"""Binds claims and volumes to each other. Keys are ``namespace/claim`` and ``/volume``.

A binding is four writes, each a plan of its own that rests on the one before: the volume names the claim (whoever
writes that first, by resource version, has it), the volume is Bound, the claim names the volume, the claim is Bound.
Spec: kube ``pkg/controller/volume/persistentvolume/pv_controller.go``.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from controller.kinds import claims
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import pods, volume_match, volume_provisioning, volume_reclaim
from controller.runtime import indexes
from controller.runtime.reconciler import Map
from controller.runtime.resources import (
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    key_of,
    split,
)
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, EmitEvent, Patch, Plan, UpdateStatus
from controller.store.cache import Change


def _of_claim(view: View, change: Change) -> Iterable[str]:
    entry = change.entry
    yield f"{entry.namespace}/{entry.name}"
    for each in view.group(indexes.volumes_for(entry.namespace, entry.name)):
        yield f"/{each.name}"


def _of_volume(view: View, change: Change) -> Iterable[str]:
    yield f"/{change.entry.name}"
    for entry in (change.entry, change.old):
        ref = (entry.decode()["spec"].get("claimRef") or {}) if entry is not None else {}
        if ref:
            yield f"{ref.get('namespace', '')}/{ref.get('name', '')}"
    volume = change.entry.decode()
    is_free = change.type != "DELETED" and claims.phase_of(volume) == "Available"
    if is_free:
        yield from _unbound_of(view, claims.class_of(volume) or "")
    if is_free or change.type != "MODIFIED":
        for each in view.objects(PERSISTENT_VOLUME_CLAIMS):
            if claims.volume_of(each) == change.entry.name:
                yield key_of(each)


def _unbound_of(view: View, storage_class: str) -> Iterable[str]:
    for each in view.group(indexes.unbound_claims()):
        if (claims.class_of(view.decode(each)) or "") == storage_class:
            yield f"{each.namespace}/{each.name}"


def _of_class(view: View, change: Change) -> Iterable[str]:
    yield from _unbound_of(view, change.entry.name)
    yield from _unbound_of(view, "")


def _of_node(view: View, change: Change) -> Iterable[str]:
    if change.type != "DELETED":
        return
    for each in view.group(indexes.unbound_claims()):
        yield f"{each.namespace}/{each.name}"
    for each in view.entries(PERSISTENT_VOLUMES):
        if each.deleting:
            yield f"/{each.name}"


class PersistentVolumeBinder:
    """See the module."""

    name = "persistent-volume-binder"
    watches: Mapping[ResourceKey, Map] = {
        PERSISTENT_VOLUME_CLAIMS: _of_claim,
        PERSISTENT_VOLUMES: _of_volume,
        STORAGE_CLASSES: _of_class,
        NODES: _of_node,
    }

    def plan(self, view: View, key: str, now: float) -> Plan:
        namespace, name = split(key)
        if not namespace:
            volume = view.get(PERSISTENT_VOLUMES, "", name)
            return NOTHING_TO_DO if volume is None else volume_reclaim.plan(view, volume, now)
        claim = view.get(PERSISTENT_VOLUME_CLAIMS, namespace, name)
        if claim is None:
            return NOTHING_TO_DO
        if claims.is_bound(claim):
            return _bound(view, claim)
        if pods.is_deleting(claim):
            return NOTHING_TO_DO
        return _named(view, claim) if claims.volume_of(claim) else _unbound(view, claim)


def _bound(view: View, claim: Object) -> Plan:
    """A claim whose binding was complete once: it stays so, or has lost its volume."""
    volume = view.get(PERSISTENT_VOLUMES, "", claims.volume_of(claim))
    if volume is None:
        return _lost(claim, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
    if not volume["spec"].get("claimRef") or volume_match.is_kept_for(volume, claim):
        return _bind(volume, claim)
    return _lost(claim, "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")


def _named(view: View, claim: Object) -> Plan:
    """A claim that asks for one volume by name."""
    name = claims.volume_of(claim)
    volume = view.get(PERSISTENT_VOLUMES, "", name)
    if volume is None:
        return NOTHING_TO_DO
    if not volume["spec"].get("claimRef"):
        why = volume_match.mismatch(volume, claim)
        if why:
            return _tell(claim, "Warning", "VolumeMismatch", f'Cannot bind to requested volume "{name}": {why}')
    elif not volume_match.is_kept_for(volume, claim):
        return _tell(claim, "Warning", "FailedBinding", f'volume "{name}" already bound to a different claim.')
    return _bind(volume, claim)


def _unbound(view: View, claim: Object) -> Plan:
    name = claims.class_of(claim)
    if name is None:
        default = claims.default_class(view.objects(STORAGE_CLASSES))
        if default is not None:
            return Plan((_patch(claim, {"spec": {"storageClassName": default}}),), None, f"class {default}")
    kept = _kept_for(view, claim)
    if kept is not None:
        return _bind(kept, claim)
    found = view.get(STORAGE_CLASSES, "", name) if name else None
    selected, node = claims.annotation(claim, claims.SELECTED_NODE), None
    if volume_provisioning.is_delayed(found):
        if not selected:
            return _waits(claim, found)
        node = view.get(NODES, "", selected)
        if node is None:
            return _select_again(claim, f"node {selected} is gone")
    free = (view.decode(each) for each in view.group(indexes.free_volumes(name or "")))
    volume = volume_match.best(free, claim, volume_match.place_of(node) if node is not None else None)
    if volume is not None:
        return _bind(volume, claim)
    if not name:
        text = "no persistent volumes available for this claim and no storage class is set"
        return _tell(claim, "Normal", "FailedBinding", text)
    if found is None:
        text = f'storageclass.storage.k8s.io "{name}" not found'
        return _tell(claim, "Warning", "ProvisioningFailed", text)
    return _provision(claim, found, node)


def _provision(claim: Object, storage_class: Object, node: Object | None) -> Plan:
    provisioner = str(storage_class.get("provisioner") or "")
    why = volume_provisioning.problem(claim, storage_class)
    if why:
        if node is not None and provisioner != claims.PROVISIONER:
            return _select_again(claim, "another claim has the volume that was there")
        return _tell(claim, "Warning", "ProvisioningFailed", why)
    if provisioner == claims.PROVISIONER:
        assert node is not None, "delayed, or there is a problem"
        return volume_provisioning.plan(claim, storage_class, node)
    if claims.annotation(claim, claims.STORAGE_PROVISIONER) != provisioner:
        annotations = {claims.STORAGE_PROVISIONER: provisioner}
        return Plan((_patch(claim, {"metadata": {"annotations": annotations}}),), None, f"left to {provisioner}")
    text = (
        f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the "
        "system administrator. If volume creation is delayed, please verify that the provisioner is running and "
        "correctly registered."
    )
    return _tell(claim, "Normal", "ExternalProvisioning", text)


def _waits(claim: Object, storage_class: Object | None) -> Plan:
    """No pod of this claim has been given a node yet. What will fail then is told now."""
    why = volume_provisioning.problem(claim, storage_class) if storage_class is not None else ""
    if why and storage_class is not None and storage_class.get("provisioner") == claims.PROVISIONER:
        return _tell(claim, "Warning", "ProvisioningFailed", why)
    text = "waiting for first consumer to be created before binding"
    return _tell(claim, "Normal", "WaitForFirstConsumer", text)


def _kept_for(view: View, claim: Object) -> Object | None:
    """A volume that names the claim already: whose binding was begun, then one that its maker keeps for it."""
    meta = claim["metadata"]
    named = view.group(indexes.volumes_for(meta["namespace"], meta["name"]))
    return volume_match.kept((view.decode(each) for each in named), claim)


def _bind(volume: Object, claim: Object) -> Plan:
    """The next of the four writes."""
    spec, meta = volume["spec"], claim["metadata"]
    name = volume["metadata"]["name"]
    ref = spec.get("claimRef") or {}
    if ref.get("uid") != meta["uid"]:
        change: Object = {"spec": {"claimRef": volume_provisioning.reference_to(claim)}}
        if not ref:
            change["metadata"] = {"annotations": {claims.BOUND_BY_CONTROLLER: "yes"}}
        return Plan((_patch(volume, change),), None, f"volume {name} is kept for claim {meta['name']}")
    if claims.phase_of(volume) != "Bound":
        return Plan((volume_reclaim.with_phase(volume, "Bound"),), None, f"volume {name} is bound")
    if not claims.is_bound(claim):
        annotations = {claims.BIND_COMPLETED: "yes"}
        if not claims.volume_of(claim):
            annotations[claims.BOUND_BY_CONTROLLER] = "yes"
        change = {"metadata": {"annotations": annotations}, "spec": {"volumeName": name}}
        return Plan((_patch(claim, change),), None, f"bound to volume {name}")
    known = claim.get("status") or {}
    status = {
        **known,
        "phase": "Bound",
        "accessModes": spec.get("accessModes") or [],
        "capacity": spec.get("capacity") or {},
    }
    if status == known:
        return NOTHING_TO_DO
    return Plan((UpdateStatus(PERSISTENT_VOLUME_CLAIMS, {**claim, "status": status}),), None, f"bound to volume {name}")


def _lost(claim: Object, reason: str, text: str) -> Plan:
    if claims.phase_of(claim) == "Lost":
        return NOTHING_TO_DO
    event = EmitEvent(claim, "Warning", reason, text)
    return Plan((UpdateStatus(PERSISTENT_VOLUME_CLAIMS, {**claim, "status": {"phase": "Lost"}}, event),), None, text)


def _select_again(claim: Object, why: str) -> Plan:
    """The scheduler is to look once more."""
    change = {"metadata": {"annotations": {claims.SELECTED_NODE: None}}}
    return Plan((_patch(claim, change),), None, f"node to be selected again: {why}")


def _tell(claim: Object, kind: str, reason: str, text: str) -> Plan:
    return Plan((EmitEvent(claim, kind, reason, text),))


def _patch(obj: Object, change: Mapping[str, Any]) -> Patch:
    """A change that rests on what the view says."""
    meta = obj["metadata"]
    resource = PERSISTENT_VOLUMES if obj.get("kind") == "PersistentVolume" else PERSISTENT_VOLUME_CLAIMS
    metadata = {**(change.get("metadata") or {}), "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    return Patch(resource, meta.get("namespace", ""), meta["name"], {**change, "metadata": metadata})
