"""What a volume is: Available, Bound, Released, Failed; and what becomes of it when its claim has gone.

A volume that was made for its claim is deleted by its policy, which its host hears of (``spherelet/volumes``). Nobody
here deletes or recycles anything else: such a volume is Failed, and its data stay where they are.
"""

from typing import Final

from common.clock import parse_rfc3339
from controller.kinds import claims
from controller.kinds.kind import Object
from controller.reconcilers import pods
from controller.runtime.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Delete, EmitEvent, Patch, Plan, UpdateStatus

HOST_GONE_S: Final = 300.0
"""After this the data of a deleted volume are given up with their host, which no longer has a Node."""


def plan(view: View, volume: Object, now: float) -> Plan:
    """The next write for one volume."""
    spec, name = volume["spec"], volume["metadata"]["name"]
    if pods.is_deleting(volume) and claims.VOLUME_PROTECTION not in (volume["metadata"].get("finalizers") or ()):
        return _leaving(view, volume, now)
    ref = spec.get("claimRef") or {}
    if not ref.get("uid"):
        return _phase(volume, "Available")
    claim = view.get(PERSISTENT_VOLUME_CLAIMS, ref.get("namespace", ""), ref.get("name", ""))
    if claim is None or claim["metadata"]["uid"] != ref["uid"]:
        return _released(volume)
    chosen = claims.volume_of(claim)
    if not chosen:
        return NOTHING_TO_DO  # on its way: the claim's own plan goes on with it
    if chosen == name:
        return _phase(volume, "Bound")
    if claims.annotation(volume, claims.PROVISIONED_BY):
        return _released(volume)
    return _set_free(volume)


def with_phase(volume: Object, phase: str, reason: str = "", message: str = "") -> UpdateStatus:
    status = {"phase": phase}
    status |= {key: text for key, text in (("reason", reason), ("message", message)) if text}
    return UpdateStatus(PERSISTENT_VOLUMES, {**volume, "status": status})


def _phase(volume: Object, phase: str) -> Plan:
    if claims.phase_of(volume) == phase:
        return NOTHING_TO_DO
    return Plan((with_phase(volume, phase),), None, phase)


def _released(volume: Object) -> Plan:
    meta, policy = volume["metadata"], volume["spec"].get("persistentVolumeReclaimPolicy")
    provisioner = claims.annotation(volume, claims.PROVISIONED_BY)
    if policy == "Delete" and not provisioner:
        text = f'error getting deleter volume plugin for volume "{meta["name"]}": no deletable volume plugin matched'
        return _failed(volume, "VolumeFailedDelete", text)
    if policy == "Recycle":
        return _failed(volume, "VolumeFailedRecycle", "No recycler plugin found for the volume!")
    if claims.phase_of(volume) != "Released":
        return Plan((with_phase(volume, "Released"),), None, "Released")
    if policy == "Delete" and provisioner == claims.PROVISIONER and not pods.is_deleting(volume):
        write = Delete(PERSISTENT_VOLUMES, "", meta["name"], meta["uid"], resource_version=meta["resourceVersion"])
        return Plan((write,), None, "its claim is gone, deleted")
    return NOTHING_TO_DO


def _failed(volume: Object, reason: str, text: str) -> Plan:
    if claims.phase_of(volume) == "Failed":
        return NOTHING_TO_DO
    write = with_phase(volume, "Failed", reason, text)
    return Plan((UpdateStatus(write.resource, write.object, EmitEvent(volume, "Warning", reason, text)),), None, text)


def _set_free(volume: Object) -> Plan:
    """The claim has got another volume. What the binder wrote goes; who was named by the maker stays named."""
    meta = volume["metadata"]
    metadata: Object = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    ref: Object | None = {"uid": None, "resourceVersion": None}
    if claims.annotation(volume, claims.BOUND_BY_CONTROLLER):
        ref, metadata["annotations"] = None, {claims.BOUND_BY_CONTROLLER: None}
    change = {"metadata": metadata, "spec": {"claimRef": ref}}
    return Plan((Patch(PERSISTENT_VOLUMES, "", meta["name"], change),), None, "its claim has another volume")


def _leaving(view: View, volume: Object, now: float) -> Plan:
    """Its host removes the data and then the finalizer; a host that is gone for good never will."""
    meta = volume["metadata"]
    held = meta.get("finalizers") or ()
    host = (meta.get("labels") or {}).get(claims.HOST_LABEL, "")
    if claims.PROVISIONER not in held or not host or view.entry(NODES, "", host) is not None:
        return NOTHING_TO_DO
    left_s = parse_rfc3339(str(meta["deletionTimestamp"])) + HOST_GONE_S - now
    if left_s > 0:
        return Plan((), left_s, "")
    metadata = {
        "uid": meta["uid"],
        "resourceVersion": meta["resourceVersion"],
        "finalizers": [each for each in held if each != claims.PROVISIONER],
    }
    change = {"metadata": metadata}
    return Plan((Patch(PERSISTENT_VOLUMES, "", meta["name"], change),), None, f"given up with its host {host}")
