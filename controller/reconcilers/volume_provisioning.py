"""Volumes that are made for a claim: a directory on the disk of the node that the scheduler has selected.

The controller knows no host's paths: the host resolves a provisioned volume's path below its own folder of volumes,
makes the directory when a pod first uses it, and removes it before the volume's finalizer (``sphere.io/local``) goes.
"""

from typing import Final

from controller.kinds import claims
from controller.kinds.columns import dig
from controller.kinds.kind import Object
from controller.runtime.resources import PERSISTENT_VOLUMES
from controller.runtime.writes import Create, EmitEvent, Plan

_MODES: Final = frozenset(("ReadWriteOnce", "ReadWriteOncePod"))


def is_delayed(storage_class: Object | None) -> bool:
    return storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"


def problem(claim: Object, storage_class: Object) -> str:
    """Why no volume can ever be made for the claim; empty when one can, be it by somebody else's provisioner."""
    provisioner = str(storage_class.get("provisioner") or "")
    if provisioner != claims.PROVISIONER:
        return f"no volume plugin matched name: {provisioner}" if provisioner.startswith("kubernetes.io/") else ""
    spec = claim["spec"]
    if not is_delayed(storage_class):
        name = storage_class["metadata"]["name"]
        return f'storage class "{name}" needs volumeBindingMode WaitForFirstConsumer: a pod decides on the host'
    if not {*spec.get("accessModes", ())} <= _MODES:
        return "a directory on one host is ReadWriteOnce or ReadWriteOncePod only; change spec.accessModes"
    if (spec.get("volumeMode") or "Filesystem") != "Filesystem":
        return "volumeMode Block is not supported; use Filesystem"
    if spec.get("selector") is not None:
        return "claim.Spec.Selector is not supported for dynamic provisioning; bind a volume of your own or remove it"
    if spec.get("dataSource") is not None or spec.get("dataSourceRef") is not None:
        return "spec.dataSource is not supported; fill the volume from a pod"
    return ""


def plan(claim: Object, storage_class: Object, node: Object) -> Plan:
    """Make the volume. It is kept for the claim from the start, and its name follows from the claim: made once."""
    name = f"pvc-{claim['metadata']['uid']}"
    text = f"Successfully provisioned volume {name} using {claims.PROVISIONER}"
    event = EmitEvent(claim, "Normal", "ProvisioningSucceeded", text)
    return Plan((Create(PERSISTENT_VOLUMES, _volume(name, claim, storage_class, node), event),), None, text)


def reference_to(claim: Object) -> Object:
    meta = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": meta["namespace"],
        "name": meta["name"],
        "uid": meta["uid"],
    }


def _volume(name: str, claim: Object, storage_class: Object, node: Object) -> Object:
    host = node["metadata"]["name"]
    hostname = (node["metadata"].get("labels") or {}).get(claims.HOSTNAME, host)
    term = {"matchExpressions": [{"key": claims.HOSTNAME, "operator": "In", "values": [hostname]}]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "labels": {claims.HOST_LABEL: host},
            "annotations": {claims.PROVISIONED_BY: claims.PROVISIONER},
            "finalizers": [claims.VOLUME_PROTECTION, claims.PROVISIONER],
        },
        "spec": {
            "accessModes": claim["spec"]["accessModes"],
            "capacity": {"storage": dig(claim, "spec.resources.requests.storage")},
            "claimRef": reference_to(claim),
            "local": {"path": name},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
            "storageClassName": storage_class["metadata"]["name"],
            "volumeMode": "Filesystem",
        },
    }
